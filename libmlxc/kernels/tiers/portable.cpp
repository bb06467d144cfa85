// Compiled with the flags of this tier: no standard containers or algorithms here, because an inline
// function of theirs, built with these flags, could replace the copy that other CPUs run.
#include "../tier.h"
#include "dot_portable.h"
#include "ints_portable.h"

#define TIER_TABLE portable_tier
#define TIER_NAME "portable"
#include "../generic/all.inc"
