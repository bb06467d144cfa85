// Compiled with the flags of this tier: no standard containers or algorithms here, because an inline
// function of theirs, built with these flags, could replace the copy that other CPUs run.
#include "../tier.h"
#include "dot_avx2.h"
#include "ints_avx2.h"

#ifdef __AVXVNNI__
#define TIER_TABLE avx2vnni_tier
#define TIER_NAME "avx2vnni"
#else
#define TIER_TABLE avx2vnni_evex_tier
#define TIER_NAME "avx2vnni-evex"
#endif
#include "../generic/all.inc"
