// Chooses the tier once, by what the CPU can do or what OMLX_CPU_TIER asks for.
#include <atomic>
#include <cstdlib>
#include <stdexcept>

#include "tier.h"

namespace omlx::kernels {

extern const Tier portable_tier;
#ifdef OMLX_X86_TIERS
extern const Tier avx2_tier;
extern const Tier avx512_tier;
#endif

namespace {

const Tier* find(const std::string& name) {
#ifdef OMLX_X86_TIERS
  if (name == "avx512") {
    const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                     __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    return has ? &avx512_tier : nullptr;
  }
  if (name == "avx2") {
    const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                     __builtin_cpu_supports("f16c");
    return has ? &avx2_tier : nullptr;
  }
#endif
  return name == "portable" ? &portable_tier : nullptr;
}

const Tier* choose() {
  if (const char* wanted = std::getenv("OMLX_CPU_TIER"); wanted && *wanted) {
    if (const Tier* tier = find(wanted)) return tier;
    throw std::runtime_error(std::string("OMLX_CPU_TIER=") + wanted +
                             ": this build or this CPU has no such tier (avx512, avx2, portable)");
  }
  for (const char* name : {"avx512", "avx2"}) {
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

std::string tier() { return active_tier().name; }

bool set_tier(const std::string& name) {
  const Tier* tier = find(name);
  if (tier) current.store(tier, std::memory_order_release);
  return tier != nullptr;
}

}  // namespace omlx::kernels
