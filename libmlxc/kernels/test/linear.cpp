#include <stdexcept>
#include "../threads.h"
#include "check.h"

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

std::vector<float> run(const std::vector<float>& x, int M, const Weight& w, Vector bias, Form form) {
  std::vector<float> out(size_t(M) * w.rows, -1.0f);
  linear(x.data(), M, w, bias, out.data(), form);
  return out;
}

}  // namespace

TEST("linear() agrees with double precision for every weight form, in both forms of the kernel") {
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

TEST("linear() adds a bias of any float type") {
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
  Random random(3);
  for (const Case& c : cases()) {
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
    if (M == 301) check::close(one, reference(part, M, t, {}), 3e-6, "301 rows");
  }
  set_num_threads(before);
}

TEST("linear() gives the same bits on the AVX2 and AVX-512 tiers") {
  Random random(5);
  const std::string before = tier();
  if (!set_tier("avx512")) return;
  for (const Case& c : cases()) {
    const auto t = check::make_weight(random, c.N, c.K, c.bits, c.group, c.dtype);
    const auto x = random.normals(size_t(7) * c.K);
    set_tier("avx512");
    const auto wide = run(x, 7, t.w, {}, Form::automatic);
    set_tier("avx2");
    check::same(run(x, 7, t.w, {}, Form::automatic), wide, name(c, "avx2", 7));
  }
  set_tier(before);
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
