#include <limits>

#include "check.h"

using namespace omlx::kernels;
using check::Random;

TEST("exp() is within 2 units in the last place, and exact at the ends") {
  std::vector<float> x;
  for (float v = -103.9f; v < 88.7f; v += 0.00137f) x.push_back(v);
  Random random(1);
  for (int i = 0; i < 20000; i++) x.push_back(random.normal() * 1e-3f);
  check::each_tier([&](const std::string& tier) {
    std::vector<float> out(x.size());
    exp(x.data(), x.size(), out.data());
    double worst = 0;
    for (size_t i = 0; i < x.size(); i++) {
      const double want = std::exp(double(x[i]));
      const float nearest = static_cast<float>(want);
      const double unit = double(std::nextafterf(nearest, INFINITY)) - nearest;
      worst = std::max(worst, std::fabs(out[i] - want) / unit);
    }
    check::that(worst <= 2.0, tier + ": worst error " + std::to_string(worst) + " units");
    const float inf = INFINITY;
    const std::vector<float> ends{0.0f, -0.0f, -inf, inf, -105.0f, 89.0f, NAN, 1e30f, -1e30f};
    std::vector<float> e(ends.size());
    exp(ends.data(), ends.size(), e.data());
    check::that(e[0] == 1 && e[1] == 1 && e[2] == 0 && e[3] == inf && e[4] == 0 && e[5] == inf &&
                    std::isnan(e[6]) && e[7] == inf && e[8] == 0,
                tier + ": wrong at the ends");
  });
}

TEST("exp() gives a number the same bits at every place of a vector") {
  Random random(2);
  const auto x = random.normals(67, 10.0f);
  check::each_tier([&](const std::string& tier) {
    std::vector<float> all(x.size()), one(x.size());
    exp(x.data(), x.size(), all.data());
    for (size_t i = 0; i < x.size(); i++) exp(&x[i], 1, &one[i]);
    check::same(all, one, tier);
  });
}

TEST("rms_norm() agrees with double precision, with and without a weight") {
  Random random(3);
  for (int E : {1, 7, 16, 33, 64, 576, 1030}) {
    for (int rows : {1, 3, 40}) {
      const auto x = random.normals(size_t(rows) * E, 3.0f);
      for (int kind = 0; kind < 4; kind++) {
        const auto w = check::make_floats(random.normals(E), kind == 0 ? DType::f32 : DType(kind - 1));
        std::vector<double> want;
        for (int r = 0; r < rows; r++) {
          double sum = 0;
          for (int i = 0; i < E; i++) sum += double(x[size_t(r) * E + i]) * x[size_t(r) * E + i];
          const double factor = 1 / std::sqrt(sum / E + 1e-5);
          for (int i = 0; i < E; i++) want.push_back(x[size_t(r) * E + i] * factor * (kind ? w.exact[i] : 1.0));
        }
        check::each_tier([&](const std::string& tier) {
          std::vector<float> out(x.size());
          rms_norm(x.data(), rows, E, kind ? Vector{w.bytes.data(), w.dtype} : Vector{}, 1e-5f, out.data());
          check::close(out, want, 1e-6, check::text((tier + " E rows kind").c_str(), {E, rows, kind}));
          std::vector<float> row(E);
          rms_norm(x.data() + size_t(rows - 1) * E, 1, E, kind ? Vector{w.bytes.data(), w.dtype} : Vector{}, 1e-5f, row.data());
          check::same(row, {out.end() - E, out.end()}, tier + ": a row alone");
        });
      }
    }
  }
}

TEST("rope() rotates by the table, in both pairings, and copies what is behind the rotated part") {
  Random random(4);
  for (int D : {8, 64, 80}) {
    for (int half : {D / 2, D / 4}) {
      const int T = 5, heads = 3;
      const auto x = random.normals(size_t(T) * heads * D);
      const std::vector<int> positions{0, 1, 17, 4095, 131071};
      std::vector<float> inv_freq(half);
      for (int i = 0; i < half; i++) inv_freq[i] = std::pow(10000.0f, -float(i) / half);
      std::vector<float> table(size_t(T) * half * 2);
      rope_table(positions.data(), T, inv_freq.data(), half, 1.5f, table.data());
      for (int traditional : {0, 1}) {
        std::vector<double> want;
        for (int t = 0; t < T; t++) {
          for (int h = 0; h < heads; h++) {
            const float* row = x.data() + (size_t(t) * heads + h) * D;
            std::vector<double> out(row, row + D);
            for (int i = 0; i < half; i++) {
              const double theta = static_cast<float>(positions[t]) * inv_freq[i];
              const int a = traditional ? 2 * i : i, b = traditional ? 2 * i + 1 : i + half;
              out[a] = 1.5 * (row[a] * std::cos(theta) - row[b] * std::sin(theta));
              out[b] = 1.5 * (row[b] * std::cos(theta) + row[a] * std::sin(theta));
            }
            want.insert(want.end(), out.begin(), out.end());
          }
        }
        check::each_tier([&](const std::string& tier) {
          std::vector<float> out(x.size());
          rope(x.data(), T, heads, D, table.data(), half, traditional, out.data());
          check::close(out, want, 2e-7, check::text((tier + " D half traditional").c_str(), {D, half, traditional}));
        });
      }
    }
  }
}

TEST("swiglu() agrees with double precision, also for extreme gates") {
  Random random(5);
  for (size_t n : {1, 16, 31, 1536, 9001}) {
    auto gate = random.normals(n, 5.0f);
    const auto up = random.normals(n);
    gate[0] = n % 2 ? -200.0f : 200.0f;
    std::vector<double> want;
    for (size_t i = 0; i < n; i++) want.push_back(gate[i] / (1 + std::exp(-double(gate[i]))) * up[i]);
    check::each_tier([&](const std::string& tier) {
      std::vector<float> out(n);
      swiglu(gate.data(), up.data(), n, out.data());
      check::close(out, want, 5e-7, tier + " n " + std::to_string(n));
    });
  }
}

TEST("element-wise kernels give the same bits on all tiers with fused arithmetic") {
  Random random(6);
  const auto x = random.normals(3 * 577, 4.0f), y = random.normals(3 * 577);
  check::same_on_fused_tiers("exp, swiglu and rms_norm", [&] {
    std::vector<float> e(x.size()), s(x.size()), r(x.size());
    exp(x.data(), x.size(), e.data());
    swiglu(x.data(), y.data(), x.size(), s.data());
    rms_norm(x.data(), 3, 577, {y.data(), DType::f32}, 1e-6f, r.data());
    e.insert(e.end(), s.begin(), s.end());
    e.insert(e.end(), r.begin(), r.end());
    return e;
  });
}
