// Top candidates and log-sum-exp of logits rows.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "scratch.h"
#include "threads.h"
#include "tier.h"

namespace omlx::kernels {
namespace {

constexpr int BLOCK = 4096;  // logits per work item; also the unit of the sums

struct BlockPart {
  BlockStats stats;
  float sum[2];  // of exp((x - max)), of exp((x - max) * inverse temperature)
  int found;
};

/// Bits of x in an order that rises with x; zeros of both signs are one.
uint32_t ascending(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x + 0.0f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

}  // namespace

void candidates(const float* logits, int rows, int vocab, const float* inv_temperature, int k, RowStats* stats, int* ids,
                float* values) {
  const Tier& tier = active_tier();
  const int blocks = (vocab + BLOCK - 1) / BLOCK;
  const int top = std::min(k, vocab);
  // Maxima of disjoint buckets of logits. The top-th largest of them is a bound that at least `top`
  // logits reach; with a few times more buckets than candidates, few others do.
  const int stride = std::clamp(vocab / std::max(1, 4 * top), 1, BLOCK / 16);
  const int block_buckets = (BLOCK / 16 + stride - 1) / stride * 16;
  // Kept for the next call: fresh pages for a whole vocabulary cost as much as the rest.
  static thread_local Scratch bucket_space, found_space;
  const size_t bucket_count = size_t(rows) * blocks * block_buckets;
  float* const buckets = bucket_space.reserve(bucket_count);
  std::fill_n(buckets, bucket_count, -std::numeric_limits<float>::infinity());
  int* const found = reinterpret_cast<int*>(found_space.reserve(size_t(rows) * vocab));
  std::vector<BlockPart> parts(size_t(rows) * blocks);
  const auto block_of = [&](size_t i) {
    struct { int row, begin, n; } b{int(i / blocks), int(i % blocks) * BLOCK, 0};
    b.n = std::min(BLOCK, vocab - b.begin);
    return b;
  };

  parallel(parts.size(), [&](int, size_t i) {
    const auto b = block_of(i);
    parts[i].stats = tier.block_max(logits + size_t(b.row) * vocab + b.begin, b.n, stride,
                                    buckets + i * block_buckets);
  });

  constexpr float LOWEST = -std::numeric_limits<float>::infinity();
  std::vector<float> largest(rows, LOWEST);
  std::vector<char> usable(rows, 1);
  for (size_t i = 0; i < parts.size(); i++) {
    const size_t row = i / blocks;
    if (parts[i].stats.bad) usable[row] = 0;
    largest[row] = std::max(largest[row], parts[i].stats.max);
  }
  for (int r = 0; r < rows; r++)
    if (std::isinf(largest[r])) usable[r] = 0;

  std::vector<float> threshold(rows);
  const size_t row_buckets = size_t(blocks) * block_buckets;
  parallel(size_t(rows), [&](int, size_t r) {
    float* begin = buckets + r * row_buckets;
    threshold[r] = LOWEST;
    if (usable[r] && top > 0 && size_t(top) <= row_buckets) {
      std::nth_element(begin, begin + top - 1, begin + row_buckets, std::greater<>());
      threshold[r] = begin[top - 1];
    }
  });

  parallel(parts.size(), [&](int, size_t i) {
    const auto b = block_of(i);
    if (!usable[b.row]) return;
    const float* x = logits + size_t(b.row) * vocab + b.begin;
    parts[i].sum[0] = tier.sum_exp(x, b.n, largest[b.row], 1.0f);
    parts[i].sum[1] = inv_temperature[b.row] == 1.0f
                          ? parts[i].sum[0]
                          : tier.sum_exp(x, b.n, largest[b.row], inv_temperature[b.row]);
    parts[i].found = tier.filter(x, b.n, threshold[b.row], b.begin,
                                 found + size_t(b.row) * vocab + b.begin);
  });

  parallel(size_t(rows), [&](int, size_t r) {
    const float* x = logits + r * vocab;
    int* list = found + r * vocab;
    int count = 0;
    double sum[2] = {0, 0};
    for (int b = 0; usable[r] && b < blocks; b++) {
      const BlockPart& part = parts[r * blocks + b];
      sum[0] += part.sum[0];
      sum[1] += part.sum[1];
      std::copy_n(list + b * BLOCK, part.found, list + count);
      count += part.found;
    }
    constexpr float NONE = std::numeric_limits<float>::quiet_NaN();
    if (usable[r])
      stats[r] = {largest[r], static_cast<float>(largest[r] + std::log(sum[0])),
                  static_cast<float>(double(largest[r]) * inv_temperature[r] + std::log(sum[1]))};
    else stats[r] = {NONE, NONE, NONE};

    // As one number that falls with the logit and then rises with the id.
    std::vector<uint64_t> keys(size_t(count), 0);
    for (int i = 0; i < count; i++) keys[size_t(i)] = uint64_t(~ascending(x[list[i]])) << 32 | uint32_t(list[i]);
    const int known = std::min(top, count);
    if (known < count) std::nth_element(keys.begin(), keys.begin() + known, keys.end());
    std::sort(keys.begin(), keys.begin() + known);
    for (int i = 0; i < k; i++) {
      ids[r * k + i] = i < known ? int(uint32_t(keys[size_t(i)])) : -1;
      values[r * k + i] = i < known ? x[ids[r * k + i]] : LOWEST;
    }
  });
}

}  // namespace omlx::kernels
