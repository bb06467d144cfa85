// 16 float lanes as four NEON registers. Included by one translation unit only.
#pragma once
#include <arm_neon.h>

#include <cstdint>
#include <cstring>

#define OMLX_INLINE inline __attribute__((always_inline))

namespace {

constexpr int TILE_N = 2, TILE_M = 2;  // 16 accumulator registers of 32
constexpr int MATVEC_N = 4;

struct V {
  float32x4_t a, b, c, d;  // lanes 0-3, 4-7, 8-11, 12-15
};

OMLX_INLINE V set1(float x) {
  const float32x4_t v = vdupq_n_f32(x);
  return {v, v, v, v};
}
OMLX_INLINE V zero() { return set1(0.0f); }
OMLX_INLINE V load(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}; }
OMLX_INLINE V load_n(const float* p, int n) {
  float copy[16] = {};
  std::memcpy(copy, p, static_cast<size_t>(n) * 4);
  return load(copy);
}
OMLX_INLINE void store(float* p, V v) {
  vst1q_f32(p, v.a);
  vst1q_f32(p + 4, v.b);
  vst1q_f32(p + 8, v.c);
  vst1q_f32(p + 12, v.d);
}
OMLX_INLINE void store_n(float* p, V v, int n) {
  float copy[16];
  store(copy, v);
  std::memcpy(p, copy, static_cast<size_t>(n) * 4);
}
OMLX_INLINE V add(V x, V y) {
  return {vaddq_f32(x.a, y.a), vaddq_f32(x.b, y.b), vaddq_f32(x.c, y.c), vaddq_f32(x.d, y.d)};
}
OMLX_INLINE V sub(V x, V y) {
  return {vsubq_f32(x.a, y.a), vsubq_f32(x.b, y.b), vsubq_f32(x.c, y.c), vsubq_f32(x.d, y.d)};
}
OMLX_INLINE V mul(V x, V y) {
  return {vmulq_f32(x.a, y.a), vmulq_f32(x.b, y.b), vmulq_f32(x.c, y.c), vmulq_f32(x.d, y.d)};
}
OMLX_INLINE V div(V x, V y) {
  return {vdivq_f32(x.a, y.a), vdivq_f32(x.b, y.b), vdivq_f32(x.c, y.c), vdivq_f32(x.d, y.d)};
}
OMLX_INLINE V fma(V x, V y, V z) {
  return {vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c), vfmaq_f32(z.d, x.d, y.d)};
}
/// x > y ? x : y, so y where either is NaN, which the instruction would keep.
OMLX_INLINE float32x4_t max4(float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }
OMLX_INLINE float32x4_t min4(float32x4_t x, float32x4_t y) { return vbslq_f32(vcltq_f32(x, y), x, y); }
OMLX_INLINE V vmax(V x, V y) { return {max4(x.a, y.a), max4(x.b, y.b), max4(x.c, y.c), max4(x.d, y.d)}; }
OMLX_INLINE V vmin(V x, V y) { return {min4(x.a, y.a), min4(x.b, y.b), min4(x.c, y.c), min4(x.d, y.d)}; }
OMLX_INLINE V round_even(V v) { return {vrndnq_f32(v.a), vrndnq_f32(v.b), vrndnq_f32(v.c), vrndnq_f32(v.d)}; }
OMLX_INLINE float32x4_t pow2_4(float32x4_t n) {
  return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23));
}
/// 2^n for integral n in [-126, 127].
OMLX_INLINE V pow2(V n) { return {pow2_4(n.a), pow2_4(n.b), pow2_4(n.c), pow2_4(n.d)}; }
/// All ones in those of lanes first ... first + 3 that are below n.
OMLX_INLINE uint32x4_t below(int first, int n) {
  const int32x4_t lane = {0, 1, 2, 3};
  return vcltq_s32(lane, vdupq_n_s32(n - first));
}
/// Lanes >= n replaced by fill.
OMLX_INLINE V keep_first(V v, int n, float fill) {
  const float32x4_t f = vdupq_n_f32(fill);
  return {vbslq_f32(below(0, n), v.a, f), vbslq_f32(below(4, n), v.b, f), vbslq_f32(below(8, n), v.c, f),
          vbslq_f32(below(12, n), v.d, f)};
}
OMLX_INLINE bool any_nan_or_inf(V v) {
  const float32x4_t top = vdupq_n_f32(3.402823466e38f);
  const uint32x4_t ab = vandq_u32(vcleq_f32(v.a, top), vcleq_f32(v.b, top));
  const uint32x4_t cd = vandq_u32(vcleq_f32(v.c, top), vcleq_f32(v.d, top));
  return vminvq_u32(vandq_u32(ab, cd)) == 0;
}
OMLX_INLINE unsigned mask_ge(V x, V y) {
  const uint16x8_t ab = vuzp1q_u16(vreinterpretq_u16_u32(vcgeq_f32(x.a, y.a)), vreinterpretq_u16_u32(vcgeq_f32(x.b, y.b)));
  const uint16x8_t cd = vuzp1q_u16(vreinterpretq_u16_u32(vcgeq_f32(x.c, y.c)), vreinterpretq_u16_u32(vcgeq_f32(x.d, y.d)));
  const uint16x8_t bit = {1, 2, 4, 8, 16, 32, 64, 128};
  return vaddvq_u16(vandq_u16(ab, bit)) | static_cast<unsigned>(vaddvq_u16(vandq_u16(cd, bit))) << 8;
}

OMLX_INLINE float32x4_t f16_4(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
OMLX_INLINE V load_f16(const uint16_t* p) { return {f16_4(p), f16_4(p + 4), f16_4(p + 8), f16_4(p + 12)}; }
OMLX_INLINE V load_bf16(const uint16_t* p) {
  const uint16x8_t none = vdupq_n_u16(0), low = vld1q_u16(p), high = vld1q_u16(p + 8);
  return {vreinterpretq_f32_u16(vzip1q_u16(none, low)), vreinterpretq_f32_u16(vzip2q_u16(none, low)),
          vreinterpretq_f32_u16(vzip1q_u16(none, high)), vreinterpretq_f32_u16(vzip2q_u16(none, high))};
}

#define OMLX_HAVE_SUM4
/// The one summation tree: lanes i and i+8, then i+4, i+2, i+1. This is its first two steps.
OMLX_INLINE float32x4_t fold(V v) { return vaddq_f32(vaddq_f32(v.a, v.c), vaddq_f32(v.b, v.d)); }
OMLX_INLINE float sum(V v) {
  const float32x4_t q = fold(v);
  return vpadds_f32(vadd_f32(vget_low_f32(q), vget_high_f32(q)));
}
/// Lanes 0 and 1 of the third step for a, then for b.
OMLX_INLINE float32x4_t fold_two(float32x4_t a, float32x4_t b) {
  const float64x2_t x = vreinterpretq_f64_f32(a), y = vreinterpretq_f64_f32(b);
  return vaddq_f32(vreinterpretq_f32_f64(vzip1q_f64(x, y)), vreinterpretq_f32_f64(vzip2q_f64(x, y)));
}
/// out[0..3] = sum of each, by the same tree.
OMLX_INLINE void sum4(V a, V b, V c, V d, float* out) {
  vst1q_f32(out, vpaddq_f32(fold_two(fold(a), fold(b)), fold_two(fold(c), fold(d))));
}
OMLX_INLINE float hmax(V v) {
  const float32x4_t q = max4(max4(v.a, v.c), max4(v.b, v.d));
  float m[4];
  vst1q_f32(m, max4(q, vextq_f32(q, q, 2)));
  return m[0] > m[1] ? m[0] : m[1];
}

/// 16 bytes as floats.
OMLX_INLINE V floats_of(uint8x16_t bytes) {
  const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_high_u8(bytes);
  return {vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))), vcvtq_f32_u32(vmovl_high_u16(low)),
          vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))), vcvtq_f32_u32(vmovl_high_u16(high))};
}

/// Weights of one group: w = q * scale + bias, 16 at a time from the packed bits.
template <int BITS>
struct Group {
  static constexpr bool SHUFFLED = false;
  V scale, bias;
  OMLX_INLINE Group(float s, float b) : scale(set1(s)), bias(set1(b)) {}
  OMLX_INLINE V operator()(const uint8_t* p) const { return fma(integers(p), scale, bias); }

 private:
  OMLX_INLINE static V integers(const uint8_t* p) {
    if constexpr (BITS == 8) return floats_of(vld1q_u8(p));
    if constexpr (BITS == 4) {
      const uint8x8_t pairs = vld1_u8(p), low = vand_u8(pairs, vdup_n_u8(15)), high = vshr_n_u8(pairs, 4);
      return floats_of(vcombine_u8(vzip1_u8(low, high), vzip2_u8(low, high)));
    }
    uint64_t low = 0, high = 0;
    std::memcpy(&low, p, BITS);
    std::memcpy(&high, p + BITS, BITS);
    return {four(low), four(low >> 4 * BITS), four(high), four(high >> 4 * BITS)};
  }
  /// The lowest four numbers of `bits`.
  OMLX_INLINE static float32x4_t four(uint64_t bits) {
    const int32x4_t shift = {0, -BITS, -2 * BITS, -3 * BITS};
    const uint32x4_t q = vshlq_u32(vdupq_n_u32(static_cast<uint32_t>(bits)), shift);
    return vcvtq_f32_u32(vandq_u32(q, vdupq_n_u32((1u << BITS) - 1)));
  }
};

}  // namespace
