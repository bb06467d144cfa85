// Compiled with the flags of this tier: no standard containers or algorithms here, because an inline
// function of theirs, built with these flags, could replace the copy that other CPUs run.
#include "../tier.h"
#include "dot_avx512.h"
#include "ints_avx512.h"

#define TIER_TABLE avx512_tier
#define TIER_NAME "avx512"
#include "../generic/all.inc"
