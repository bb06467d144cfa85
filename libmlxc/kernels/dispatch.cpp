// Chooses the tier once, by what the CPU can do or what OMLX_CPU_TIER asks for.
#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <vector>

#include "tier.h"

#ifdef OMLX_X86_TIERS
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif
#ifdef OMLX_ARM_TIERS
#ifdef __APPLE__
#include <sys/sysctl.h>
#else
#include <sys/auxv.h>
#endif
#endif

namespace omlx::kernels {

extern const Tier portable_tier;
#ifdef OMLX_X86_TIERS
extern const Tier avx2_tier;
extern const Tier avx2vnni_tier;
extern const Tier avx512_tier;
extern const Tier avx512vnni_tier;
extern const Tier amx_tier;
#ifdef OMLX_TEST_TIERS
extern const Tier avx2vnni_evex_tier;
extern const Tier amx_emulated_tier;
#endif
#endif
#ifdef OMLX_ARM_TIERS
extern const Tier neon_tier;
extern const Tier neon_i8mm_tier;
#endif

namespace {

#ifdef OMLX_X86_TIERS
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

/// AVX-VNNI: leaf 7, subleaf 1, EAX bit 4. That AVX itself may be used, has_avx2() knows.
bool has_avx_vnni() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & 16);
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

bool has_avx512_vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }

/// AMX-TILE and AMX-INT8: leaf 7, EDX bits 24 and 25. Linux gives a process the tiles when it asks for them.
bool has_amx() {
#ifdef __linux__
  constexpr unsigned BITS = 3u << 24;
  constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return has_avx512_vnni() && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx & BITS) == BITS &&
         syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
  return false;
#endif
}
#endif

#ifdef OMLX_ARM_TIERS
#ifdef __APPLE__
bool has(const char* feature) {
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(feature, &value, &size, nullptr, 0) == 0 && value != 0;
}
bool has_dotprod() { return has("hw.optional.arm.FEAT_DotProd"); }
bool has_i8mm() { return has_dotprod() && has("hw.optional.arm.FEAT_I8MM"); }
#else
// Bits of the kernel's interface; older headers do not name the second.
bool has_dotprod() { return getauxval(AT_HWCAP) & 1ul << 20; }
bool has_i8mm() { return has_dotprod() && (getauxval(AT_HWCAP2) & 1ul << 13); }
#endif
#endif

constexpr const char* NAMES[] = {
#ifdef OMLX_X86_TIERS
    "amx", "avx512vnni", "avx512", "avx2vnni", "avx2",
#endif
#ifdef OMLX_ARM_TIERS
    "neon-i8mm", "neon",
#endif
    "portable",
#ifdef OMLX_TEST_TIERS
    // Last, so that they are never chosen: the same code where the CPU lacks its instructions.
    "amx-emulated", "avx2vnni-evex",
#endif
};

const Tier* find(const std::string& name) {
#ifdef OMLX_X86_TIERS
  if (name == "amx") return has_amx() ? &amx_tier : nullptr;
  if (name == "avx512vnni") return has_avx512_vnni() ? &avx512vnni_tier : nullptr;
  if (name == "avx512") return has_avx512() ? &avx512_tier : nullptr;
  if (name == "avx2vnni") return has_avx2() && has_avx_vnni() ? &avx2vnni_tier : nullptr;
  if (name == "avx2") return has_avx2() ? &avx2_tier : nullptr;
#endif
#ifdef OMLX_TEST_TIERS
  if (name == "amx-emulated") return has_avx512_vnni() ? &amx_emulated_tier : nullptr;
  if (name == "avx2vnni-evex") return has_avx512_vnni() ? &avx2vnni_evex_tier : nullptr;
#endif
#ifdef OMLX_ARM_TIERS
  if (name == "neon-i8mm") return has_i8mm() ? &neon_i8mm_tier : nullptr;
  if (name == "neon") return has_dotprod() ? &neon_tier : nullptr;
#endif
  return name == "portable" ? &portable_tier : nullptr;
}

#ifdef OMLX_X86_TIERS
/// Whether the integer GEMMs of two tiers give the same bits, on a small product of their own.
bool agree(const Tier& a, const Tier& b) {
  constexpr int M = 19, N = 32, K = 128, GROUP = 64;
  std::vector<uint32_t> data(N * K / 8);
  std::vector<float> scales(N * K / GROUP), biases(scales.size()), x(M * K);
  uint32_t noise = 1;
  const auto next = [&noise] { return noise = noise * 1664525u + 1013904223u; };
  const auto fraction = [&next] { return static_cast<float>(next() >> 8) / 0x1p23f - 1.0f; };
  for (uint32_t& word : data) word = next();
  for (float& v : scales) v = fraction();
  for (float& v : biases) v = fraction();
  for (float& v : x) v = fraction();
  Weight w{data.data(), scales.data(), biases.data(), DType::f32, 4, GROUP, N, K};
  const PackedWeight packed(w);
  w.packed = packed.data();
  const auto product = [&](const Planes& planes) {
    const size_t stride = (planes.row_bytes(K) + 63) / 64 * 64;
    std::vector<int8_t> steps(stride * M);
    std::vector<float> d(M * K / GROUP), sums(d.size()), out(M * N);
    std::vector<uint8_t> scratch(integer_scratch(w) + 64);
    for (int m = 0; m < M; m++)
      planes.quantize(x.data() + m * K, K, GROUP, steps.data() + stride * size_t(m), d.data() + m * K / GROUP, sums.data() + m * K / GROUP);
    const IntegerJob job{steps.data(), stride, d.data(), sums.data(), M, &w, {}, nullptr, out.data(), 0};
    planes.gemm(job, 0, M, 0, N, scratch.data());
    return out;
  };
  return product(a.int16) == product(b.int16) && product(a.int8) == product(b.int8);
}
#endif

const Tier* choose() {
  if (const char* wanted = std::getenv("OMLX_CPU_TIER"); wanted && *wanted) {
    if (const Tier* tier = find(wanted)) return tier;
    std::string known;
    for (const char* name : NAMES) known += (known.empty() ? "" : ", ") + std::string(name);
    throw std::runtime_error(std::string("OMLX_CPU_TIER=") + wanted +
                             ": this build or this CPU has no such tier (" + known + ")");
  }
  for (const char* name : NAMES) {
    const Tier* tier = find(name);
#ifdef OMLX_X86_TIERS
    // No test has run on the CPU's own tiles: they are taken once they have shown that they do what the rest does.
    if (tier == &amx_tier && !agree(*tier, avx512vnni_tier)) continue;
#endif
    if (tier) return tier;
  }
  return &portable_tier;
}

std::atomic<const Tier*> current{nullptr};

}  // namespace

const Tier& active_tier() {
  const Tier* tier = current.load(std::memory_order_acquire);
  if (!tier) {
    tier = choose();
    current.store(tier, std::memory_order_release);
  }
  return *tier;
}

std::span<const char* const> tiers() { return NAMES; }

std::string tier() { return active_tier().name; }

#ifdef OMLX_TEST_TIERS
bool tiers_agree(const std::string& a, const std::string& b) {
  const Tier *first = find(a), *second = find(b);
  return !first || !second || agree(*first, *second);
}
#endif

bool set_tier(const std::string& name) {
  const Tier* tier = find(name);
  if (tier) current.store(tier, std::memory_order_release);
  return tier != nullptr;
}

}  // namespace omlx::kernels
