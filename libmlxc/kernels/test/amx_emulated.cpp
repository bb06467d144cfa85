// The AMX tier with its tiles in plain C++.
#define OMLX_TILES_EMULATED
#include "../tiers/amx.cpp"
