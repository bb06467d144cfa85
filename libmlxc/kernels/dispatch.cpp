// Chooses the tier once, by what the CPU can do or what OMLX_CPU_TIER asks for.
#include <atomic>
#include <cstdlib>
#include <stdexcept>

#include "tier.h"

#ifdef OMLX_X86_TIERS
#include <cpuid.h>
#endif

namespace omlx::kernels {

extern const Tier portable_tier;
#ifdef OMLX_X86_TIERS
extern const Tier avx2_tier;
extern const Tier avx2vnni_tier;
extern const Tier avx512_tier;
extern const Tier avx512vnni_tier;
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
#endif

constexpr const char* NAMES[] = {
#ifdef OMLX_X86_TIERS
    "avx512vnni", "avx512", "avx2vnni", "avx2",
#endif
    "portable",
};

const Tier* find(const std::string& name) {
#ifdef OMLX_X86_TIERS
  if (name == "avx512vnni") return has_avx512() && __builtin_cpu_supports("avx512vnni") ? &avx512vnni_tier : nullptr;
  if (name == "avx512") return has_avx512() ? &avx512_tier : nullptr;
  if (name == "avx2vnni") return has_avx2() && has_avx_vnni() ? &avx2vnni_tier : nullptr;
  if (name == "avx2") return has_avx2() ? &avx2_tier : nullptr;
#endif
  return name == "portable" ? &portable_tier : nullptr;
}

const Tier* choose() {
  if (const char* wanted = std::getenv("OMLX_CPU_TIER"); wanted && *wanted) {
    if (const Tier* tier = find(wanted)) return tier;
    std::string known;
    for (const char* name : NAMES) known += (known.empty() ? "" : ", ") + std::string(name);
    throw std::runtime_error(std::string("OMLX_CPU_TIER=") + wanted +
                             ": this build or this CPU has no such tier (" + known + ")");
  }
  for (const char* name : NAMES) {
    if (const Tier* tier = find(name)) return tier;
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

bool set_tier(const std::string& name) {
  const Tier* tier = find(name);
  if (tier) current.store(tier, std::memory_order_release);
  return tier != nullptr;
}

}  // namespace omlx::kernels
