#include <algorithm>
#include <numeric>

#include "../threads.h"
#include "check.h"

using namespace omlx::kernels;
using check::Random;

namespace {

struct Result {
  std::vector<RowStats> stats;
  std::vector<float> values;
  std::vector<int> ids;

  std::vector<float> lse() const {
    std::vector<float> all;
    for (const RowStats& s : stats) all.insert(all.end(), {s.max, s.lse, s.lse_at_temperature});
    return all;
  }
};

Result run(const std::vector<float>& logits, int rows, int k, const std::vector<float>& inv_temperature) {
  Result r{std::vector<RowStats>(rows), std::vector<float>(size_t(rows) * k), std::vector<int>(size_t(rows) * k)};
  candidates(logits.data(), rows, int(logits.size()) / rows, inv_temperature.data(), k, r.stats.data(), r.ids.data(),
             r.values.data());
  return r;
}

void compare(const std::vector<float>& logits, int rows, int k, const std::vector<float>& inv_temperature, const std::string& what) {
  const int V = int(logits.size()) / rows;
  const Result got = run(logits, rows, k, inv_temperature);
  for (int r = 0; r < rows; r++) {
    const float* x = logits.data() + size_t(r) * V;
    std::vector<int> order(V);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return x[a] > x[b]; });
    double sum = 0, warm = 0;
    for (int i = 0; i < V; i++) {
      sum += std::exp(double(x[i]) - x[order[0]]);
      warm += std::exp((double(x[i]) - x[order[0]]) * inv_temperature[r]);
    }
    check::that(got.stats[r].max == x[order[0]], what + ": maximum");
    const double want[2] = {x[order[0]] + std::log(sum), double(x[order[0]]) * inv_temperature[r] + std::log(warm)};
    const float found[2] = {got.stats[r].lse, got.stats[r].lse_at_temperature};
    for (int i = 0; i < 2; i++) {
      const double error = std::fabs(found[i] - want[i]);
      check::that(error <= 1e-6 * std::max(1.0, std::fabs(want[i])), what + ": log-sum-exp " + std::to_string(i));
    }
    for (int i = 0; i < k; i++) {
      const int id = i < V ? order[i] : -1;
      if (got.ids[size_t(r) * k + i] != id) return check::fail(what + ": candidate " + std::to_string(i));
      const float value = i < V ? x[order[i]] : -INFINITY;
      if (got.values[size_t(r) * k + i] != value) return check::fail(what + ": value " + std::to_string(i));
    }
  }
}

}  // namespace

TEST("candidates() finds the top k in order and the log-sum-exp of every row") {
  Random random(1);
  check::each_tier([&](const std::string& tier) {
    for (int V : {1, 5, 17, 256, 4096, 5000, 49152, 151936}) {
      for (int k : {1, 2, 256, 1024}) {
        const int rows = V > 10000 ? 1 : 3;
        compare(random.normals(size_t(rows) * V, 4.0f), rows, k, std::vector<float>(rows, 1.25f),
                check::text((tier + " V k").c_str(), {V, k}));
      }
    }
  });
}

TEST("candidates() orders equal logits by id, also when nearly all are equal") {
  Random random(2);
  check::each_tier([&](const std::string& tier) {
    std::vector<float> few(20000), flat(20000, 0.5f), rising(20000), spiky(20000, -50.0f);
    for (float& x : few) x = float(random.below(40));
    for (size_t i = 0; i < rising.size(); i++) rising[i] = float(i) * 0.01f;
    for (int i = 4096; i < 4096 + 300; i++) spiky[i] = float(i % 7);  // the best ones side by side
    for (int k : {1, 100, 1000}) {
      compare(few, 1, k, {1.0f}, tier + " few values");
      compare(flat, 1, k, {0.5f}, tier + " one value");
      compare(rising, 1, k, {2.0f}, tier + " rising");
      compare(spiky, 1, k, {1.0f}, tier + " spiky");
    }
  });
}

TEST("candidates() accepts -inf logits and reports rows with NaN, +inf or nothing finite") {
  Random random(3);
  check::each_tier([&](const std::string& tier) {
    auto x = random.normals(3 * 5000);
    for (int i = 0; i < 5000; i += 2) x[5000 + i] = -INFINITY;
    std::vector<float> masked(5000, -INFINITY);
    masked[77] = 1.0f;
    masked[4999] = 2.0f;
    compare(x, 3, 50, {1, 1, 1}, tier + " half masked");
    compare(masked, 1, 50, {1}, tier + " two left");
    const Result clean = run(x, 3, 5, {1, 1, 1});
    for (float bad : {NAN, INFINITY}) {
      for (int at : {0, 2500, 4999}) {
        auto y = x;
        y[5000 + at] = bad;
        const Result spoilt = run(y, 3, 5, {1, 1, 1});
        check::that(std::isnan(spoilt.stats[1].lse) && spoilt.ids[5] == -1, tier + ": row 1 was not reported");
        for (int r : {0, 2}) {
          check::that(spoilt.stats[r].lse == clean.stats[r].lse && spoilt.ids[size_t(r) * 5] == clean.ids[size_t(r) * 5],
                      tier + ": a neighbour was spoilt");
        }
      }
    }
    const Result nothing = run(std::vector<float>(100, -INFINITY), 1, 5, {1});
    check::that(std::isnan(nothing.stats[0].lse), tier + ": an empty row was accepted");
  });
}

TEST("candidates() gives the same bits for any thread count and number of rows") {
  Random random(4);
  const int V = 50000, before = num_threads();
  const auto x = random.normals(4 * size_t(V), 3.0f);
  set_num_threads(1);
  const Result all = run(x, 4, 64, {1, 0.7f, 1.3f, 2});
  for (int threads : {2, 3}) {
    set_num_threads(threads);
    const Result again = run(x, 4, 64, {1, 0.7f, 1.3f, 2});
    check::same(again.lse(), all.lse(), "log-sum-exp");
    check::that(again.ids == all.ids, "ids");
  }
  const Result row = run({x.begin() + V, x.begin() + 2 * V}, 1, 64, {0.7f});
  const auto lse = all.lse();
  check::same(row.lse(), {lse.begin() + 3, lse.begin() + 6}, "a row alone");
  set_num_threads(before);
}
