// Integer dot products on 16 lanes of 32 bits as four NEON registers: unsigned by signed bytes where the tier has them
// (i8mm), else signed by signed bytes (dotprod),
// with weights of 8 bits less 128.
#pragma once
#include "vec_neon.h"

namespace {

struct D {
  int32x4_t a, b, c, d;  // lanes 0-3, 4-7, 8-11, 12-15
};

OMLX_INLINE D load_d(const void* p) {
  const int32_t* at = static_cast<const int32_t*>(p);
  return {vld1q_s32(at), vld1q_s32(at + 4), vld1q_s32(at + 8), vld1q_s32(at + 12)};
}
OMLX_INLINE void store_d(void* p, D v) {
  int32_t* at = static_cast<int32_t*>(p);
  vst1q_s32(at, v.a);
  vst1q_s32(at + 4, v.b);
  vst1q_s32(at + 8, v.c);
  vst1q_s32(at + 12, v.d);
}

template <int SHIFT, int MASK>
OMLX_INLINE int32x4_t bits_of(int32x4_t v) {
  uint8x16_t bytes = vreinterpretq_u8_s32(v);
  if constexpr (SHIFT > 0) bytes = vshlq_n_u8(bytes, SHIFT);
  if constexpr (SHIFT < 0) bytes = vshrq_n_u8(bytes, -SHIFT);
  if constexpr (((SHIFT < 0 ? 0xff >> -SHIFT : 0xff << SHIFT) & 0xff) != MASK) bytes = vandq_u8(bytes, vdupq_n_u8(MASK));
  return vreinterpretq_s32_u8(bytes);
}
/// Shifted to the left by SHIFT bits, or to the right where that is negative, and the bits of MASK in every byte.
template <int SHIFT, int MASK>
OMLX_INLINE D bits_of(D v) {
  return {bits_of<SHIFT, MASK>(v.a), bits_of<SHIFT, MASK>(v.b), bits_of<SHIFT, MASK>(v.c), bits_of<SHIFT, MASK>(v.d)};
}
OMLX_INLINE D either(D x, D y) {
  return {vorrq_s32(x.a, y.a), vorrq_s32(x.b, y.b), vorrq_s32(x.c, y.c), vorrq_s32(x.d, y.d)};
}

/// 16 integral floats within ±32767.
OMLX_INLINE void to_int16(V v, int16_t* out) {
  vst1q_s16(out, vmovn_high_s32(vmovn_s32(vcvtq_s32_f32(v.a)), vcvtq_s32_f32(v.b)));
  vst1q_s16(out + 8, vmovn_high_s32(vmovn_s32(vcvtq_s32_f32(v.c)), vcvtq_s32_f32(v.d)));
}
OMLX_INLINE void shuffle_bytes(const void* in, const uint8_t* table, void* out) {
  vst1q_u8(static_cast<uint8_t*>(out), vqtbl1q_u8(vld1q_u8(static_cast<const uint8_t*>(in)), vld1q_u8(table)));
}

OMLX_INLINE D same(int32_t number) {
  const int32x4_t v = vdupq_n_s32(number);
  return {v, v, v, v};
}
OMLX_INLINE D zero_d() { return same(0); }
/// Four bytes in every lane; the parts are one register.
OMLX_INLINE D broadcast(const int8_t* p) {
  int32_t word;
  std::memcpy(&word, p, 4);
  return same(word);
}

#define OMLX_BYTE_PLANES
struct Weights {
  D bytes;
};
OMLX_INLINE Weights split(D bytes) { return {bytes}; }
#ifdef __ARM_FEATURE_MATMUL_INT8
OMLX_INLINE int32x4_t dot(int32x4_t acc, int32x4_t w, int32x4_t x) {
  return vusdotq_s32(acc, vreinterpretq_u8_s32(w), vreinterpretq_s8_s32(x));
}
#else
#define OMLX_SIGNED_WEIGHTS
OMLX_INLINE int32x4_t less_128(int32x4_t bytes) {
  return vreinterpretq_s32_u8(veorq_u8(vreinterpretq_u8_s32(bytes), vdupq_n_u8(128)));
}
OMLX_INLINE D byte_weights(D bytes) { return {less_128(bytes.a), less_128(bytes.b), less_128(bytes.c), less_128(bytes.d)}; }
OMLX_INLINE int32x4_t dot(int32x4_t acc, int32x4_t w, int32x4_t x) {
  return vdotq_s32(acc, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(x));
}
#endif
/// acc + the dot product of 4 weights and 4 signed bytes in every lane.
OMLX_INLINE D dot_plane(D acc, const Weights& w, D x) {
  return {dot(acc.a, w.bytes.a, x.a), dot(acc.b, w.bytes.b, x.b), dot(acc.c, w.bytes.c, x.c), dot(acc.d, w.bytes.d, x.d)};
}

OMLX_INLINE int32x4_t planes_sum(int32x4_t high, int32x4_t low) { return vaddq_s32(vshlq_n_s32(high, 8), low); }
OMLX_INLINE D planes_sum(D high, D low) {
  return {planes_sum(high.a, low.a), planes_sum(high.b, low.b), planes_sum(high.c, low.c), planes_sum(high.d, low.d)};
}
OMLX_INLINE V to_float(D v) { return {vcvtq_f32_s32(v.a), vcvtq_f32_s32(v.b), vcvtq_f32_s32(v.c), vcvtq_f32_s32(v.d)}; }

constexpr int DOT_M = 3, DOT_N = 1;  // tile of the integer GEMM, in rows and in vectors of 16 columns

/// fma() with one rounding, whatever the CPU.
OMLX_INLINE V fused(V x, V y, V z) { return fma(x, y, z); }

constexpr int DOT_ROWS = 2;  // of x that the integer matvec handles together

}  // namespace
