// The key/value pool, and attention divided into tiles of queries and, for few queries, chunks of keys.
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <vector>

#include "scratch.h"
#include "threads.h"
#include "tier.h"

namespace omlx::kernels {

namespace {

constexpr size_t LINE = 64;

size_t rounded(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }
size_t positive(int n) { return size_t(std::max(0, n)); }

}  // namespace

KvPool::KvPool(int layers_, int num_blocks_, int block_tokens_, int kv_heads_, int head_dim_)
    : layers(layers_),
      num_blocks(num_blocks_),
      block_tokens(block_tokens_),
      kv_heads(kv_heads_),
      head_dim(head_dim_),
      padded_dim((head_dim_ + 15) / 16 * 16),
      key_pairs((head_dim_ + 1) / 2),
      value_offset_(positive(block_tokens_) * positive(key_pairs) * 4),
      scale_offset_(value_offset_ + positive(block_tokens_) * positive(padded_dim) * 2),
      head_bytes_(rounded(scale_offset_ + positive(block_tokens_) * 8, LINE)),
      block_bytes_(positive(layers_) * positive(kv_heads_) * head_bytes_) {
  if (layers < 1 || num_blocks < 1 || kv_heads < 1 || head_dim < 1)
    throw std::invalid_argument("a key/value pool needs layers, blocks, heads and a head size");
  if (head_dim > MAX_HEAD_DIM)
    throw std::invalid_argument("heads of " + std::to_string(head_dim) + " elements are too large, at most " + std::to_string(MAX_HEAD_DIM));
  if (block_tokens < 16 || block_tokens % 16 != 0)
    throw std::invalid_argument("block_tokens must be a multiple of 16, got " + std::to_string(block_tokens));
  // In double first: the product of five integers can exceed 64 bits.
  const double wanted = 2.0 * layers * kv_heads * block_tokens * (2.0 * key_pairs + padded_dim + 4) * num_blocks;
  if (wanted > 0x1p47) throw std::bad_alloc();
  bytes_ = block_bytes_ * size_t(num_blocks);
#ifdef MAP_NORESERVE
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
#else
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
#endif
  void* base = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (base == MAP_FAILED) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
  madvise(base, bytes_, MADV_HUGEPAGE);  // a wish: small pages work as well
#endif
  base_ = static_cast<char*>(base);
}

KvPool::~KvPool() { munmap(base_, bytes_); }

void validate(std::span<const Span> spans, std::span<const int> blocks, int T, const KvPool& pool) {
  const auto fail = [](const std::string& text) { throw std::invalid_argument(text); };
  for (size_t i = 0; i < spans.size(); i++) {
    const Span& s = spans[i];
    const std::string name = "span " + std::to_string(i);
    if (s.first_row < 0 || s.rows < 1 || s.rows > T - s.first_row || s.offset < 0)
      fail(name + " does not fit a batch of " + std::to_string(T) + " rows");
    const int64_t tokens = int64_t(s.offset) + s.rows;
    const int64_t needed = (tokens + pool.block_tokens - 1) / pool.block_tokens;
    if (s.first_block < 0 || s.first_block + needed > int64_t(blocks.size()))
      fail(name + " needs " + std::to_string(needed) + " blocks, its table is shorter");
    for (int64_t b = 0; b < needed; b++) {
      const int id = blocks[size_t(s.first_block + b)];
      if (id < 0 || id >= pool.num_blocks)
        fail(name + " names block " + std::to_string(id) + " of a pool of " +
             std::to_string(pool.num_blocks));
    }
  }
}

namespace {

constexpr int CHUNK = AttentionTile::CHUNK;
constexpr int MAX_QUERIES = AttentionTile::MAX_QUERIES;

/// Queries of rows [row, row + rows) of a span, heads [head, head + heads) of one key/value head.
struct Tile {
  const Span* span;
  int kv_head, head, heads;
  int row, rows;
  int chunks;        // chunks that the last row sees
  int64_t part;      // first partial result when split over chunks, else -1
};

struct Item {
  int tile;
  int chunk;  // -1: all chunks of the tile
};

/// Integers and scales of all query rows: (T, heads, 2 · key_pairs) and (T, heads).
struct Queries {
  size_t stride;  // of one head, 16-bit integers
  int16_t* data;
  float* scales;
};

struct Call {
  Queries q;
  int heads;
  const KvPool* pool;
  int layer;
  const int* blocks;
  float* out;

  AttentionTile describe(const Tile& t) const {
    AttentionTile a;
    a.pool = pool;
    a.layer = layer;
    a.kv_head = t.kv_head;
    a.blocks = blocks + t.span->first_block;
    a.count = 0;
    for (int r = t.row; r < t.row + t.rows; r++) {
      for (int h = t.head; h < t.head + t.heads; h++) {
        const size_t at = size_t(t.span->first_row + r) * heads + h;
        a.query[a.count] = q.data + at * q.stride;
        a.query_scale[a.count] = q.scales[at];
        a.limit[a.count++] = t.span->offset + r + 1;
      }
    }
    return a;
  }

  void write(const Tier& tier, const Tile& t, const AttentionState& state) const {
    int i = 0;
    for (int r = t.row; r < t.row + t.rows; r++) {
      for (int h = t.head; h < t.head + t.heads; h++, i++) {
        tier.finish(state.acc + size_t(i) * pool->padded_dim, state.sum[i], pool->head_dim,
                    out + (size_t(t.span->first_row + r) * heads + h) * pool->head_dim);
      }
    }
  }
};

void clear(AttentionState& state) {
  std::fill(std::begin(state.max), std::end(state.max), -__builtin_inff());
  std::fill(std::begin(state.sum), std::end(state.sum), 0.0f);
}

/// Norm, rotary embedding, integers: what becomes of one row before it is stored or compared.
class RowWriter {
 public:
  RowWriter(const RowPreparation& prepare, KvPool& pool, int layer, int heads, float scale, Queries q)
      : tier_(active_tier()), prepare_(prepare), pool_(pool), layer_(layer), heads_(heads), scale_(scale), q_(q) {}

  /// One key/value head of row r of a span, and the queries that belong to it; the pointers are those of the batch's first row.
  void write(const Span& span, int r, int kv_head, const int* blocks, const float* q, const float* k, const float* v) const {
    const int D = pool_.head_dim, P = pool_.block_tokens, group = heads_ / pool_.kv_heads;
    const size_t row = size_t(span.first_row + r);
    const int position = span.offset + r;
    const int block = blocks[span.first_block + position / P], in_block = position % P;
    const int limit = AttentionTile::query_limit(D);
    alignas(64) int16_t integers[MAX_HEAD_DIM];
    for (int h = kv_head * group; h < (kv_head + 1) * group; h++) {
      const size_t at = row * size_t(heads_) + size_t(h);
      const float s = tier_.quantize(prepared(q + at * D, row, prepare_.q_norm), D, limit, integers);
      std::memcpy(q_.data + at * q_.stride, integers, q_.stride * sizeof(int16_t));
      q_.scales[at] = s * scale_;
    }
    const size_t at = row * size_t(pool_.kv_heads) + size_t(kv_head);
    pool_.key_scales(block, layer_, kv_head)[in_block] =
        tier_.quantize(prepared(k + at * D, row, prepare_.k_norm), D, KvPool::LIMIT, integers);
    char* key = reinterpret_cast<char*>(pool_.keys(block, layer_, kv_head)) +
                (size_t(in_block / 16) * pool_.key_pairs * 16 + in_block % 16) * 4;
    for (int i = 0; i < pool_.key_pairs; i++) std::memcpy(key + size_t(i) * LINE, integers + 2 * i, 4);
    pool_.value_scales(block, layer_, kv_head)[in_block] = tier_.quantize(v + at * D, D, KvPool::LIMIT, integers);
    int16_t* value = pool_.values(block, layer_, kv_head) + size_t(in_block / 2) * pool_.padded_dim * 2 + in_block % 2;
    for (int i = 0; i < pool_.padded_dim; i++) value[2 * i] = integers[i];
  }

 private:
  const float* prepared(const float* x, size_t row, Vector norm) const {
    static thread_local float normed[MAX_HEAD_DIM], rotated[MAX_HEAD_DIM];
    const int D = pool_.head_dim;
    if (norm.data) {
      tier_.rms_norm(x, D, norm, prepare_.eps, normed);
      x = normed;
    }
    if (!prepare_.table) return x;
    tier_.rope(x, 1, D, prepare_.table + row * size_t(prepare_.half) * 2, prepare_.half, prepare_.traditional, rotated);
    return rotated;
  }

  const Tier& tier_;
  const RowPreparation& prepare_;
  KvPool& pool_;
  int layer_, heads_;
  float scale_;
  Queries q_;
};

std::vector<Tile> make_tiles(std::span<const Span> spans, int heads, int kv_heads) {
  std::vector<Tile> tiles;
  const int group = heads / kv_heads;
  for (const Span& span : spans) {
    // A group larger than a tile is cut into pieces of heads.
    const int piece = std::min(group, MAX_QUERIES);
    const int rows = std::max(1, MAX_QUERIES / piece);
    for (int kv = 0; kv < kv_heads; kv++) {
      for (int h = 0; h < group; h += piece) {
        for (int r = 0; r < span.rows; r += rows) {
          const int n = std::min(rows, span.rows - r);
          const int keys = span.offset + r + n;
          tiles.push_back({&span, kv, kv * group + h, std::min(piece, group - h), r, n,
                           (keys + CHUNK - 1) / CHUNK, -1});
        }
      }
    }
  }
  return tiles;
}

}  // namespace

void attention(const float* q, const float* k, const float* v, int T, int heads, const RowPreparation& prepare,
               KvPool& pool, int layer, std::span<const Span> spans, std::span<const int> blocks, float scale,
               float* out) {
  static thread_local Scratch scratch, partials, query_space;
  const Tier& tier = active_tier();
  const int Dp = pool.padded_dim;

  int64_t covered = 0;
  for (const Span& span : spans) covered += span.rows;
  if (covered < T) std::memset(out, 0, size_t(T) * heads * pool.head_dim * sizeof(float));

  Queries queries;
  queries.stride = size_t(pool.key_pairs) * 2;
  const size_t query_floats = size_t(T) * heads * pool.key_pairs;
  queries.data = reinterpret_cast<int16_t*>(query_space.reserve(query_floats + size_t(T) * heads));
  queries.scales = reinterpret_cast<float*>(queries.data) + query_floats;
  const RowWriter writer(prepare, pool, layer, heads, scale, queries);
  struct Rows {
    const Span* span;
    int begin, end;
  };
  constexpr int ROWS = 8;
  std::vector<Rows> pieces;
  for (const Span& span : spans)
    for (int r = 0; r < span.rows; r += ROWS) pieces.push_back({&span, r, std::min(span.rows, r + ROWS)});
  const size_t writes = pieces.size() * size_t(pool.kv_heads);
  parallel_ranges(writes, writes, [&](int, size_t begin, size_t end) {
    for (size_t i = begin; i < end; i++) {
      const Rows& piece = pieces[i / size_t(pool.kv_heads)];
      const int kv_head = int(i % size_t(pool.kv_heads));
      for (int r = piece.begin; r < piece.end; r++) writer.write(*piece.span, r, kv_head, blocks.data(), q, k, v);
    }
  });

  // A tile that is more than its fair share of the work is split over its chunks.
  std::vector<Tile> tiles = make_tiles(spans, heads, pool.kv_heads);
  int64_t total = 0;
  for (const Tile& t : tiles) total += t.chunks;
  const int threads = num_threads();
  std::vector<Item> items;
  int64_t parts = 0;
  for (size_t i = 0; i < tiles.size(); i++) {
    Tile& t = tiles[i];
    if (threads > 1 && t.chunks > 1 && t.chunks > total / (4 * threads)) {
      t.part = parts;
      parts += t.chunks;
      for (int c = 0; c < t.chunks; c++) items.push_back({int(i), c});
    } else {
      items.push_back({int(i), -1});
    }
  }
  // The long ones first, so that the threads end together.
  std::stable_sort(items.begin(), items.end(), [&](const Item& a, const Item& b) {
    const auto cost = [&](const Item& x) { return x.chunk < 0 ? tiles[size_t(x.tile)].chunks : 1; };
    return cost(a) > cost(b);
  });

  const Call call{queries, heads, &pool, layer, blocks.data(), out};
  const size_t acc_floats = size_t(MAX_QUERIES) * Dp;
  const size_t thread_floats = 2 * acc_floats;
  float* const base = scratch.reserve(thread_floats * threads);
  const size_t part_floats = acc_floats + 2 * MAX_QUERIES;  // acc, max, sum
  float* const part_base = partials.reserve(size_t(parts) * part_floats);

  const auto run_all = [&](const Tile& t, float* mine) {
    const AttentionTile a = call.describe(t);
    AttentionState state, part;
    state.acc = mine;
    part.acc = state.acc + acc_floats;
    clear(state);
    for (int c = 0; c < t.chunks; c++) {
      tier.attend(a, c, part);
      tier.merge(state, part, a.count, Dp);
    }
    call.write(tier, t, state);
  };
  const auto run_chunk = [&](const Tile& t, int c) {
    const AttentionTile a = call.describe(t);
    float* to = part_base + size_t(t.part + c) * part_floats;
    AttentionState part;
    part.acc = to;
    tier.attend(a, c, part);
    std::memcpy(to + acc_floats, part.max, sizeof part.max);
    std::memcpy(to + acc_floats + MAX_QUERIES, part.sum, sizeof part.sum);
  };
  parallel(items.size(), [&](int thread, size_t i) {
    const Tile& t = tiles[size_t(items[i].tile)];
    if (items[i].chunk < 0) run_all(t, base + thread_floats * thread);
    else run_chunk(t, items[i].chunk);
  });

  for (const Tile& t : tiles) {
    if (t.part < 0) continue;
    AttentionState state, part;
    state.acc = base;
    clear(state);
    for (int c = 0; c < t.chunks; c++) {
      float* from = part_base + size_t(t.part + c) * part_floats;
      part.acc = from;
      std::memcpy(part.max, from + acc_floats, sizeof part.max);
      std::memcpy(part.sum, from + acc_floats + MAX_QUERIES, sizeof part.sum);
      tier.merge(state, part, t.rows * t.heads, Dp);
    }
    call.write(tier, t, state);
  }
}

}  // namespace omlx::kernels
