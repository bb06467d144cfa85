// Norms, rotary positions and activations: division of rows among threads.
#include <algorithm>
#include <cmath>

#include "threads.h"
#include "tier.h"

namespace omlx::kernels {
namespace {

/// Calls f(begin, end) for ranges of [0, n); one range when the whole is less than `worth` work units.
template <class F>
void split(size_t n, size_t unit, size_t worth, F&& f) {
  const size_t range = std::max<size_t>(1, worth / std::max<size_t>(1, unit));
  const size_t count = (n + range - 1) / range;
  parallel(count, [&](int, size_t i) { f(i * range, std::min(n, (i + 1) * range)); });
}

constexpr size_t WORTH = 8192;  // elements per range, a microsecond or two

}  // namespace

void rms_norm(const float* x, int rows, int E, Vector w, float eps, float* out) {
  const Tier& tier = active_tier();
  split(size_t(rows), size_t(E), WORTH, [&](size_t begin, size_t end) {
    for (size_t r = begin; r < end; r++) tier.rms_norm(x + r * E, E, w, eps, out + r * E);
  });
}

void rope_table(const int* positions, int T, const float* inv_freq, int half, float scale, float* table) {
  split(size_t(T), size_t(half), 256, [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; t++) {
      for (int i = 0; i < half; i++) {
        const float theta = static_cast<float>(positions[t]) * inv_freq[i];
        float* pair = table + (t * half + i) * 2;
        pair[0] = static_cast<float>(std::cos(static_cast<double>(theta))) * scale;
        pair[1] = static_cast<float>(std::sin(static_cast<double>(theta))) * scale;
      }
    }
  });
}

void rope(const float* x, int T, int heads, int D, const float* table, int half, bool traditional,
          float* out) {
  const Tier& tier = active_tier();
  const size_t row = size_t(heads) * D;
  split(size_t(T), row, WORTH, [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; t++)
      tier.rope(x + t * row, heads, D, table + t * half * 2, half, traditional, out + t * row);
  });
}

void swiglu(const float* gate, const float* up, size_t n, float* out) {
  const Tier& tier = active_tier();
  split(n, 1, WORTH / 2, [&](size_t begin, size_t end) {
    tier.swiglu(gate + begin, up + begin, end - begin, out + begin);
  });
}

void exp(const float* x, size_t n, float* out) { active_tier().exp(x, n, out); }

}  // namespace omlx::kernels
