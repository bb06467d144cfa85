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

template <int SHIFT, int MASK>
OMLX_INLINE __m256i bits_of(__m256i v) {
  if constexpr (SHIFT > 0) v = _mm256_slli_epi16(v, SHIFT);
  if constexpr (SHIFT < 0) v = _mm256_srli_epi16(v, -SHIFT);
  return _mm256_and_si256(v, _mm256_set1_epi8(MASK));
}
/// Shifted to the left by SHIFT bits, or to the right where that is negative, and the bits of MASK in every byte.
template <int SHIFT, int MASK>
OMLX_INLINE D bits_of(D d) {
  return {bits_of<SHIFT, MASK>(d.a), bits_of<SHIFT, MASK>(d.b)};
}
OMLX_INLINE D either(D a, D b) { return {_mm256_or_si256(a.a, b.a), _mm256_or_si256(a.b, b.b)}; }

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

#if defined(__AVXVNNI__) || defined(__AVX512VNNI__)
#define OMLX_BYTE_PLANES
struct Weights {
  D bytes;
};
OMLX_INLINE Weights split(D bytes) { return {bytes}; }
OMLX_INLINE __m256i dot(__m256i acc, __m256i w, __m256i x) {
#ifdef __AVXVNNI__
  return _mm256_dpbusd_avx_epi32(acc, w, x);
#else  // the same instruction as AVX-512 encodes it, for CPUs that have only that
  return _mm256_dpbusd_epi32(acc, w, x);
#endif
}
/// acc + the dot product of 4 unsigned and 4 signed bytes in every lane.
OMLX_INLINE D dot_plane(D acc, const Weights& w, D x) {
  return {dot(acc.a, w.bytes.a, x.a), dot(acc.b, w.bytes.b, x.b)};
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
