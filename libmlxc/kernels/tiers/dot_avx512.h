// Integer dot products on 16 lanes of 32 bits as one AVX-512 register, with VNNI where the tier has it.
#pragma once
#include "vec_avx512.h"

namespace {

using D = __m512i;  // 16 lanes of 4 bytes

OMLX_INLINE D load_d(const void* p) { return _mm512_loadu_si512(p); }
OMLX_INLINE void store_d(void* p, D d) { _mm512_storeu_si512(p, d); }

/// Shifted to the left by SHIFT bits, or to the right where that is negative, and the bits of MASK in every byte.
template <int SHIFT, int MASK>
OMLX_INLINE D bits_of(D d) {
  if constexpr (SHIFT > 0) d = _mm512_slli_epi16(d, SHIFT);
  if constexpr (SHIFT < 0) d = _mm512_srli_epi16(d, -SHIFT);
  return _mm512_and_si512(d, _mm512_set1_epi8(MASK));
}
OMLX_INLINE D either(D a, D b) { return _mm512_or_si512(a, b); }

/// 16 integral floats within ±32767.
OMLX_INLINE void to_int16(V v, int16_t* out) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(v)));
}
OMLX_INLINE void shuffle_bytes(const void* in, const uint8_t* table, void* out) {
  const __m128i bytes = _mm_loadu_si128(static_cast<const __m128i*>(in));
  const __m128i order = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  _mm_storeu_si128(static_cast<__m128i*>(out), _mm_shuffle_epi8(bytes, order));
}

OMLX_INLINE D broadcast(const int8_t* p) {
  int word;
  std::memcpy(&word, p, 4);
  return _mm512_set1_epi32(word);
}

#ifdef __AVX512VNNI__
#define OMLX_BYTE_PLANES
struct Weights {
  D bytes;
};
OMLX_INLINE Weights split(D bytes) { return {bytes}; }
/// acc + the dot product of 4 unsigned and 4 signed bytes in every lane.
OMLX_INLINE D dot_plane(D acc, const Weights& w, D x) {
  // Not the intrinsic: with it GCC 12 copies every sum of a loop to another register and to the stack.
  __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(w.bytes), "v"(x));
  return acc;
}
#else
struct Weights {
  D even, odd;  // 16-bit numbers
};
OMLX_INLINE Weights split(D bytes) {
  return {_mm512_and_si512(bytes, _mm512_set1_epi16(255)), _mm512_srli_epi16(bytes, 8)};
}
/// acc + the dot product of the even and the odd weights with two pairs of 16-bit numbers.
OMLX_INLINE D dot_pairs(D acc, const Weights& w, D x_even, D x_odd) {
  acc = _mm512_add_epi32(acc, _mm512_madd_epi16(w.even, x_even));
  return _mm512_add_epi32(acc, _mm512_madd_epi16(w.odd, x_odd));
}
#endif

OMLX_INLINE D zero_d() { return _mm512_setzero_si512(); }
OMLX_INLINE D planes_sum(D hi, D lo) { return _mm512_add_epi32(_mm512_slli_epi32(hi, 8), lo); }
OMLX_INLINE V to_float(D d) { return _mm512_cvtepi32_ps(d); }

constexpr int DOT_M = 6, DOT_N = 2;  // tile of the integer GEMM, in rows and in vectors of 16 columns

/// fma() with one rounding, whatever the CPU.
OMLX_INLINE V fused(V x, V y, V z) { return fma(x, y, z); }

constexpr int DOT_ROWS = 8;  // of x that the integer matvec handles together

}  // namespace
