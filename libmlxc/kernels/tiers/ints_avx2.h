// 16 lanes of int32 sums and of int16 pairs in two AVX2 registers.
#pragma once
#include "vec_avx2.h"

namespace {

struct Ints {
  __m256i a, b;
};

OMLX_INLINE Ints no_ints() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
OMLX_INLINE Ints load_pairs(const int16_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 16))};
}
/// One pair in all lanes.
OMLX_INLINE Ints same_pair(const int16_t* p) {
  int32_t pair;
  std::memcpy(&pair, p, 4);
  const __m256i v = _mm256_set1_epi32(pair);
  return {v, v};
}
/// acc + a0 b0 + a1 b1 in every lane; exact as long as the sum fits 32 bits.
OMLX_INLINE Ints dot_pairs(Ints x, Ints y, Ints acc) {
  return {_mm256_add_epi32(acc.a, _mm256_madd_epi16(x.a, y.a)),
          _mm256_add_epi32(acc.b, _mm256_madd_epi16(x.b, y.b))};
}
OMLX_INLINE V to_floats(Ints v) { return {_mm256_cvtepi32_ps(v.a), _mm256_cvtepi32_ps(v.b)}; }
/// Rounds to nearest, ties to even; |v| < 32768, anything for NaN.
OMLX_INLINE void store_rounded(int16_t* p, V v) {
  const __m256i packed = _mm256_packs_epi32(_mm256_cvtps_epi32(v.a), _mm256_cvtps_epi32(v.b));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}

}  // namespace
