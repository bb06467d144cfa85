// 16 float lanes as two AVX2 registers (AVX2, FMA, F16C). Included by one translation unit only.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#define OMLX_INLINE inline __attribute__((always_inline))

namespace {

constexpr int TILE_N = 2, TILE_M = 3;  // 12 of 16 registers
constexpr int MATVEC_N = 4;

struct V {
  __m256 a, b;
};

OMLX_INLINE V zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
OMLX_INLINE V set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
OMLX_INLINE V load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
OMLX_INLINE __m256i first8(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
OMLX_INLINE V load_n(const float* p, int n) {
  return {_mm256_maskload_ps(p, first8(n)), _mm256_maskload_ps(p + 8, first8(n - 8))};
}
OMLX_INLINE void store(float* p, V v) {
  _mm256_storeu_ps(p, v.a);
  _mm256_storeu_ps(p + 8, v.b);
}
OMLX_INLINE void store_n(float* p, V v, int n) {
  _mm256_maskstore_ps(p, first8(n), v.a);
  _mm256_maskstore_ps(p + 8, first8(n - 8), v.b);
}
OMLX_INLINE V add(V x, V y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
OMLX_INLINE V sub(V x, V y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
OMLX_INLINE V mul(V x, V y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
OMLX_INLINE V div(V x, V y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
OMLX_INLINE V fma(V x, V y, V z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
/// x > y ? x : y, so y where either is NaN.
OMLX_INLINE V vmax(V x, V y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
OMLX_INLINE V vmin(V x, V y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
OMLX_INLINE V round_even(V v) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(v.a, mode), _mm256_round_ps(v.b, mode)};
}
OMLX_INLINE __m256 pow2_8(__m256 n) {
  const __m256i i = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(i, 23));
}
/// 2^n for integral n in [-126, 127].
OMLX_INLINE V pow2(V n) { return {pow2_8(n.a), pow2_8(n.b)}; }
/// Lanes >= n replaced by fill.
OMLX_INLINE V keep_first(V v, int n, float fill) {
  const __m256 f = _mm256_set1_ps(fill);
  return {_mm256_blendv_ps(f, v.a, _mm256_castsi256_ps(first8(n))),
          _mm256_blendv_ps(f, v.b, _mm256_castsi256_ps(first8(n - 8)))};
}
OMLX_INLINE bool any_nan_or_inf(V v) {
  const __m256 top = _mm256_set1_ps(3.402823466e38f);
  const __m256 bad = _mm256_or_ps(_mm256_cmp_ps(v.a, top, _CMP_NLE_UQ),
                                  _mm256_cmp_ps(v.b, top, _CMP_NLE_UQ));
  return _mm256_movemask_ps(bad) != 0;
}
OMLX_INLINE unsigned mask_ge(V x, V y) {
  const int lo = _mm256_movemask_ps(_mm256_cmp_ps(x.a, y.a, _CMP_GE_OQ));
  const int hi = _mm256_movemask_ps(_mm256_cmp_ps(x.b, y.b, _CMP_GE_OQ));
  return static_cast<unsigned>(lo | hi << 8);
}

OMLX_INLINE V load_f16(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
OMLX_INLINE __m256 bf16_8(const uint16_t* p) {
  const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
OMLX_INLINE V load_bf16(const uint16_t* p) { return {bf16_8(p), bf16_8(p + 8)}; }

/// The one summation tree: lanes i and i+8, then i+4, i+2, i+1.
OMLX_INLINE float sum(V v) {
  const __m256 h = _mm256_add_ps(v.a, v.b);
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
}
OMLX_INLINE float hmax(V v) {
  const __m256 h = _mm256_max_ps(v.a, v.b);
  __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  q = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(q, _mm_shuffle_ps(q, q, 1)));
}

/// Weights of one group: w = q * scale + bias, 16 at a time from the packed bits.
template <int BITS>
struct Group {
  static constexpr bool SHUFFLED = false;
  __m256 scale, bias;
  OMLX_INLINE Group(float s, float b) : scale(_mm256_set1_ps(s)), bias(_mm256_set1_ps(b)) {}
  OMLX_INLINE V operator()(const uint8_t* p) const { return {eight(p), eight(p + BITS)}; }

 private:
  OMLX_INLINE __m256 eight(const uint8_t* p) const {
    __m256i q;
    if constexpr (BITS == 8) {
      q = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    } else if constexpr (BITS <= 4) {
      uint32_t bits = 0;
      std::memcpy(&bits, p, BITS);
      const __m256i shift = _mm256_setr_epi32(0, BITS, 2 * BITS, 3 * BITS, 4 * BITS, 5 * BITS,
                                              6 * BITS, 7 * BITS);
      q = _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int>(bits)), shift),
                           _mm256_set1_epi32((1 << BITS) - 1));
    } else {
      uint64_t bits = 0;
      std::memcpy(&bits, p, BITS);
      alignas(32) uint32_t f[8];
      for (int i = 0; i < 8; i++) f[i] = static_cast<uint32_t>(bits >> (i * BITS)) & ((1u << BITS) - 1);
      q = _mm256_load_si256(reinterpret_cast<const __m256i*>(f));
    }
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(q), scale, bias);
  }
};

}  // namespace
