// Compiled with the flags of this tier: no standard containers or algorithms here, because an inline
// function of theirs, built with these flags, could replace the copy that other CPUs run.
#include "../tier.h"
#include "dot_neon.h"
#include "ints_neon.h"

#define TIER_TABLE neon_i8mm_tier
#define TIER_NAME "neon-i8mm"
#include "../generic/all.inc"
