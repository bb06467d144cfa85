// Integer dot products on 16 lanes of 32 bits as one AVX-512 register, with VNNI where the tier has it.
#pragma once
#include "vec_avx512.h"

namespace {

using D = __m512i;  // 16 lanes of 4 bytes

OMLX_INLINE D load_d(const void* p) { return _mm512_loadu_si512(p); }
OMLX_INLINE void store_d(void* p, D d) { _mm512_storeu_si512(p, d); }

/// out[j], lane n = dword j of the 16 bytes at base + n * stride.
OMLX_INLINE void load_block(const void* base, size_t stride, D* out) {
  const char* p = static_cast<const char*>(base);
  const auto row = [p, stride](int n) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + static_cast<size_t>(n) * stride));
  };
  D z[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    z[i] = _mm512_castsi128_si512(row(i));
    z[i] = _mm512_mask_broadcast_i32x4(z[i], 0x00f0, row(i + 4));
    z[i] = _mm512_mask_broadcast_i32x4(z[i], 0x0f00, row(i + 8));
    z[i] = _mm512_mask_broadcast_i32x4(z[i], 0xf000, row(i + 12));
  }
  const D a = _mm512_unpacklo_epi32(z[0], z[1]), b = _mm512_unpacklo_epi32(z[2], z[3]);
  const D c = _mm512_unpackhi_epi32(z[0], z[1]), d = _mm512_unpackhi_epi32(z[2], z[3]);
  out[0] = _mm512_unpacklo_epi64(a, b);
  out[1] = _mm512_unpackhi_epi64(a, b);
  out[2] = _mm512_unpacklo_epi64(c, d);
  out[3] = _mm512_unpackhi_epi64(c, d);
}

OMLX_INLINE D low_nibbles(D d) { return _mm512_and_si512(d, _mm512_set1_epi8(15)); }
OMLX_INLINE D high_nibbles(D d) { return low_nibbles(_mm512_srli_epi16(d, 4)); }

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
