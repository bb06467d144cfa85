// 16 lanes of int32 sums and of int16 pairs in plain C++.
#pragma once
#include "vec_portable.h"

namespace {

typedef int32_t Ints __attribute__((vector_size(64)));

OMLX_INLINE Ints no_ints() { return Ints{}; }
OMLX_INLINE Ints load_pairs(const int16_t* p) {
  Ints v;
  std::memcpy(&v, p, 64);
  return v;
}
/// One pair in all lanes.
OMLX_INLINE Ints same_pair(const int16_t* p) {
  int32_t pair;
  std::memcpy(&pair, p, 4);
  return Ints{} + pair;
}
/// acc + a0 b0 + a1 b1 in every lane; exact as long as the sum fits 32 bits.
OMLX_INLINE Ints dot_pairs(Ints a, Ints b, Ints acc) {
  int16_t x[32], y[32];
  std::memcpy(x, &a, 64);
  std::memcpy(y, &b, 64);
  int32_t sum[16];
  std::memcpy(sum, &acc, 64);
  for (int i = 0; i < 16; i++) sum[i] += x[2 * i] * y[2 * i] + x[2 * i + 1] * y[2 * i + 1];
  std::memcpy(&acc, sum, 64);
  return acc;
}
OMLX_INLINE V to_floats(Ints v) { return __builtin_convertvector(v, V); }
/// Rounds to nearest, ties to even; |v| < 32768, zero for NaN.
OMLX_INLINE void store_rounded(int16_t* p, V v) {
  const V whole = round_even(v);
  for (int i = 0; i < 16; i++) p[i] = whole[i] > -32768.0f && whole[i] < 32768.0f ? static_cast<int16_t>(whole[i]) : 0;
}

}  // namespace
