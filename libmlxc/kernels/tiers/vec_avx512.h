// 16 float lanes as one AVX-512 register (F, BW, VL, DQ). Included by one translation unit only.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#define OMLX_INLINE inline __attribute__((always_inline))

namespace {

constexpr int TILE_N = 4, TILE_M = 6;  // 24 accumulators of 32 registers
constexpr int MATVEC_N = 8;

using V = __m512;

OMLX_INLINE __mmask16 first(int n) { return static_cast<__mmask16>((1u << n) - 1); }

OMLX_INLINE V zero() { return _mm512_setzero_ps(); }
OMLX_INLINE V set1(float x) { return _mm512_set1_ps(x); }
OMLX_INLINE V load(const float* p) { return _mm512_loadu_ps(p); }
OMLX_INLINE V load_n(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
OMLX_INLINE void store(float* p, V v) { _mm512_storeu_ps(p, v); }
OMLX_INLINE void store_n(float* p, V v, int n) { _mm512_mask_storeu_ps(p, first(n), v); }
OMLX_INLINE V add(V a, V b) { return _mm512_add_ps(a, b); }
OMLX_INLINE V sub(V a, V b) { return _mm512_sub_ps(a, b); }
OMLX_INLINE V mul(V a, V b) { return _mm512_mul_ps(a, b); }
OMLX_INLINE V div(V a, V b) { return _mm512_div_ps(a, b); }
OMLX_INLINE V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
/// a > b ? a : b, so b where either is NaN.
OMLX_INLINE V vmax(V a, V b) { return _mm512_max_ps(a, b); }
OMLX_INLINE V vmin(V a, V b) { return _mm512_min_ps(a, b); }
OMLX_INLINE V round_even(V v) { return _mm512_roundscale_ps(v, 0); }
/// 2^n for integral n in [-126, 127].
OMLX_INLINE V pow2(V n) {
  const __m512i i = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
  return _mm512_castsi512_ps(_mm512_slli_epi32(i, 23));
}
/// Lanes >= n replaced by fill.
OMLX_INLINE V keep_first(V v, int n, float fill) {
  return _mm512_mask_mov_ps(_mm512_set1_ps(fill), first(n), v);
}
OMLX_INLINE bool any_nan_or_inf(V v) {
  return _mm512_cmp_ps_mask(v, _mm512_set1_ps(3.402823466e38f), _CMP_NLE_UQ) != 0;
}
OMLX_INLINE unsigned mask_ge(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }

OMLX_INLINE V load_f16(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
OMLX_INLINE V load_bf16(const uint16_t* p) {
  const __m256i h = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

#define OMLX_HAVE_SUM4
/// The one summation tree: lanes i and i+8, then i+4, i+2, i+1.
OMLX_INLINE __m128 fold_quarter(__m128 v) {
  v = _mm_add_ps(v, _mm_movehl_ps(v, v));
  return _mm_add_ss(v, _mm_shuffle_ps(v, v, 1));
}
OMLX_INLINE float sum(V v) {
  const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  return _mm_cvtss_f32(fold_quarter(q));
}
/// out[0..3] = sum of each, by the same tree.
OMLX_INLINE void sum4(V a, V b, V c, V d, float* out) {
  const V ab = add(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
  const V cd = add(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
  // quarters of ab: a(0-3), a(4-7), b(0-3), b(4-7), each already folded once
  V q = add(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
  q = add(q, _mm512_permute_ps(q, 0x4e));
  q = add(q, _mm512_permute_ps(q, 0xb1));
  const __m512i firsts = _mm512_castsi128_si512(_mm_setr_epi32(0, 4, 8, 12));
  _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, q)));
}
OMLX_INLINE float hmax(V v) { return _mm512_reduce_max_ps(v); }

#define OMLX_HAVE_SHUFFLE
/// Lanes 0, 8, 1, 9, ..., 7, 15.
OMLX_INLINE V shuffle(V v) {
  const __m512i from = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
  return _mm512_permutexvar_ps(from, v);
}
OMLX_INLINE V unshuffle(V v) {
  const __m512i from = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
  return _mm512_permutexvar_ps(from, v);
}

/// Weights of one group: w = q * scale + bias, 16 at a time from the packed bits.
template <int BITS>
struct Group {
  static constexpr bool SHUFFLED = false;  // has shuffled()
  V scale, bias;
  OMLX_INLINE Group(float s, float b) : scale(set1(s)), bias(set1(b)) {}
  OMLX_INLINE V operator()(const uint8_t* p) const {
    uint64_t lo = 0, hi = 0;
    std::memcpy(&lo, p, BITS);
    std::memcpy(&hi, p + BITS, BITS);
    const __m512i shift = _mm512_setr_epi64(0, BITS, 2 * BITS, 3 * BITS, 4 * BITS, 5 * BITS,
                                            6 * BITS, 7 * BITS);
    const __m512i mask = _mm512_set1_epi64((1 << BITS) - 1);
    const __m512i a = _mm512_srlv_epi64(_mm512_set1_epi64(static_cast<long long>(lo)), shift);
    const __m512i b = _mm512_srlv_epi64(_mm512_set1_epi64(static_cast<long long>(hi)), shift);
    const __m256i qa = _mm512_cvtepi64_epi32(_mm512_and_si512(a, mask));
    const __m256i qb = _mm512_cvtepi64_epi32(_mm512_and_si512(b, mask));
    const __m512i q = _mm512_inserti32x8(_mm512_castsi256_si512(qa), qb, 1);
    return fma(_mm512_cvtepi32_ps(q), scale, bias);
  }
};

template <>
struct Group<8> {
  static constexpr bool SHUFFLED = false;
  V scale, bias;
  OMLX_INLINE Group(float s, float b) : scale(set1(s)), bias(set1(b)) {}
  OMLX_INLINE V operator()(const uint8_t* p) const {
    const __m512i q = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return fma(_mm512_cvtepi32_ps(q), scale, bias);
  }
};

/// 4 bits: the 16 possible weights of a group are one register, and a nibble selects its weight.
template <>
struct Group<4> {
  static constexpr bool SHUFFLED = true;
  V table;
  OMLX_INLINE Group(float s, float b)
      : table(fma(_mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), set1(s),
                  set1(b))) {}
  OMLX_INLINE V operator()(const uint8_t* p) const {
    uint32_t lo, hi;
    std::memcpy(&lo, p, 4);
    std::memcpy(&hi, p + 4, 4);
    const __m512i words = _mm512_mask_set1_epi32(_mm512_set1_epi32(static_cast<int>(lo)), 0xff00,
                                                 static_cast<int>(hi));
    const __m512i shift =
        _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
    return _mm512_permutexvar_ps(_mm512_srlv_epi32(words, shift), table);
  }
  /// The same weights in the lane order of shuffle(): one 64-bit shift brings two nibbles into place.
  OMLX_INLINE V shuffled(const uint8_t* p) const {
    long long bits;
    std::memcpy(&bits, p, 8);
    const __m512i shift = _mm512_setr_epi64(0, 4, 8, 12, 16, 20, 24, 28);
    return _mm512_permutexvar_ps(_mm512_srlv_epi64(_mm512_set1_epi64(bits), shift), table);
  }
};

}  // namespace
