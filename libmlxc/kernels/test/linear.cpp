#include <optional>
#include <stdexcept>
#include "../threads.h"
#include "check.h"

#ifdef OMLX_TEST_TIERS
namespace omlx::kernels {
bool tiers_agree(const std::string& a, const std::string& b);  // dispatch.cpp
}
#endif

using namespace omlx::kernels;
using check::Random;

namespace {

struct Case {
  int N, K, bits, group;
  DType dtype;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (int bits : {2, 3, 4, 5, 6, 8})
    for (int group : {16, 32, 64, 128}) all.push_back({37, 256, bits, group, DType::f16});
  for (int bits : {4, 8}) {
    all.push_back({192, 576, bits, 32, DType::f16});
    all.push_back({51, 1536, bits, 32, DType::bf16});
    all.push_back({5, 2176, bits, 32, DType::f32});  // more groups than are widened at once
    all.push_back({1, 64, bits, 64, DType::f32});
  }
  for (DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (int K : {1, 15, 16, 17, 64, 100, 576}) all.push_back({19, K, 0, 0, dtype});
    all.push_back({1, 33, 0, 0, dtype});
    all.push_back({133, 200, 0, 0, dtype});
  }
  return all;
}

std::string name(const Case& c, const std::string& tier, int M) {
  return check::text((tier + " N K bits group dtype M").c_str(), {c.N, c.K, c.bits, c.group, int(c.dtype), M});
}

std::vector<double> reference(const std::vector<float>& x, int M, const check::TestWeight& t, const std::vector<float>& bias) {
  const int N = t.w.rows, K = t.w.cols;
  std::vector<double> out(size_t(M) * N);
  for (int m = 0; m < M; m++) {
    for (int n = 0; n < N; n++) {
      double sum = bias.empty() ? 0.0 : bias[n];
      for (int k = 0; k < K; k++) sum += double(x[size_t(m) * K + k]) * t.exact[size_t(n) * K + k];
      out[size_t(m) * N + n] = sum;
    }
  }
  return out;
}

/// Selects an arithmetic for the rest of the scope.
class Using {
 public:
  explicit Using(Arithmetic a) : before_(arithmetic()) { set_arithmetic(a); }
  ~Using() { set_arithmetic(before_); }

 private:
  Arithmetic before_;
};

/// x as the integer kernels see it: per row and group of K, multiples of largest / limit.
std::vector<float> rounded(std::vector<float> x, int group, float limit) {
  for (size_t i = 0; i < x.size(); i += size_t(group)) {
    float largest = 0;
    for (int k = 0; k < group; k++) largest = std::max(largest, std::fabs(x[i + size_t(k)]));
    const float d = largest / limit, inverse = limit / largest;
    for (int k = 0; k < group; k++) x[i + size_t(k)] = largest > 0 ? std::nearbyint(x[i + size_t(k)] * inverse) * d : 0;
  }
  return x;
}

/// What rounding x may change at most: half a step of every activation times its weight.
std::vector<double> rounding_bounds(const std::vector<float>& x, int M, const check::TestWeight& t, float limit) {
  const int N = t.w.rows, K = t.w.cols;
  std::vector<double> out(size_t(M) * N);
  for (int m = 0; m < M; m++) {
    for (int g = 0; g < K; g += t.w.group) {
      float largest = 0;
      for (int k = g; k < g + t.w.group; k++) largest = std::max(largest, std::fabs(x[size_t(m) * K + k]));
      for (int n = 0; n < N; n++)
        for (int k = g; k < g + t.w.group; k++) out[size_t(m) * N + n] += 0.5 * largest / limit * std::fabs(t.exact[size_t(n) * K + k]);
    }
  }
  return out;
}

bool has_integer_form(const Case& c) { return c.bits > 0 && c.group >= 32; }

/// A weight as layers hold it: packed where integer arithmetic will read it, and then without the original.
class Bound {
 public:
  explicit Bound(const Weight& w) : w_(w) {
    if (arithmetic() == Arithmetic::exact || !PackedWeight::possible(w)) return;
    packed_.emplace(w);
    w_.packed = packed_->data();
    w_.data = w_.scales = w_.biases = nullptr;
  }
  operator const Weight&() const { return w_; }

 private:
  Weight w_;
  std::optional<PackedWeight> packed_;
};

std::vector<float> run(const std::vector<float>& x, int M, const Weight& w, Vector bias, Form form) {
  std::vector<float> out(size_t(M) * w.rows, -1.0f);
  const Bound bound(w);
  linear(x.data(), M, bound, bias, out.data(), form);
  return out;
}

}  // namespace

TEST("linear() agrees with double precision for every weight form, in both forms of the kernel") {
  const Using exact(Arithmetic::exact);
  Random random(1);
  for (const Case& c : cases()) {
    const auto t = check::make_weight(random, c.N, c.K, c.bits, c.group, c.dtype);
    for (int M : {1, 3, 7}) {
      const auto x = random.normals(size_t(M) * c.K);
      const auto want = reference(x, M, t, {});
      check::each_tier([&](const std::string& tier) {
        check::close(run(x, M, t.w, {}, Form::matvec), want, 3e-6, "matvec " + name(c, tier, M));
        check::close(run(x, M, t.w, {}, Form::gemm), want, 3e-6, "gemm " + name(c, tier, M));
      });
    }
  }
}

TEST("linear() with activations of 16 and 8 bits agrees with double precision") {
  Random random(11);
  for (const Case& c : cases()) {
    if (!has_integer_form(c)) continue;
    const auto t = check::make_weight(random, c.N, c.K, c.bits, c.group, c.dtype);
    for (int M : {1, 3, 7, 13}) {
      auto x = random.normals(size_t(M) * c.K);
      for (size_t i = 0; i < x.size(); i += 97) x[i] *= 30;  // as the outliers of real activations
      std::fill_n(x.begin() + (M - 1) * c.K, c.group, 0.0f);
      const auto want = reference(x, M, t, {});
      for (const Arithmetic a : {Arithmetic::int16, Arithmetic::int8}) {
        const Using arithmetic(a);
        const float limit = a == Arithmetic::int16 ? 32512.0f : 127.0f;
        const auto seen = reference(rounded(x, c.group, limit), M, t, {});
        const auto bounds = rounding_bounds(x, M, t, limit);
        double largest = 0;
        for (double w : want) largest = std::max(largest, std::fabs(w));
        check::each_tier([&](const std::string& tier) {
          for (const Form form : {Form::matvec, Form::gemm}) {
            const auto got = run(x, M, t.w, {}, form);
            const std::string what = std::to_string(int(limit)) + " steps, " + name(c, tier, M);
            check::close(got, seen, 3e-6, what + ", activations rounded");
            for (size_t i = 0; i < got.size(); i++) {
              if (!(std::fabs(got[i] - want[i]) <= bounds[i] + 3e-6 * largest)) return check::fail(what + ": further off than rounding may be");
            }
          }
        });
      }
    }
  }
}

TEST("linear() on integers gives the same bits on every tier") {
  Random random(12);
  for (const Case& c : cases()) {
    if (!has_integer_form(c)) continue;
    const auto t = check::make_weight(random, c.N, c.K, c.bits, c.group, c.dtype);
    const auto x = random.normals(size_t(7) * c.K);
    for (const Arithmetic a : {Arithmetic::int16, Arithmetic::int8}) {
      const Using arithmetic(a);
      const auto want = run(x, 7, t.w, {}, Form::automatic);
      check::each_tier([&](const std::string& tier) {
        check::same(run(x, 7, t.w, {}, Form::automatic), want, name(c, tier, 7));
      });
    }
  }
}

TEST("linear() passes on NaN and infinity, and no other row sees them") {
  Random random(13);
  const auto t = check::make_weight(random, 37, 128, 4, 32, DType::f16);
  check::each_tier([&](const std::string& tier) {
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      for (const int at : {0, 33, 127}) {
        for (const Form form : {Form::matvec, Form::gemm}) {
          auto x = random.normals(9 * 128);
          const auto good = run(x, 9, t.w, {}, form);
          x[4 * 128 + size_t(at)] = bad;
          const auto out = run(x, 9, t.w, {}, form);
          for (int m = 0; m < 9; m++)
            for (size_t n = 0; n < 37; n++) {
              const float value = out[size_t(m) * 37 + n];
              check::that(m == 4 ? !std::isfinite(value) : value == good[size_t(m) * 37 + n], tier + ": a row is wrong");
            }
        }
      }
    }
  });
}

TEST("linear() computes several projections of one input as each alone, and adds residuals") {
  Random random(14);
  const int K = 256;
  const auto a = check::make_weight(random, 75, K, 4, 32, DType::f16);
  const auto b = check::make_weight(random, 32, K, 6, 64, DType::bf16);
  const auto c = check::make_weight(random, 19, K, 0, 0, DType::f32);
  const auto bias = check::make_floats(random.normals(75), DType::f32);
  for (const Arithmetic arithmetic : {Arithmetic::exact, Arithmetic::int16, Arithmetic::int8}) {
    const Using used(arithmetic);
    for (int M : {1, 5, 21}) {
      const auto x = random.normals(size_t(M) * K);
      const auto residual = random.normals(size_t(M) * 75);
      check::each_tier([&](const std::string& tier) {
        const Vector added{bias.bytes.data(), DType::f32};
        auto first = run(x, M, a.w, added, Form::automatic);
        for (size_t i = 0; i < first.size(); i++) first[i] += residual[i];
        std::vector<float> one = residual, two(size_t(M) * 32), three(size_t(M) * 19);
        Activations input;
        input.reset(x.data(), M, K);
        const Bound a_bound(a.w), b_bound(b.w), c_bound(c.w);
        const Projection all[] = {{a_bound, added, one.data(), one.data()}, {b_bound, {}, nullptr, two.data()}, {c_bound, {}, nullptr, three.data()}};
        linear(input, all);
        check::same(one, first, check::text((tier + " residual, M").c_str(), {M}));
        check::same(two, run(x, M, b.w, {}, Form::automatic), tier + " second");
        check::same(three, run(x, M, c.w, {}, Form::automatic), tier + " third");
      });
    }
  }
}

#ifdef OMLX_TEST_TIERS
TEST("the comparison that a tier must pass before it is chosen passes for tiers that are right") {
  check::that(tiers_agree("amx-emulated", "avx512vnni"), "tiles and vectors differ");
  check::that(tiers_agree("avx2", "avx512"), "pairs of 256 and of 512 bits differ");
}
#endif

TEST("packed weights stay where they are while others come and go, and groups without integer kernels are refused") {
  Random random(16);
  const auto first = check::make_weight(random, 64, 256, 4, 32, DType::f16);
  const auto x = random.normals(256);
  const Bound kept(first.w);
  const auto want = run(x, 1, first.w, {}, Form::automatic);
  std::vector<float> got(64);
  for (int round = 0; round < 3; round++) {
    // more than one chunk of the arena holds
    const auto large = check::make_weight(random, 4096, 4096, 8, 128, DType::f32);
    std::vector<Bound> others;
    for (int i = 0; i < 5; i++) others.emplace_back(large.w);
    linear(x.data(), 1, kept, {}, got.data());
    check::same(got, want, check::text("round", {round}));
  }
  const auto odd = check::make_weight(random, 8, 64, 4, 16, DType::f16);
  check::that(!PackedWeight::possible(odd.w), "groups of 16 are possible");
  bool refused = false;
  try {
    const PackedWeight packed(odd.w);
  } catch (const std::invalid_argument&) {
    refused = true;
  }
  check::that(refused, "groups of 16 were packed");
}

TEST("linear() adds a bias of any float type") {
  const Using exact(Arithmetic::exact);
  Random random(2);
  for (DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    const auto t = check::make_weight(random, 21, 64, 4, 32, DType::f16);
    const auto bias = check::make_floats(random.normals(21), dtype);
    const auto x = random.normals(9 * 64);
    const auto want = reference(x, 9, t, bias.exact);
    const Vector b{bias.bytes.data(), dtype};
    check::each_tier([&](const std::string& tier) {
      check::close(run(x, 9, t.w, b, Form::matvec), want, 3e-6, tier);
      check::same(run(x, 9, t.w, b, Form::matvec), run(x, 9, t.w, b, Form::gemm), tier);
    });
  }
}

TEST("linear() gives a row the same bits in matvec and GEMM form and beside any number of rows") {
  for (const Arithmetic arithmetic : {Arithmetic::exact, Arithmetic::int16, Arithmetic::int8}) {
    const Using used(arithmetic);
    Random random(3);
    for (const Case& c : cases()) {
      if (arithmetic != Arithmetic::exact && !has_integer_form(c)) continue;
      const auto t = check::make_weight(random, c.N, c.K, c.bits, c.group, c.dtype);
      const int rows = 40;
      const auto x = random.normals(size_t(rows) * c.K);
      check::each_tier([&](const std::string& tier) {
        std::vector<float> alone;
        for (int m = 0; m < rows; m++) {
          const std::vector<float> row(x.begin() + size_t(m) * c.K, x.begin() + size_t(m + 1) * c.K);
          const auto out = run(row, 1, t.w, {}, Form::automatic);
          alone.insert(alone.end(), out.begin(), out.end());
        }
        for (int M : {1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 40}) {
          const std::vector<float> part(x.begin(), x.begin() + size_t(M) * c.K);
          const std::vector<float> want(alone.begin(), alone.begin() + size_t(M) * c.N);
          check::same(run(part, M, t.w, {}, Form::automatic), want, name(c, tier, M));
          check::same(run(part, M, t.w, {}, Form::matvec), want, "matvec " + name(c, tier, M));
          check::same(run(part, M, t.w, {}, Form::gemm), want, "gemm " + name(c, tier, M));
        }
      });
    }
  }
}

TEST("linear() gives the same bits with 1, 2 and 3 threads and with several blocks of rows") {
  Random random(4);
  const auto t = check::make_weight(random, 203, 1536, 4, 32, DType::f16);
  const auto x = random.normals(301 * 1536);
  const int before = num_threads();
  for (int M : {1, 4, 9, 301}) {
    const std::vector<float> part(x.begin(), x.begin() + size_t(M) * 1536);
    set_num_threads(1);
    const auto one = run(part, M, t.w, {}, Form::automatic);
    for (int threads : {2, 3}) {
      set_num_threads(threads);
      check::same(run(part, M, t.w, {}, Form::automatic), one, check::text("threads M", {threads, M}));
    }
    if (M == 301) check::close(one, reference(rounded(part, 32, 32512.0f), M, t, {}), 3e-6, "301 rows");
  }
  set_num_threads(before);
}

TEST("linear() gives the same bits on all tiers with fused arithmetic") {
  const Using exact(Arithmetic::exact);
  Random random(5);
  for (const Case& c : cases()) {
    const auto t = check::make_weight(random, c.N, c.K, c.bits, c.group, c.dtype);
    const auto x = random.normals(size_t(7) * c.K);
    check::same_on_fused_tiers(name(c, "", 7), [&] { return run(x, 7, t.w, {}, Form::automatic); });
  }
}

TEST("embedding() gives the rows of the weight as float32 and refuses ids outside of it") {
  Random random(6);
  for (const Case& c : cases()) {
    const auto t = check::make_weight(random, c.N, c.K, c.bits, c.group, c.dtype);
    const std::vector<int> ids{0, c.N - 1, c.N / 2, 0};
    std::vector<double> want;
    for (int id : ids) want.insert(want.end(), t.exact.begin() + size_t(id) * c.K, t.exact.begin() + size_t(id + 1) * c.K);
    check::each_tier([&](const std::string& tier) {
      std::vector<float> out(ids.size() * c.K);
      embedding(ids.data(), int(ids.size()), t.w, out.data());
      check::close(out, want, 1.2e-7, name(c, tier, 4));
      for (int bad : {-1, c.N}) {
        bool refused = false;
        try {
          embedding(&bad, 1, t.w, out.data());
        } catch (const std::out_of_range&) {
          refused = true;
        }
        check::that(refused, "id " + std::to_string(bad) + " was accepted");
      }
    });
  }
}

TEST("validate() refuses weights that the kernels cannot read") {
  const auto refused = [](Weight w) {
    try {
      validate(w);
    } catch (const std::invalid_argument&) {
      return true;
    }
    return false;
  };
  const auto weight = [](int bits, int group, int rows, int cols) {
    Weight w;
    w.bits = bits;
    w.group = group;
    w.rows = rows;
    w.cols = cols;
    return w;
  };
  check::that(!refused(weight(4, 32, 8, 64)), "a good weight was refused");
  check::that(!refused(weight(0, 0, 8, 7)), "a good dense weight was refused");
  for (const Weight& w : {weight(7, 32, 8, 64), weight(1, 32, 8, 64), weight(4, 24, 8, 48), weight(4, 8, 8, 64),
                          weight(4, 64, 8, 96), weight(4, 0, 8, 64), weight(0, 0, 0, 64), weight(0, 0, 8, 0)})
    check::that(refused(w), check::text("accepted bits group rows cols", {w.bits, w.group, w.rows, w.cols}));
}
