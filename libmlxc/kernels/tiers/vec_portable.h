// 16 float lanes in plain C++ (compiler vectors), for any CPU. Included by one translation unit only.
// A fused multiply-add is used only where the CPU has one; else product and sum round separately.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#define OMLX_INLINE inline __attribute__((always_inline))

namespace {

constexpr int TILE_N = 2, TILE_M = 2;
constexpr int MATVEC_N = 2;

typedef float V __attribute__((vector_size(64)));
typedef int32_t I __attribute__((vector_size(64)));

OMLX_INLINE V zero() { return V{}; }
OMLX_INLINE V set1(float x) { return V{} + x; }
OMLX_INLINE V load(const float* p) {
  V v;
  std::memcpy(&v, p, 64);
  return v;
}
OMLX_INLINE V load_n(const float* p, int n) {
  V v{};
  for (int i = 0; i < n; i++) v[i] = p[i];
  return v;
}
OMLX_INLINE void store(float* p, V v) { std::memcpy(p, &v, 64); }
OMLX_INLINE void store_n(float* p, V v, int n) {
  for (int i = 0; i < n; i++) p[i] = v[i];
}
OMLX_INLINE V add(V a, V b) { return a + b; }
OMLX_INLINE V sub(V a, V b) { return a - b; }
OMLX_INLINE V mul(V a, V b) { return a * b; }
OMLX_INLINE V div(V a, V b) { return a / b; }
OMLX_INLINE V fma(V a, V b, V c) {
#ifdef __FP_FAST_FMAF
  V r;
  for (int i = 0; i < 16; i++) r[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return r;
#else
  return a * b + c;
#endif
}
OMLX_INLINE V select(I mask, V a, V b) {
  return reinterpret_cast<V>((mask & reinterpret_cast<I>(a)) | (~mask & reinterpret_cast<I>(b)));
}
/// a > b ? a : b, so b where either is NaN.
OMLX_INLINE V vmax(V a, V b) { return select(a > b, a, b); }
OMLX_INLINE V vmin(V a, V b) { return select(a < b, a, b); }
/// Adding 1.5 * 2^23 leaves no fraction bits; for |v| < 2^22.
OMLX_INLINE V round_even(V v) {
  const V magic = set1(12582912.0f);
  return (v + magic) - magic;
}
/// 2^n for integral n in [-126, 127].
OMLX_INLINE V pow2(V n) {
  const I i = (__builtin_convertvector(n, I) + 127) << 23;
  return reinterpret_cast<V>(i);
}
/// Lanes >= n replaced by fill.
OMLX_INLINE V keep_first(V v, int n, float fill) {
  const I lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return select(lane < (I{} + n), v, set1(fill));
}
OMLX_INLINE bool any_nan_or_inf(V v) {
  bool bad = false;
  for (int i = 0; i < 16; i++) bad |= !(v[i] <= 3.402823466e38f);
  return bad;
}
OMLX_INLINE unsigned mask_ge(V a, V b) {
  unsigned mask = 0;
  for (int i = 0; i < 16; i++) mask |= static_cast<unsigned>(a[i] >= b[i]) << i;
  return mask;
}

OMLX_INLINE float from_f16(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(h & 0x7fff) << 13;
  // Shifted into place the exponent is 112 too small; a multiplication corrects denormals as well.
  float f;
  std::memcpy(&f, &magnitude, 4);
  f *= 5.192296858534828e33f;  // 2^112
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  if ((h & 0x7c00) == 0x7c00) bits = 0x7f800000 | (magnitude & 0x007fffff);
  bits |= sign;
  std::memcpy(&f, &bits, 4);
  return f;
}
OMLX_INLINE V load_f16(const uint16_t* p) {
  V v;
  for (int i = 0; i < 16; i++) v[i] = from_f16(p[i]);
  return v;
}
OMLX_INLINE V load_bf16(const uint16_t* p) {
  I bits;
  for (int i = 0; i < 16; i++) bits[i] = static_cast<int32_t>(static_cast<uint32_t>(p[i]) << 16);
  return reinterpret_cast<V>(bits);
}

/// The one summation tree: lanes i and i+8, then i+4, i+2, i+1.
OMLX_INLINE float sum(V v) {
  float h[8], q[4];
  for (int i = 0; i < 8; i++) h[i] = v[i] + v[i + 8];
  for (int i = 0; i < 4; i++) q[i] = h[i] + h[i + 4];
  return (q[0] + q[2]) + (q[1] + q[3]);
}
OMLX_INLINE float hmax(V v) {
  float m = v[0];
  for (int i = 1; i < 16; i++) m = v[i] > m ? v[i] : m;
  return m;
}

/// Weights of one group: w = q * scale + bias, 16 at a time from the packed bits.
template <int BITS>
struct Group {
  static constexpr bool SHUFFLED = false;
  V scale, bias;
  OMLX_INLINE Group(float s, float b) : scale(set1(s)), bias(set1(b)) {}
  OMLX_INLINE V operator()(const uint8_t* p) const {
    uint64_t lo = 0, hi = 0;
    std::memcpy(&lo, p, BITS);
    std::memcpy(&hi, p + BITS, BITS);
    I q;
    constexpr uint64_t mask = (1u << BITS) - 1;
    for (int i = 0; i < 8; i++) {
      q[i] = static_cast<int32_t>(lo >> (i * BITS) & mask);
      q[i + 8] = static_cast<int32_t>(hi >> (i * BITS) & mask);
    }
    return fma(__builtin_convertvector(q, V), scale, bias);
  }
};

}  // namespace
