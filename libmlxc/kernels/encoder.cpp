// Encoders: layer norm, activations and attention in both directions, divided among threads.
#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "scratch.h"
#include "threads.h"
#include "tier.h"

namespace omlx::kernels {
namespace {

constexpr size_t WORTH = 8192;  // elements per range, a microsecond or two
constexpr int MAX_QUERIES = EncodeTile::MAX_QUERIES;

/// Queries [row, row + rows) of one head of a span.
struct Item {
  int span, head, row, rows;
};

}  // namespace

void layer_norm(const float* x, const float* residual, int rows, int E, Vector w, Vector b, float eps, float* out) {
  const Tier& tier = active_tier();
  const size_t range = std::max<size_t>(1, WORTH / size_t(E));
  parallel((size_t(rows) + range - 1) / range, [&](int, size_t i) {
    const size_t end = std::min(size_t(rows), (i + 1) * range);
    for (size_t r = i * range; r < end; r++)
      tier.layer_norm(x + r * E, residual ? residual + r * E : nullptr, E, w, b, eps, out + r * E);
  });
}

void activate(Activation kind, const float* x, const float* up, size_t n, float* out) {
  const Tier& tier = active_tier();
  parallel((n + WORTH - 1) / WORTH, [&](int, size_t i) {
    const size_t at = i * WORTH;
    tier.activate(kind, x + at, up ? up + at : nullptr, std::min(WORTH, n - at), out + at);
  });
}

void validate(std::span<const TextSpan> spans, int T, int S) {
  for (size_t i = 0; i < spans.size(); i++) {
    const TextSpan& s = spans[i];
    const bool rows_fit = s.first_row >= 0 && s.rows >= 1 && s.rows <= T - s.first_row;
    const bool keys_fit = s.first_key >= 0 && s.keys >= 1 && s.keys <= S - s.first_key;
    if (!rows_fit || !keys_fit || s.offset < 0 || s.offset > s.keys - s.rows)
      throw std::invalid_argument("span " + std::to_string(i) + " does not fit " + std::to_string(T) +
                                  " rows and " + std::to_string(S) + " keys");
  }
}

void encode(const float* q, int T, const float* k, const float* v, int S, int heads, int kv_heads, int D,
            std::span<const TextSpan> spans, int before, int after, float scale, float* out) {
  static thread_local Scratch packed, scratch;
  const Tier& tier = active_tier();
  const int padded = (D + 15) / 16 * 16;
  const size_t q_stride = size_t(heads) * D, k_stride = size_t(kv_heads) * D;
  const int group = heads / kv_heads;
  validate(spans, T, S);

  int64_t covered = 0;
  for (const TextSpan& span : spans) covered += span.rows;
  if (covered < T) std::memset(out, 0, size_t(T) * q_stride * sizeof(float));

  // Every text's keys and values of every head, one after the other, in whole groups of 16 keys.
  const size_t key_floats = size_t(D) + size_t(padded);
  std::vector<size_t> starts;  // in keys
  std::vector<std::pair<int, int>> groups;  // span, first key
  size_t total = 0;
  for (size_t s = 0; s < spans.size(); s++) {
    starts.push_back(total);
    for (int key = 0; key < spans[s].keys; key += 16) groups.emplace_back(int(s), key);
    total += size_t(spans[s].keys + 15) / 16 * 16;
  }
  float* const base = packed.reserve(total * key_floats * size_t(kv_heads));
  const auto keys_of = [&](int span, int head) {
    const size_t length = size_t(spans[size_t(span)].keys + 15) / 16 * 16;
    return base + key_floats * (starts[size_t(span)] * size_t(kv_heads) + length * size_t(head));
  };
  const auto values_of = [&](int span, int head) {
    const size_t length = size_t(spans[size_t(span)].keys + 15) / 16 * 16;
    return keys_of(span, head) + length * size_t(D);
  };
  parallel(groups.size(), [&](int, size_t i) {
    const auto [s, key] = groups[i];
    const TextSpan& span = spans[size_t(s)];
    const int count = std::min(16, span.keys - key);
    const size_t row = size_t(span.first_key + key);
    for (int h = 0; h < kv_heads; h++) {
      tier.encode_keys(k + row * k_stride + size_t(h) * D, k_stride, count, D, keys_of(s, h) + size_t(key) * D);
      float* to = values_of(s, h) + size_t(key) * padded;
      for (int j = 0; j < 16; j++, to += padded) {
        const int filled = j < count ? D : 0;
        if (filled) std::memcpy(to, v + (row + size_t(j)) * k_stride + size_t(h) * D, size_t(D) * sizeof(float));
        std::memset(to + filled, 0, size_t(padded - filled) * sizeof(float));
      }
    }
  });

  // Tiles of one head: neighbours share keys. The long texts first, so that the threads end together.
  std::vector<Item> items;
  for (size_t s = 0; s < spans.size(); s++)
    for (int h = 0; h < heads; h++)
      for (int row = 0; row < spans[s].rows; row += MAX_QUERIES)
        items.push_back({int(s), h, row, std::min(MAX_QUERIES, spans[s].rows - row)});
  std::stable_sort(items.begin(), items.end(), [&](const Item& a, const Item& b) {
    return spans[size_t(a.span)].keys > spans[size_t(b.span)].keys;
  });
  const size_t thread_floats = EncodeTile::scratch_floats(padded);
  float* const own = scratch.reserve(thread_floats * size_t(num_threads()));
  parallel(items.size(), [&](int thread, size_t i) {
    const Item& item = items[i];
    const TextSpan& span = spans[size_t(item.span)];
    EncodeTile tile;
    tile.keys = keys_of(item.span, item.head / group);
    tile.values = values_of(item.span, item.head / group);
    tile.head_dim = D;
    tile.padded_dim = padded;
    tile.scale = scale;
    tile.count = item.rows;
    for (int r = 0; r < item.rows; r++) {
      const int position = span.offset + item.row + r;
      const size_t at = size_t(span.first_row + item.row + r) * q_stride + size_t(item.head) * D;
      tile.query[r] = q + at;
      tile.out[r] = out + at;
      tile.first[r] = before < 0 ? 0 : std::max(0, position - before);
      tile.last[r] = after < 0 ? span.keys : int(std::min<int64_t>(span.keys, int64_t(position) + after + 1));
    }
    tier.encode(tile, own + thread_floats * size_t(thread));
  });
}

}  // namespace omlx::kernels
