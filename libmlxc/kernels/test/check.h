// A small test helper: named tests, checks that count, and data for them.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "../kernels.h"

namespace check {

struct Test {
  const char* name;
  std::function<void()> body;
};

/// Registers a test; `name` is a plain sentence.
struct Register {
  Register(const char* name, std::function<void()> body);
};

#define TEST_JOIN2(a, b) a##b
#define TEST_JOIN(a, b) TEST_JOIN2(a, b)
#define TEST(name)                                                                       \
  static void TEST_JOIN(body_, __LINE__)();                                              \
  static const check::Register TEST_JOIN(test_, __LINE__)(name, TEST_JOIN(body_, __LINE__)); \
  static void TEST_JOIN(body_, __LINE__)()

/// Records a failure of the running test, with its text, and lets the test go on.
void fail(const std::string& text);
inline void that(bool holds, const std::string& text) {
  if (!holds) fail(text);
}

/// Same bits, element by element.
void same(const std::vector<float>& a, const std::vector<float>& b, const std::string& what);
/// |got - want| <= tolerance * (largest |want| or 1e-30).
void close(const std::vector<float>& got, const std::vector<double>& want, double tolerance, const std::string& what);

/// Repeats f once per tier that this CPU has, with the tier selected; for the one alone that OMLX_CPU_TIER forces.
void each_tier(const std::function<void(const std::string& tier)>& f);

/// Checks that f gives the same bits on all tiers of this CPU that fuse a float32 product and its sum. All but the portable
/// one do so, and that one where every CPU of its kind can.
void same_on_fused_tiers(const std::string& what, const std::function<std::vector<float>()>& f);

/// Deterministic numbers, about normal.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2654435761u + 1) {}
  uint32_t bits() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 32);
  }
  int below(int n) { return static_cast<int>(bits() % static_cast<uint32_t>(n)); }
  float uniform() { return static_cast<float>(bits() >> 8) / 16777216.0f; }
  float normal() { return (uniform() + uniform() + uniform() + uniform() - 2.0f) * 1.73f; }
  std::vector<float> normals(size_t n, float scale = 1.0f) {
    std::vector<float> v(n);
    for (float& x : v) x = normal() * scale;
    return v;
  }

 private:
  uint64_t state_;
};

/// Values of a float type, with what they are exactly.
struct Floats {
  omlx::kernels::DType dtype;
  std::vector<uint8_t> bytes;
  std::vector<float> exact;
};
Floats make_floats(const std::vector<float>& values, omlx::kernels::DType dtype);

/// A weight with its storage and its exact values (N, K).
struct TestWeight {
  omlx::kernels::Weight w;
  std::vector<uint32_t> packed;
  Floats data, scales, biases;
  std::vector<double> exact;
};
TestWeight make_weight(Random& random, int N, int K, int bits, int group, omlx::kernels::DType dtype);

inline std::string text(const char* name, std::initializer_list<int> numbers) {
  std::string s = name;
  for (int n : numbers) s += " " + std::to_string(n);
  return s;
}

}  // namespace check
