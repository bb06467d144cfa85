// Linear layers and embeddings: choice of form and division among threads.
#include <algorithm>
#include <stdexcept>

#include "scratch.h"
#include "threads.h"
#include "tier.h"

namespace omlx::kernels {
namespace {

constexpr size_t L2_FLOATS = 96 * 1024;  // of x kept in L2 by one GEMM item: 384 KiB
constexpr int PANEL_ROWS = 16;

void matvec_form(const Tier& tier, const LinearJob& job) {
  const int N = job.w->rows;
  // Chunks of about 16k weights: small enough to balance, large enough to claim.
  int chunk = std::max(1, 16384 / std::max(1, job.w->cols));
  chunk = (chunk + tier.tile_n - 1) / tier.tile_n * tier.tile_n;
  for (int m = 0; m < job.M; m += MATVEC_ROWS) {
    LinearJob part = job;
    part.x += size_t(m) * job.w->cols;
    part.out += size_t(m) * N;
    part.M = std::min(MATVEC_ROWS, job.M - m);
    parallel(size_t((N + chunk - 1) / chunk), [&](int, size_t i) {
      const int n0 = int(i) * chunk;
      tier.matvec(part, n0, std::min(N, n0 + chunk));
    });
  }
}

void gemm_form(const Tier& tier, const LinearJob& job) {
  static thread_local Scratch scratch;
  const int N = job.w->rows, K = job.w->cols;
  const size_t panel_floats = (PANEL_ROWS + 8) * panel_stride(K);
  float* const panels = scratch.reserve(panel_floats * num_threads());
  const int rows_fit = int(std::clamp<size_t>(L2_FLOATS / std::max(1, K), 24, 240)) / 6 * 6;
  const int blocks = (job.M + rows_fit - 1) / rows_fit;
  const int rows = (job.M + blocks - 1) / blocks;
  const int columns = (N + PANEL_ROWS - 1) / PANEL_ROWS;
  parallel(size_t(blocks) * columns, [&](int thread, size_t i) {
    const int m0 = int(i / columns) * rows, n0 = int(i % columns) * PANEL_ROWS;
    const int m1 = std::min(job.M, m0 + rows), n1 = std::min(N, n0 + PANEL_ROWS);
    if (m0 < m1) tier.gemm(job, m0, m1, n0, n1, panels + panel_floats * thread);
  });
}

}  // namespace

void validate(const Weight& w) {
  const auto fail = [](const std::string& text) { throw std::invalid_argument(text); };
  if (w.rows < 1 || w.cols < 1) fail("a weight needs at least one row and one column");
  if (w.bits == 0) return;
  if (w.bits != 8 && (w.bits < 2 || w.bits > 6))
    fail("bits must be 0, 2, 3, 4, 5, 6 or 8, got " + std::to_string(w.bits));
  if (w.group < 16 || w.group % 16 != 0)
    fail("group size must be a multiple of 16, got " + std::to_string(w.group));
  if (w.cols % w.group != 0)
    fail("columns (" + std::to_string(w.cols) + ") must be a multiple of the group size (" +
         std::to_string(w.group) + ")");
}

void linear(const float* x, int M, const Weight& w, Vector bias, float* out, Form form) {
  const Tier& tier = active_tier();
  const LinearJob job{x, M, &w, bias, out};
  if (M <= 0) return;
  if (form == Form::matvec || (form == Form::automatic && M <= MATVEC_ROWS)) matvec_form(tier, job);
  else gemm_form(tier, job);
}

void embedding(const int* ids, int T, const Weight& w, float* out) {
  const Tier& tier = active_tier();
  for (int t = 0; t < T; t++) {
    if (ids[t] < 0 || ids[t] >= w.rows)
      throw std::out_of_range("token id " + std::to_string(ids[t]) + " is outside the vocabulary of " +
                              std::to_string(w.rows));
    tier.dequantize(w, ids[t], out + size_t(t) * w.cols);
  }
}

}  // namespace omlx::kernels
