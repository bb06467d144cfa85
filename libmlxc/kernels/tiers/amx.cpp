// Compiled with the flags of this tier: no standard containers or algorithms here, because an inline
// function of theirs, built with these flags, could replace the copy that other CPUs run.
#include "../tier.h"
#include "dot_avx512.h"
#include "ints_avx512.h"
#include "tiles.h"

#define OMLX_TILES
#ifdef OMLX_TILES_EMULATED
#define TIER_TABLE amx_emulated_tier
#define TIER_NAME "amx-emulated"
#else
#define TIER_TABLE amx_tier
#define TIER_NAME "amx"
#endif
#include "../generic/all.inc"
