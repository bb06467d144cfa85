// 16 lanes of int32 sums in four NEON registers, and of int16 pairs with first and second numbers apart.
#pragma once
#include "vec_neon.h"

namespace {

/// Sums: lanes 0-3, 4-7, 8-11, 12-15. Pairs: first and second numbers of lanes 0-7, then of lanes 8-15.
struct Ints {
  int32x4_t a, b, c, d;
};

OMLX_INLINE Ints no_ints() {
  const int32x4_t none = vdupq_n_s32(0);
  return {none, none, none, none};
}
OMLX_INLINE Ints load_pairs(const int16_t* p) {
  const int16x8x2_t low = vld2q_s16(p), high = vld2q_s16(p + 16);
  return {vreinterpretq_s32_s16(low.val[0]), vreinterpretq_s32_s16(low.val[1]), vreinterpretq_s32_s16(high.val[0]),
          vreinterpretq_s32_s16(high.val[1])};
}
/// One pair in all lanes.
OMLX_INLINE Ints same_pair(const int16_t* p) {
  const int32x4_t first = vreinterpretq_s32_s16(vdupq_n_s16(p[0])), second = vreinterpretq_s32_s16(vdupq_n_s16(p[1]));
  return {first, second, first, second};
}
OMLX_INLINE int32x4_t dot_low(int32x4_t acc, int32x4_t x, int32x4_t y) {
  return vmlal_s16(acc, vget_low_s16(vreinterpretq_s16_s32(x)), vget_low_s16(vreinterpretq_s16_s32(y)));
}
OMLX_INLINE int32x4_t dot_high(int32x4_t acc, int32x4_t x, int32x4_t y) {
  return vmlal_high_s16(acc, vreinterpretq_s16_s32(x), vreinterpretq_s16_s32(y));
}
/// acc + a0 b0 + a1 b1 in every lane; exact as long as the sum fits 32 bits. x, y: pairs.
OMLX_INLINE Ints dot_pairs(Ints x, Ints y, Ints acc) {
  return {dot_low(dot_low(acc.a, x.a, y.a), x.b, y.b), dot_high(dot_high(acc.b, x.a, y.a), x.b, y.b),
          dot_low(dot_low(acc.c, x.c, y.c), x.d, y.d), dot_high(dot_high(acc.d, x.c, y.c), x.d, y.d)};
}
OMLX_INLINE V to_floats(Ints v) { return {vcvtq_f32_s32(v.a), vcvtq_f32_s32(v.b), vcvtq_f32_s32(v.c), vcvtq_f32_s32(v.d)}; }
/// Rounds to nearest, ties to even; |v| < 32768, anything for NaN.
OMLX_INLINE void store_rounded(int16_t* p, V v) {
  vst1q_s16(p, vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(v.a)), vcvtnq_s32_f32(v.b)));
  vst1q_s16(p + 8, vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(v.c)), vcvtnq_s32_f32(v.d)));
}

}  // namespace
