#include <algorithm>
#include <stdexcept>

#include "../threads.h"
#include "check.h"

using namespace omlx::kernels;
using check::Random;

namespace {

struct Heads {
  int heads, kv_heads, D;
};

/// A text with all its rows: q (n, H·D), k and v (n, Hkv·D).
struct Text {
  int n;
  std::vector<float> q, k, v;
};

Text make_text(Random& random, const Heads& s, int n) {
  return {n, random.normals(size_t(n) * s.heads * s.D), random.normals(size_t(n) * s.kv_heads * s.D),
          random.normals(size_t(n) * s.kv_heads * s.D)};
}

std::vector<double> reference(const Text& t, const Heads& s, int before, int after, float scale) {
  std::vector<double> out;
  for (int p = 0; p < t.n; p++) {
    const int first = before < 0 ? 0 : std::max(0, p - before), last = after < 0 ? t.n : std::min(t.n, p + after + 1);
    for (int h = 0; h < s.heads; h++) {
      const float* query = t.q.data() + (size_t(p) * s.heads + h) * s.D;
      const auto row = [&](const std::vector<float>& x, int j) {
        return x.data() + (size_t(j) * s.kv_heads + h / (s.heads / s.kv_heads)) * s.D;
      };
      std::vector<double> w(t.n, 0.0);
      double top = -1e300, sum = 0;
      for (int j = first; j < last; j++) {
        for (int d = 0; d < s.D; d++) w[j] += double(query[d]) * row(t.k, j)[d];
        w[j] *= scale;
        top = std::max(top, w[j]);
      }
      for (int j = first; j < last; j++) sum += w[j] = std::exp(w[j] - top);
      for (int d = 0; d < s.D; d++) {
        double value = 0;
        for (int j = first; j < last; j++) value += w[j] * row(t.v, j)[d];
        out.push_back(value / sum);
      }
    }
  }
  return out;
}

/// All rows of the texts, side by side.
struct Batch {
  std::vector<float> q, k, v;
  std::vector<TextSpan> spans;
};

Batch join(const std::vector<Text>& texts) {
  Batch b;
  int row = 0;
  for (const Text& t : texts) {
    b.q.insert(b.q.end(), t.q.begin(), t.q.end());
    b.k.insert(b.k.end(), t.k.begin(), t.k.end());
    b.v.insert(b.v.end(), t.v.begin(), t.v.end());
    b.spans.push_back({row, t.n, 0, row, t.n});
    row += t.n;
  }
  return b;
}

std::vector<float> run(const Batch& b, const Heads& s, int before, int after, float scale) {
  const int T = int(b.q.size()) / (s.heads * s.D), S = int(b.k.size()) / (s.kv_heads * s.D);
  std::vector<float> out(b.q.size(), 7.0f);
  encode(b.q.data(), T, b.k.data(), b.v.data(), S, s.heads, s.kv_heads, s.D, b.spans, before, after, scale, out.data());
  return out;
}

const std::vector<std::pair<int, int>> WINDOWS{{-1, -1}, {-1, 0}, {64, 64}, {5, 0}, {0, 0}, {3, 700}};

}  // namespace

TEST("encode() agrees with double precision for texts of any length, window and head shape") {
  Random random(1);
  for (const Heads& s : {Heads{3, 3, 32}, Heads{4, 2, 64}, Heads{2, 1, 20}, Heads{1, 1, 80}}) {
    std::vector<Text> texts;
    // Long texts for one shape: how keys are walked does not depend on the width of heads.
    const bool is_long = s.D == 32;
    for (int n : is_long ? std::vector{1, 2, 15, 16, 17, 100, 511, 700} : std::vector{1, 17, 100, 200})
      texts.push_back(make_text(random, s, n));
    const float scale = 1.0f / std::sqrt(float(s.D));
    for (const auto& [before, after] : WINDOWS) {
      std::vector<double> want;
      for (const Text& t : texts) {
        const auto part = reference(t, s, before, after, scale);
        want.insert(want.end(), part.begin(), part.end());
      }
      check::each_tier([&](const std::string& tier) {
        check::close(run(join(texts), s, before, after, scale), want, 1e-6,
                     check::text((tier + " heads D before after").c_str(), {s.heads, s.D, before, after}));
      });
    }
  }
}

TEST("encode() gives a text the same bits alone, beside others, in any division of its rows and on any threads") {
  Random random(2);
  const Heads s{4, 2, 32};
  std::vector<Text> texts;
  for (int n : {40, 3, 530, 17}) texts.push_back(make_text(random, s, n));
  const int threads = num_threads();
  for (const auto& [before, after] : WINDOWS) {
    check::each_tier([&](const std::string& tier) {
      set_num_threads(1);
      std::vector<float> alone;
      for (const Text& t : texts) {
        const auto part = run(join({t}), s, before, after, 0.2f);
        alone.insert(alone.end(), part.begin(), part.end());
      }
      for (int n : {1, 3}) {
        set_num_threads(n);
        check::same(run(join(texts), s, before, after, 0.2f), alone, tier + ": side by side");
        for (int rows : {7, 64}) {
          std::vector<float> parts;
          int first_key = 0;
          Batch part = join(texts);
          for (const Text& t : texts) {
            for (int at = 0; at < t.n; at += rows) {
              const int count = std::min(rows, t.n - at);
              const size_t width = size_t(s.heads) * s.D;
              part.q.assign(t.q.begin() + long(at * width), t.q.begin() + long((at + count) * width));
              part.spans = {{0, count, at, first_key, t.n}};
              const auto out = run(part, s, before, after, 0.2f);
              parts.insert(parts.end(), out.begin(), out.end());
            }
            first_key += t.n;
          }
          check::same(parts, alone, tier + check::text(": rows", {rows}));
        }
      }
    });
  }
  set_num_threads(threads);
}

TEST("encode() clears rows of no text and refuses spans that do not fit") {
  Random random(3);
  const Heads s{1, 1, 16};
  Batch b = join({make_text(random, s, 4), make_text(random, s, 4)});
  b.spans = {b.spans[1]};
  const auto out = run(b, s, -1, -1, 1.0f);
  for (int i = 0; i < 4 * 16; i++) check::that(out[size_t(i)] == 0.0f, "row of no text is not 0");
  for (const TextSpan& bad : {TextSpan{0, 9, 0, 0, 9}, TextSpan{-1, 2, 0, 0, 2}, TextSpan{0, 0, 0, 0, 4},
                              TextSpan{0, 4, 1, 0, 4}, TextSpan{0, 4, -1, 0, 8}, TextSpan{0, 4, 0, 6, 4}}) {
    b.spans = {bad};
    bool thrown = false;
    try {
      run(b, s, -1, -1, 1.0f);
    } catch (const std::invalid_argument&) {
      thrown = true;
    }
    check::that(thrown, "a span that does not fit was accepted");
  }
}

TEST("layer_norm() agrees with double precision for any width, with and without residual, weight and bias") {
  Random random(4);
  for (int E : {1, 15, 16, 384, 1000}) {
    for (int kind : {0, 1, 2, 3}) {
      const int rows = 5;
      const auto x = random.normals(size_t(rows) * E, 3.0f), r = random.normals(size_t(rows) * E);
      const DType type = kind == 1 ? DType::f16 : kind == 2 ? DType::bf16 : DType::f32;
      const auto w = check::make_floats(random.normals(E), type), b = check::make_floats(random.normals(E), type);
      std::vector<double> want;
      for (int t = 0; t < rows; t++) {
        std::vector<double> v(E);
        double mean = 0, var = 0;
        for (int i = 0; i < E; i++) mean += v[i] = double(x[t * E + i]) + (kind == 3 ? 0 : r[t * E + i]);
        mean /= E;
        for (double a : v) var += (a - mean) * (a - mean);
        for (int i = 0; i < E; i++) {
          const double y = (v[i] - mean) / std::sqrt(var / E + 1e-5);
          want.push_back(kind == 0 ? y : y * w.exact[i] + (kind == 3 ? 0 : b.exact[i]));
        }
      }
      check::each_tier([&](const std::string& tier) {
        std::vector<float> out(x.size());
        const Vector weight = kind == 0 ? Vector{} : Vector{w.bytes.data(), type};
        const Vector bias = kind == 0 || kind == 3 ? Vector{} : Vector{b.bytes.data(), type};
        layer_norm(x.data(), kind == 3 ? nullptr : r.data(), rows, E, weight, bias, 1e-5f, out.data());
        check::close(out, want, 1e-6, check::text((tier + " E kind").c_str(), {E, kind}));
      });
    }
  }
}

TEST("activate() agrees with double precision over the whole range, with and without a factor") {
  std::vector<float> x;
  for (int i = -4000; i <= 4000; i++) x.push_back(float(i) * 0.005f);
  for (float extreme : {-1e30f, -200.0f, 200.0f, 1e-30f, -0.0f}) x.push_back(extreme);
  Random random(5);
  const auto up = random.normals(x.size());
  const auto exact = [](Activation kind, double v) {
    switch (kind) {
      case Activation::gelu: return 0.5 * v * std::erfc(-v / std::sqrt(2.0));
      case Activation::gelu_tanh: return v / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
      case Activation::silu: return v / (1 + std::exp(-v));
      case Activation::relu: return std::max(v, 0.0);
    }
    return 0.0;
  };
  for (Activation kind : {Activation::gelu, Activation::gelu_tanh, Activation::silu, Activation::relu}) {
    check::each_tier([&](const std::string& tier) {
      std::vector<float> plain(x.size()), gated(x.size());
      activate(kind, x.data(), nullptr, x.size(), plain.data());
      activate(kind, x.data(), up.data(), x.size(), gated.data());
      for (size_t i = 0; i < x.size(); i++) {
        const double want = exact(kind, x[i]), scale = std::max(1.0, std::fabs(double(x[i])));
        const std::string where = tier + check::text(" kind", {int(kind)}) + " x " + std::to_string(x[i]);
        check::that(std::fabs(plain[i] - want) <= 2.5e-7 * scale, where);
        check::that(std::fabs(gated[i] - want * up[i]) <= 2.5e-7 * scale * std::max(1.0f, std::fabs(up[i])), where + " gated");
      }
    });
  }
}

TEST("encoder kernels give the same bits on all tiers with fused arithmetic") {
  Random random(6);
  const Heads s{2, 1, 40};
  const Batch b = join({make_text(random, s, 600), make_text(random, s, 33)});
  const auto x = random.normals(3 * 577, 4.0f), y = random.normals(3 * 577);
  check::same_on_fused_tiers("encode, layer_norm and activate", [&] {
    auto all = run(b, s, 64, 64, 0.3f);
    std::vector<float> norm(x.size()), act(x.size());
    layer_norm(x.data(), y.data(), 3, 577, {y.data(), DType::f32}, {x.data(), DType::f32}, 1e-6f, norm.data());
    activate(Activation::gelu, x.data(), y.data(), x.size(), act.data());
    all.insert(all.end(), norm.begin(), norm.end());
    all.insert(all.end(), act.begin(), act.end());
    return all;
  });
}
