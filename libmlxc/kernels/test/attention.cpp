#include <stdexcept>
#include <algorithm>

#include "../threads.h"
#include "check.h"

using namespace omlx::kernels;
using check::Random;

namespace {

struct Shape {
  int heads, kv_heads, D, block_tokens;
};

/// A sequence with all its rows: q (n, H·D), k and v (n, Hkv·D).
struct Sequence {
  int n;
  std::vector<float> q, k, v;
  std::vector<int> blocks;
};

Sequence make_sequence(Random& random, const Shape& s, int n) {
  return {n, random.normals(size_t(n) * s.heads * s.D), random.normals(size_t(n) * s.kv_heads * s.D),
          random.normals(size_t(n) * s.kv_heads * s.D), {}};
}

std::vector<double> reference(const Sequence& q, const Shape& s, float scale) {
  std::vector<double> out;
  const int group = s.heads / s.kv_heads;
  for (int t = 0; t < q.n; t++) {
    for (int h = 0; h < s.heads; h++) {
      const float* query = q.q.data() + (size_t(t) * s.heads + h) * s.D;
      std::vector<double> p(t + 1);
      double top = -1e300, sum = 0;
      for (int j = 0; j <= t; j++) {
        const float* key = q.k.data() + (size_t(j) * s.kv_heads + h / group) * s.D;
        for (int d = 0; d < s.D; d++) p[j] += double(query[d]) * key[d];
        p[j] *= scale;
        top = std::max(top, p[j]);
      }
      for (double& x : p) sum += x = std::exp(x - top);
      for (int d = 0; d < s.D; d++) {
        double value = 0;
        for (int j = 0; j <= t; j++) value += p[j] * q.v[(size_t(j) * s.kv_heads + h / group) * s.D + d];
        out.push_back(value / sum);
      }
    }
  }
  return out;
}

/// Gives each sequence its blocks in a shuffled order out of one pool.
KvPool make_pool(Random& random, const Shape& s, std::vector<Sequence>& sequences, int layers = 2) {
  int needed = 0;
  for (auto& q : sequences) needed += (q.n + s.block_tokens - 1) / s.block_tokens;
  std::vector<int> ids(needed + 3);
  for (size_t i = 0; i < ids.size(); i++) ids[i] = int(i);
  for (size_t i = ids.size() - 1; i > 0; i--) std::swap(ids[i], ids[random.below(int(i) + 1)]);
  size_t next = 0;
  for (auto& q : sequences) {
    q.blocks.clear();
    for (int b = 0; b * s.block_tokens < q.n; b++) q.blocks.push_back(ids[next++]);
  }
  return KvPool(layers, needed + 3, s.block_tokens, s.kv_heads, s.D);
}

/// One step: rows [offset, offset + rows) of each sequence, those with rows > 0. Returns (T, H·D).
struct Part {
  int sequence, offset, rows;
};
std::vector<float> step(const Shape& s, const std::vector<Sequence>& sequences, const std::vector<Part>& parts, KvPool& pool,
                        int layer, float scale, const RowPreparation& prepare = {}) {
  std::vector<float> q, k, v;
  std::vector<Span> spans;
  std::vector<int> blocks;
  int T = 0;
  const auto take = [](std::vector<float>& to, const std::vector<float>& from, size_t width, const Part& p) {
    to.insert(to.end(), from.begin() + size_t(p.offset) * width, from.begin() + size_t(p.offset + p.rows) * width);
  };
  for (const Part& p : parts) {
    const Sequence& from = sequences[p.sequence];
    take(q, from.q, size_t(s.heads) * s.D, p);
    take(k, from.k, size_t(s.kv_heads) * s.D, p);
    take(v, from.v, size_t(s.kv_heads) * s.D, p);
    spans.push_back({T, p.rows, p.offset, int(blocks.size())});
    blocks.insert(blocks.end(), from.blocks.begin(), from.blocks.end());
    T += p.rows;
  }
  std::vector<float> out(size_t(T) * s.heads * s.D, NAN);
  validate(spans, blocks, T, pool);
  attention(q.data(), k.data(), v.data(), T, s.heads, prepare, pool, layer, spans, blocks, scale, out.data());
  return out;
}

/// Fills a pool with NaN, so that reading what was never written shows.
void poison(KvPool& pool) { std::fill_n(reinterpret_cast<float*>(pool.data()), pool.bytes() / sizeof(float), NAN); }

const std::vector<Shape> SHAPES{{9, 3, 64, 32}, {4, 4, 80, 16}, {8, 1, 128, 64}, {2, 2, 20, 48}, {30, 1, 16, 16}};

}  // namespace

TEST("attention() agrees with double precision over shuffled blocks, never reading what was not written") {
  Random random(1);
  for (const Shape& s : SHAPES) {
    for (int n : {1, 15, 16, 17, 70, 300}) {
      std::vector<Sequence> all{make_sequence(random, s, n)};
      KvPool pool = make_pool(random, s, all);
      const float scale = 1 / std::sqrt(float(s.D));
      const auto want = reference(all[0], s, scale);
      check::each_tier([&](const std::string& tier) {
        poison(pool);
        check::close(step(s, all, {{0, 0, n}}, pool, 1, scale), want, 1e-3,
                     check::text((tier + " H Hkv D P n").c_str(), {s.heads, s.kv_heads, s.D, s.block_tokens, n}));
      });
    }
  }
}

TEST("attention() keeps its integer sums in range where every element is the largest") {
  for (const int D : {20, 128, 129, 256, 1024}) {
    const Shape s{2, 1, D, 32};
    const int n = 90;
    Sequence q{n, std::vector<float>(size_t(n) * 2 * D), std::vector<float>(size_t(n) * D), std::vector<float>(size_t(n) * D, -3.0f), {}};
    // the first head agrees with every key in every element, the second disagrees
    for (size_t i = 0; i < q.q.size(); i++) q.q[i] = i / size_t(D) % 2 ? -7.0f : 7.0f;
    std::fill(q.k.begin(), q.k.end(), 5.0f);
    // but for one key, which decides: half of its elements say the opposite
    for (int d = 0; d < D / 2; d++) q.k[size_t(40) * D + d] = -5.0f;
    for (int d = 0; d < D; d++) q.v[size_t(40) * D + d] = 2.0f;
    std::vector<Sequence> all{q};
    Random random(11);
    KvPool pool = make_pool(random, s, all);
    check::each_tier([&](const std::string& tier) {
      const auto out = step(s, all, {{0, 0, n}}, pool, 0, 1.0f);
      const std::vector<float> last(out.end() - 2 * D, out.end());
      std::vector<double> want(size_t(2) * D, -3.0);
      std::fill(want.begin() + D, want.end(), 2.0);
      check::close(last, want, 1e-6, check::text((tier + " D").c_str(), {D}));
    });
  }
}

TEST("attention() makes NaN of a NaN or an infinity in the rows that see it, and of no other") {
  const Shape s{2, 1, 32, 16};
  for (const float bad : {NAN, INFINITY}) {
    for (const int part : {0, 1, 2}) {
      Random random(12);
      std::vector<Sequence> all{make_sequence(random, s, 40)};
      std::vector<float>& x = part == 0 ? all[0].q : part == 1 ? all[0].k : all[0].v;
      const size_t width = part == 0 ? 64 : 32;
      x[20 * width + 3] = bad;
      KvPool pool = make_pool(random, s, all);
      check::each_tier([&](const std::string& tier) {
        const auto out = step(s, all, {{0, 0, 40}}, pool, 0, 0.2f);
        for (int t = 0; t < 40; t++) {
          const bool is_bad = std::isnan(out[size_t(t) * 64 + 5]);
          const bool should = part == 0 ? t == 20 : t >= 20;
          check::that(is_bad == should, check::text((tier + " part row").c_str(), {part, t}));
        }
      });
    }
  }
}

TEST("attention() prepares rows as rms_norm() and rope() do") {
  Random random(13);
  const Shape s{4, 2, 64, 32};
  const int n = 37, half = 24;
  std::vector<Sequence> all{make_sequence(random, s, n)};
  KvPool pool = make_pool(random, s, all);
  const auto q_norm = random.normals(64), k_norm = random.normals(64), inv_freq = random.normals(half);
  std::vector<int> positions;
  for (int i = 0; i < n; i++) positions.push_back(i);
  std::vector<float> table(size_t(n) * half * 2);
  rope_table(positions.data(), n, inv_freq.data(), half, 1.0f, table.data());
  for (const bool traditional : {false, true}) {
    for (const bool normed : {false, true}) {
      RowPreparation prepare;
      prepare.table = table.data();
      prepare.half = half;
      prepare.traditional = traditional;
      prepare.eps = 1e-5f;
      std::vector<Sequence> prepared = all;
      if (normed) {
        prepare.q_norm.data = q_norm.data();
        prepare.k_norm.data = k_norm.data();
        rms_norm(all[0].q.data(), n * 4, 64, prepare.q_norm, 1e-5f, prepared[0].q.data());
        rms_norm(all[0].k.data(), n * 2, 64, prepare.k_norm, 1e-5f, prepared[0].k.data());
      }
      std::vector<float> q(prepared[0].q.size()), k(prepared[0].k.size());
      rope(prepared[0].q.data(), n, 4, 64, table.data(), half, traditional, q.data());
      rope(prepared[0].k.data(), n, 2, 64, table.data(), half, traditional, k.data());
      prepared[0].q = q;
      prepared[0].k = k;
      check::same(step(s, all, {{0, 0, n}}, pool, 0, 0.2f, prepare), step(s, prepared, {{0, 0, n}}, pool, 0, 0.2f),
                  check::text("traditional normed", {traditional, normed}));
    }
  }
}

TEST("attention() gives a row the same bits in one prefill, in chunks of any size and token by token") {
  Random random(2);
  for (const Shape& s : SHAPES) {
    const int n = 300;
    std::vector<Sequence> all{make_sequence(random, s, n)};
    KvPool pool = make_pool(random, s, all);
    check::each_tier([&](const std::string& tier) {
      poison(pool);
      const auto whole = step(s, all, {{0, 0, n}}, pool, 0, 0.2f);
      for (int rows : {1, 7, 64, 257}) {
        poison(pool);
        std::vector<float> got;
        for (int at = 0; at < n; at += rows) {
          const auto part = step(s, all, {{0, at, std::min(rows, n - at)}}, pool, 0, 0.2f);
          got.insert(got.end(), part.begin(), part.end());
        }
        check::same(got, whole, check::text((tier + " D rows").c_str(), {s.D, rows}));
      }
    });
  }
}

TEST("attention() gives a sequence the same bits alone and beside others, decoding or prefilling") {
  Random random(3);
  const Shape s{9, 3, 64, 32};
  std::vector<Sequence> all;
  for (int n : {600, 33, 1, 290}) all.push_back(make_sequence(random, s, n));
  KvPool together = make_pool(random, s, all);
  const std::vector<Part> before{{0, 0, 599}, {1, 0, 32}, {3, 0, 250}};
  const std::vector<Part> now{{1, 32, 1}, {0, 599, 1}, {3, 250, 40}, {2, 0, 1}};
  check::each_tier([&](const std::string& tier) {
    step(s, all, before, together, 1, 0.125f);
    const auto mixed = step(s, all, now, together, 1, 0.125f);
    size_t at = 0;
    for (const Part& p : now) {
      std::vector<Sequence> one{all[p.sequence]};
      KvPool pool = make_pool(random, s, one);
      if (p.offset) step(s, one, {{0, 0, p.offset}}, pool, 1, 0.125f);
      const auto alone = step(s, one, {{0, p.offset, p.rows}}, pool, 1, 0.125f);
      check::same({mixed.begin() + at, mixed.begin() + at + alone.size()}, alone, tier + " sequence " + std::to_string(p.sequence));
      at += alone.size();
    }
  });
}

TEST("attention() gives the same bits with 1, 2 and 3 threads, split over chunks of keys or not") {
  Random random(4);
  const Shape s{6, 2, 64, 16};
  const int n = 1100, threads_before = num_threads();
  std::vector<Sequence> all{make_sequence(random, s, n)};
  KvPool pool = make_pool(random, s, all);
  set_num_threads(1);  // nothing is split
  step(s, all, {{0, 0, n - 1}}, pool, 0, 0.125f);
  const auto one = step(s, all, {{0, n - 1, 1}}, pool, 0, 0.125f);
  for (int threads : {2, 3}) {
    set_num_threads(threads);
    check::same(step(s, all, {{0, n - 1, 1}}, pool, 0, 0.125f), one, std::to_string(threads) + " threads");
  }
  set_num_threads(threads_before);
}

TEST("attention() shares blocks between sequences with a common prefix") {
  Random random(5);
  const Shape s{4, 2, 64, 32};
  std::vector<Sequence> all{make_sequence(random, s, 100), make_sequence(random, s, 100)};
  // the second begins with the first 64 tokens of the first
  std::copy_n(all[0].k.begin(), 64 * s.kv_heads * s.D, all[1].k.begin());
  std::copy_n(all[0].v.begin(), 64 * s.kv_heads * s.D, all[1].v.begin());
  KvPool pool = make_pool(random, s, all);
  step(s, all, {{1, 0, 64}}, pool, 0, 0.125f);
  const auto cold = step(s, all, {{1, 64, 36}}, pool, 0, 0.125f);
  step(s, all, {{0, 0, 100}}, pool, 0, 0.125f);
  std::copy_n(all[0].blocks.begin(), 2, all[1].blocks.begin());
  check::same(step(s, all, {{1, 64, 36}}, pool, 0, 0.125f), cold, "reused prefix");
}

TEST("attention() keeps layers apart and sets rows of no span to zero") {
  Random random(6);
  const Shape s{2, 1, 32, 16};
  std::vector<Sequence> all{make_sequence(random, s, 20), make_sequence(random, s, 20)};
  KvPool pool = make_pool(random, s, all);
  all[1].blocks = all[0].blocks;
  const auto first = step(s, all, {{0, 0, 20}}, pool, 0, 0.2f);
  step(s, all, {{1, 0, 20}}, pool, 1, 0.2f);
  const auto again = step(s, all, {{0, 19, 1}}, pool, 0, 0.2f);
  check::same(again, {first.end() - 64, first.end()}, "layer 0 after a write to layer 1");

  const std::vector<Span> spans{{1, 1, 0, 0}};
  std::vector<float> out(3 * 64, NAN);
  attention(all[0].q.data(), all[0].k.data(), all[0].v.data(), 3, 2, {}, pool, 0, spans, all[0].blocks, 0.2f, out.data());
  check::same({out.begin(), out.begin() + 64}, std::vector<float>(64, 0.0f), "row 0");
  check::same({out.begin() + 128, out.end()}, std::vector<float>(64, 0.0f), "row 2");
}

TEST("attention() gives the same bits on all tiers with fused arithmetic") {
  Random random(7);
  for (const Shape& s : SHAPES) {
    std::vector<Sequence> all{make_sequence(random, s, 300)};
    KvPool pool = make_pool(random, s, all);
    check::same_on_fused_tiers("D " + std::to_string(s.D), [&] { return step(s, all, {{0, 0, 300}}, pool, 0, 0.1f); });
  }
}

TEST("validate() refuses spans and block tables that do not fit") {
  KvPool pool(1, 4, 16, 1, 16);
  const auto refused = [&](Span span, std::vector<int> blocks, int T) {
    try {
      validate(std::vector<Span>{span}, blocks, T, pool);
    } catch (const std::invalid_argument&) {
      return true;
    }
    return false;
  };
  check::that(!refused({0, 17, 0, 0}, {3, 0}, 17), "a good span was refused");
  check::that(refused({0, 17, 0, 0}, {3}, 17), "a block table that is too short");
  check::that(refused({0, 16, 1, 0}, {3}, 16), "an offset into a missing block");
  check::that(refused({0, 1, 0, 0}, {4}, 1), "a block outside of the pool");
  check::that(refused({0, 1, 0, 0}, {-1}, 1), "a negative block");
  check::that(refused({1, 2, 0, 0}, {0}, 2), "rows outside of the batch");
  check::that(refused({0, 0, 0, 0}, {0}, 2), "a span without rows");
  check::that(refused({0, 1, 0, 1}, {0}, 1), "a table behind the block list");
  bool thrown = false;
  try {
    KvPool(1, 4, 24, 1, 16);
  } catch (const std::invalid_argument&) {
    thrown = true;
  }
  check::that(thrown, "block_tokens 24 was accepted");
}
