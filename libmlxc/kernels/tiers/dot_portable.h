// Integer dot products on 16 lanes of 32 bits in plain C++.
#pragma once
#include "vec_portable.h"

// Long after the compiler has split its vectors, so not repeated wherever it is used.
#define OMLX_CALL __attribute__((noinline))

namespace {

struct D {
  I v;
};

OMLX_INLINE D load_d(const void* p) {
  D d;
  std::memcpy(&d.v, p, 64);
  return d;
}
OMLX_INLINE void store_d(void* p, D d) { std::memcpy(p, &d.v, 64); }

/// Shifted to the left by SHIFT bits, or to the right where that is negative, and the bits of MASK in every byte.
template <int SHIFT, int MASK>
OMLX_INLINE D bits_of(D d) {
  if constexpr (SHIFT > 0) d.v <<= SHIFT;
  if constexpr (SHIFT < 0) d.v >>= -SHIFT;
  return {d.v & MASK * 0x01010101};
}
OMLX_INLINE D either(D a, D b) { return {a.v | b.v}; }

/// 16 integral floats within ±32767.
OMLX_CALL void to_int16(V v, int16_t* out) {
  for (int i = 0; i < 16; i++) out[i] = static_cast<int16_t>(v[i]);
}
OMLX_CALL void shuffle_bytes(const void* in, const uint8_t* table, void* out) {
  for (int i = 0; i < 16; i++) static_cast<uint8_t*>(out)[i] = static_cast<const uint8_t*>(in)[table[i]];
}

OMLX_INLINE D broadcast(const int8_t* p) {
  int32_t word;
  std::memcpy(&word, p, 4);
  return {I{} + word};
}

struct Weights {
  D even, odd;  // 16-bit numbers
};
OMLX_INLINE Weights split(D bytes) {
  return {{bytes.v & 0x00ff00ff}, {(bytes.v >> 8) & 0x00ff00ff}};
}
OMLX_INLINE I low_half(I v) { return (v << 16) >> 16; }
OMLX_INLINE I high_half(I v) { return v >> 16; }
/// acc + the dot product of the even and the odd weights with two pairs of 16-bit numbers.
OMLX_CALL D dot_pairs(D acc, const Weights& w, D x_even, D x_odd) {
  acc.v += low_half(w.even.v) * low_half(x_even.v) + high_half(w.even.v) * high_half(x_even.v);
  acc.v += low_half(w.odd.v) * low_half(x_odd.v) + high_half(w.odd.v) * high_half(x_odd.v);
  return acc;
}

OMLX_INLINE D zero_d() { return {I{}}; }
OMLX_INLINE V to_float(D d) { return __builtin_convertvector(d.v, V); }

constexpr int DOT_M = 2, DOT_N = 1;  // tile of the integer GEMM, in rows and in vectors of 16 columns

/// fma() with one rounding, whatever the CPU.
OMLX_CALL V fused(V x, V y, V z) {
  V r;
  for (int i = 0; i < 16; i++) r[i] = __builtin_fmaf(x[i], y[i], z[i]);
  return r;
}

constexpr int DOT_ROWS = 2;  // of x that the integer matvec handles together

}  // namespace
