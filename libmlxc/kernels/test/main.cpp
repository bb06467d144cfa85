// Runs every test and prints "N passed, N failed". An argument runs only the tests whose name has it.
#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "../threads.h"
#include "check.h"

namespace check {
namespace {

std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}
int failures = 0;

using omlx::kernels::DType;

uint16_t to_bf16(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  return static_cast<uint16_t>((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

float from_f16_bits(uint16_t h) {
  const int exponent = h >> 10 & 31, mantissa = h & 1023;
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return static_cast<float>(h & 0x8000 ? -magnitude : magnitude);
}

/// Nearest float16 of |f| < 65504, by its definition.
uint16_t to_f16(float f) {
  const double a = std::fabs(static_cast<double>(f));
  int exponent = 0;
  std::frexp(a, &exponent);
  const int unit = std::max(exponent - 11, -24);  // value of the last mantissa bit is 2^unit
  const long steps = std::lrint(std::ldexp(a, -unit));
  // steps <= 2048; a carry into the exponent adds up by itself
  const int base = unit == -24 ? 0 : (unit + 24) << 10;
  return static_cast<uint16_t>((base + steps) | (std::signbit(f) ? 0x8000 : 0));
}

}  // namespace

Register::Register(const char* name, std::function<void()> body) { tests().push_back({name, std::move(body)}); }

void fail(const std::string& text) {
  if (failures++ < 5) std::printf("    %s\n", text.c_str());
}

void same(const std::vector<float>& a, const std::vector<float>& b, const std::string& what) {
  if (a.size() != b.size()) return fail(what + ": different sizes");
  for (size_t i = 0; i < a.size(); i++) {
    if (std::memcmp(&a[i], &b[i], 4) != 0) {
      char line[128];
      std::snprintf(line, sizeof line, ": element %zu is %.9g and %.9g", i, a[i], b[i]);
      return fail(what + line);
    }
  }
}

void close(const std::vector<float>& got, const std::vector<double>& want, double tolerance, const std::string& what) {
  if (got.size() != want.size()) return fail(what + ": different sizes");
  double largest = 1e-30;
  for (double w : want) largest = std::max(largest, std::fabs(w));
  for (size_t i = 0; i < got.size(); i++) {
    if (!(std::fabs(got[i] - want[i]) <= tolerance * largest)) {
      char line[128];
      std::snprintf(line, sizeof line, ": element %zu is %.9g, expected %.9g", i, got[i], want[i]);
      return fail(what + line);
    }
  }
}

void each_tier(const std::function<void(const std::string&)>& f) {
  const std::string before = omlx::kernels::tier();
  if (const char* forced = std::getenv("OMLX_CPU_TIER"); forced && *forced) return f(before);
  for (const char* name : omlx::kernels::tiers())
    if (omlx::kernels::set_tier(name)) f(name);
  omlx::kernels::set_tier(before);
}

void same_on_fused_tiers(const std::string& what, const std::function<std::vector<float>()>& f) {
#ifdef __FP_FAST_FMAF
  constexpr bool portable_fuses = true;
#else
  constexpr bool portable_fuses = false;
#endif
  std::vector<float> first;
  std::string first_tier;
  each_tier([&](const std::string& tier) {
    if (tier == "portable" && !portable_fuses) return;
    std::vector<float> here = f();
    if (first_tier.empty()) {
      first = std::move(here);
      first_tier = tier;
    } else {
      same(here, first, what + ": " + tier + " and " + first_tier);
    }
  });
}

Floats make_floats(const std::vector<float>& values, DType dtype) {
  Floats out{dtype, std::vector<uint8_t>(values.size() * omlx::kernels::size_of(dtype)), values};
  for (size_t i = 0; i < values.size(); i++) {
    if (dtype == DType::f32) {
      std::memcpy(out.bytes.data() + 4 * i, &values[i], 4);
      continue;
    }
    const uint16_t h = dtype == DType::f16 ? to_f16(values[i]) : to_bf16(values[i]);
    std::memcpy(out.bytes.data() + 2 * i, &h, 2);
    if (dtype == DType::f16) {
      out.exact[i] = from_f16_bits(h);
    } else {
      const uint32_t u = static_cast<uint32_t>(h) << 16;
      std::memcpy(&out.exact[i], &u, 4);
    }
  }
  return out;
}

TestWeight make_weight(Random& random, int N, int K, int bits, int group, DType dtype) {
  TestWeight t;
  const size_t size = static_cast<size_t>(N) * static_cast<size_t>(K);
  t.w.rows = N;
  t.w.cols = K;
  t.w.bits = bits;
  t.w.group = group;
  t.w.dtype = dtype;
  t.exact.resize(size);
  if (bits == 0) {
    t.data = make_floats(random.normals(size, 0.1f), dtype);
    for (size_t i = 0; i < size; i++) t.exact[i] = t.data.exact[i];
    t.w.data = t.data.bytes.data();
    return t;
  }
  const size_t groups = size / static_cast<size_t>(group);
  t.scales = make_floats(random.normals(groups, 0.01f), dtype);
  t.biases = make_floats(random.normals(groups, 0.1f), dtype);
  t.packed.assign(size * static_cast<size_t>(bits) / 32, 0);
  // The layout by its definition: weight i of the matrix is bits [i*bits, (i+1)*bits) of a little-endian stream.
  for (size_t i = 0; i < size; i++) {
    const uint32_t q = random.bits() >> (32 - bits);
    for (int b = 0; b < bits; b++) {
      const size_t at = i * static_cast<size_t>(bits) + static_cast<size_t>(b);
      t.packed[at / 32] |= (q >> b & 1) << at % 32;
    }
    const size_t g = i / static_cast<size_t>(group);
    t.exact[i] = static_cast<double>(q) * t.scales.exact[g] + t.biases.exact[g];
  }
  t.w.data = t.packed.data();
  t.w.scales = t.scales.bytes.data();
  t.w.biases = t.biases.bytes.data();
  return t;
}

}  // namespace check

int main(int argc, char** argv) {
  int passed = 0, failed = 0;
  std::printf("tier %s, %d threads\n", omlx::kernels::tier().c_str(), omlx::kernels::num_threads());
  for (const auto& test : check::tests()) {
    if (argc > 1 && std::string(test.name).find(argv[1]) == std::string::npos) continue;
    check::failures = 0;
    const auto start = std::chrono::steady_clock::now();
    test.body();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    (check::failures ? failed : passed)++;
    std::printf("%s  %s (%.2f s)\n", check::failures ? "FAIL" : "  ok", test.name, seconds);
    std::fflush(stdout);
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed || passed == 0 ? 1 : 0;
}
