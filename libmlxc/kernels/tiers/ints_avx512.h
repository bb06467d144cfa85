// 16 lanes of int32 sums and of int16 pairs in one AVX-512 register.
#pragma once
#include "vec_avx512.h"

namespace {

using Ints = __m512i;

OMLX_INLINE Ints no_ints() { return _mm512_setzero_si512(); }
OMLX_INLINE Ints load_pairs(const int16_t* p) { return _mm512_loadu_si512(p); }
/// One pair in all lanes.
OMLX_INLINE Ints same_pair(const int16_t* p) {
  int32_t pair;
  std::memcpy(&pair, p, 4);
  return _mm512_set1_epi32(pair);
}
/// acc + a0 b0 + a1 b1 in every lane; exact as long as the sum fits 32 bits.
OMLX_INLINE Ints dot_pairs(Ints a, Ints b, Ints acc) {
#ifdef __AVX512VNNI__
  // Not the intrinsic: GCC 12 copies every accumulator in each round of a loop around it.
  asm("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
  return acc;
#else
  return _mm512_add_epi32(acc, _mm512_madd_epi16(a, b));
#endif
}
OMLX_INLINE V to_floats(Ints v) { return _mm512_cvtepi32_ps(v); }
/// Rounds to nearest, ties to even; |v| < 32768, anything for NaN.
OMLX_INLINE void store_rounded(int16_t* p, V v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(v)));
}

}  // namespace
