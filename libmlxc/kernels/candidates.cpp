// Top candidates and log-sum-exp of logits rows.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "threads.h"
#include "tier.h"

namespace omlx::kernels {
namespace {

constexpr int BLOCK = 4096;  // logits per work item; also the unit of the sums

struct Part {
  BlockStats stats;
  float sum[2];  // of exp((x - max)), of exp((x - max) * inverse temperature)
  int found;
};

}  // namespace

int candidates(const float* logits, int rows, int vocab, const float* inv_temperature, int k,
               float* max_lse, int* ids, float* values) {
  const Tier& tier = active_tier();
  const int blocks = (vocab + BLOCK - 1) / BLOCK;
  const int top = std::min(k, vocab);
  // Maxima of disjoint buckets of logits. The top-th largest of them is a bound that at least `top`
  // logits reach; with a few times more buckets than candidates, few others do.
  const int stride = std::clamp(vocab / std::max(1, 4 * top), 1, BLOCK / 16);
  const int block_buckets = (BLOCK / 16 + stride - 1) / stride * 16;
  std::vector<float> buckets(size_t(rows) * blocks * block_buckets,
                             -std::numeric_limits<float>::infinity());
  std::vector<Part> parts(size_t(rows) * blocks);
  const auto block_of = [&](size_t i) {
    struct { int row, begin, n; } b{int(i / blocks), int(i % blocks) * BLOCK, 0};
    b.n = std::min(BLOCK, vocab - b.begin);
    return b;
  };

  parallel(parts.size(), [&](int, size_t i) {
    const auto b = block_of(i);
    parts[i].stats = tier.block_max(logits + size_t(b.row) * vocab + b.begin, b.n, stride,
                                    buckets.data() + i * block_buckets);
  });

  std::vector<float> largest(rows, -std::numeric_limits<float>::infinity());
  for (size_t i = 0; i < parts.size(); i++) {
    const int row = int(i / blocks);
    if (parts[i].stats.bad) return 1 + row;
    largest[row] = std::max(largest[row], parts[i].stats.max);
  }
  for (int r = 0; r < rows; r++)
    if (std::isinf(largest[r])) return 1 + r;

  std::vector<float> threshold(rows);
  const size_t row_buckets = size_t(blocks) * block_buckets;
  parallel(size_t(rows), [&](int, size_t r) {
    float* begin = buckets.data() + r * row_buckets;
    threshold[r] = -std::numeric_limits<float>::infinity();
    if (top > 0 && size_t(top) <= row_buckets) {
      std::nth_element(begin, begin + top - 1, begin + row_buckets, std::greater<>());
      threshold[r] = begin[top - 1];
    }
  });

  std::vector<int> found(size_t(rows) * vocab);
  parallel(parts.size(), [&](int, size_t i) {
    const auto b = block_of(i);
    const float* x = logits + size_t(b.row) * vocab + b.begin;
    parts[i].sum[0] = tier.sum_exp(x, b.n, largest[b.row], 1.0f);
    parts[i].sum[1] = inv_temperature[b.row] == 1.0f
                          ? parts[i].sum[0]
                          : tier.sum_exp(x, b.n, largest[b.row], inv_temperature[b.row]);
    parts[i].found = tier.filter(x, b.n, threshold[b.row], b.begin,
                                 found.data() + size_t(b.row) * vocab + b.begin);
  });

  parallel(size_t(rows), [&](int, size_t r) {
    const float* x = logits + r * vocab;
    int* list = found.data() + r * vocab;
    int count = 0;
    double sum[2] = {0, 0};
    for (int b = 0; b < blocks; b++) {
      const Part& part = parts[r * blocks + b];
      sum[0] += part.sum[0];
      sum[1] += part.sum[1];
      std::copy_n(list + b * BLOCK, part.found, list + count);
      count += part.found;
    }
    float* out = max_lse + r * 3;
    out[0] = largest[r];
    out[1] = static_cast<float>(largest[r] + std::log(sum[0]));
    out[2] = static_cast<float>(double(largest[r]) * inv_temperature[r] + std::log(sum[1]));

    const auto before = [x](int a, int b) { return x[a] != x[b] ? x[a] > x[b] : a < b; };
    std::partial_sort(list, list + std::min(top, count), list + count, before);
    for (int i = 0; i < k; i++) {
      ids[r * k + i] = i < top ? list[i] : -1;
      values[r * k + i] = i < top ? x[list[i]] : -std::numeric_limits<float>::infinity();
    }
  });
  return 0;
}

}  // namespace omlx::kernels
