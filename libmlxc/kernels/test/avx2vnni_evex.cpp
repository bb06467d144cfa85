// The AVX-VNNI tier with that instruction as AVX-512 has it.
#include "../tiers/avx2vnni.cpp"
