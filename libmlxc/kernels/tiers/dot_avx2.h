// Integer dot products on 16 lanes of 32 bits as two AVX2 registers, with AVX-VNNI where the tier has it.
#pragma once
#include "vec_avx2.h"

namespace {

struct D {
  __m256i a, b;  // lanes 0-7, 8-15
};

OMLX_INLINE D load_d(const void* p) {
  const __m256i* at = static_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
}
OMLX_INLINE void store_d(void* p, D d) {
  __m256i* at = static_cast<__m256i*>(p);
  _mm256_storeu_si256(at, d.a);
  _mm256_storeu_si256(at + 1, d.b);
}

/// The 8 lanes of load_block() that begin with row 0 of `p`.
OMLX_INLINE void load_half(const char* p, size_t stride, __m256i* out) {
  __m256i z[4];
#pragma GCC unroll 4
  for (size_t i = 0; i < 4; i++) {
    const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + i * stride));
    const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + (i + 4) * stride));
    z[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
  }
  const __m256i a = _mm256_unpacklo_epi32(z[0], z[1]), b = _mm256_unpacklo_epi32(z[2], z[3]);
  const __m256i c = _mm256_unpackhi_epi32(z[0], z[1]), d = _mm256_unpackhi_epi32(z[2], z[3]);
  out[0] = _mm256_unpacklo_epi64(a, b);
  out[1] = _mm256_unpackhi_epi64(a, b);
  out[2] = _mm256_unpacklo_epi64(c, d);
  out[3] = _mm256_unpackhi_epi64(c, d);
}

/// out[j], lane n = dword j of the 16 bytes at base + n * stride.
OMLX_INLINE void load_block(const void* base, size_t stride, D* out) {
  const char* p = static_cast<const char*>(base);
  __m256i low[4], high[4];
  load_half(p, stride, low);
  load_half(p + 8 * stride, stride, high);
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) out[j] = {low[j], high[j]};
}

OMLX_INLINE __m256i low_nibbles(__m256i v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
OMLX_INLINE D low_nibbles(D d) { return {low_nibbles(d.a), low_nibbles(d.b)}; }
OMLX_INLINE D high_nibbles(D d) {
  return {low_nibbles(_mm256_srli_epi16(d.a, 4)), low_nibbles(_mm256_srli_epi16(d.b, 4))};
}

/// 16 integral floats within ±32767.
OMLX_INLINE void to_int16(V v, int16_t* out) {
  const __m256i packed = _mm256_packs_epi32(_mm256_cvtps_epi32(v.a), _mm256_cvtps_epi32(v.b));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_permute4x64_epi64(packed, 0xd8));
}
OMLX_INLINE void shuffle_bytes(const void* in, const uint8_t* table, void* out) {
  const __m128i bytes = _mm_loadu_si128(static_cast<const __m128i*>(in));
  const __m128i order = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  _mm_storeu_si128(static_cast<__m128i*>(out), _mm_shuffle_epi8(bytes, order));
}

/// Four bytes in every lane; both halves are the same register.
OMLX_INLINE D broadcast(const int8_t* p) {
  int word;
  std::memcpy(&word, p, 4);
  const __m256i v = _mm256_set1_epi32(word);
  return {v, v};
}

#ifdef __AVXVNNI__
#define OMLX_BYTE_PLANES
struct Weights {
  D bytes;
};
OMLX_INLINE Weights split(D bytes) { return {bytes}; }
/// acc + the dot product of 4 unsigned and 4 signed bytes in every lane.
OMLX_INLINE D dot_plane(D acc, const Weights& w, D x) {
  return {_mm256_dpbusd_avx_epi32(acc.a, w.bytes.a, x.a), _mm256_dpbusd_avx_epi32(acc.b, w.bytes.b, x.b)};
}
constexpr int DOT_M = 3, DOT_N = 1;  // tile of the integer GEMM, in rows and in vectors of 16 columns
#else
struct Weights {
  D even, odd;  // 16-bit numbers
};
OMLX_INLINE Weights split(D bytes) {
  const __m256i mask = _mm256_set1_epi16(255);
  return {{_mm256_and_si256(bytes.a, mask), _mm256_and_si256(bytes.b, mask)},
          {_mm256_srli_epi16(bytes.a, 8), _mm256_srli_epi16(bytes.b, 8)}};
}
/// acc + the dot product of the even and the odd weights with two pairs of 16-bit numbers.
OMLX_INLINE D dot_pairs(D acc, const Weights& w, D x_even, D x_odd) {
  acc.a = _mm256_add_epi32(acc.a, _mm256_madd_epi16(w.even.a, x_even.a));
  acc.b = _mm256_add_epi32(acc.b, _mm256_madd_epi16(w.even.b, x_even.b));
  acc.a = _mm256_add_epi32(acc.a, _mm256_madd_epi16(w.odd.a, x_odd.a));
  acc.b = _mm256_add_epi32(acc.b, _mm256_madd_epi16(w.odd.b, x_odd.b));
  return acc;
}
constexpr int DOT_M = 4, DOT_N = 1;  // tile of the integer GEMM, in rows and in vectors of 16 columns
#endif

OMLX_INLINE D zero_d() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
OMLX_INLINE D planes_sum(D hi, D lo) {
  return {_mm256_add_epi32(_mm256_slli_epi32(hi.a, 8), lo.a), _mm256_add_epi32(_mm256_slli_epi32(hi.b, 8), lo.b)};
}
OMLX_INLINE V to_float(D d) { return {_mm256_cvtepi32_ps(d.a), _mm256_cvtepi32_ps(d.b)}; }

/// fma() with one rounding, whatever the CPU.
OMLX_INLINE V fused(V x, V y, V z) { return fma(x, y, z); }

constexpr int DOT_ROWS = 4;  // of x that the integer matvec handles together

}  // namespace
