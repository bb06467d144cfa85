// The layers of a decoder: what stands between its embedding and its head.
#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>

#include "kernels.h"
#include "scratch.h"

namespace omlx::kernels {

namespace {

/// Rows of an MLP that are computed at a time: bounds the memory between its layers.
constexpr int MLP_ROWS = 512;

Activations& activations() {
  static thread_local Activations shared;
  return shared;
}

/// The RMS norm of rows of x, in memory that lives until the next call of this thread.
const float* normed(const float* x, int rows, int E, Vector norm, float eps) {
  static thread_local Scratch space;
  float* out = space.reserve(size_t(rows) * size_t(E));
  rms_norm(x, rows, E, norm, eps, out);
  return out;
}

/// x = x + linear(input)
void add_linear(const float* input, int rows, const Linear& layer, float* x) {
  activations().reset(input, rows, layer.w.cols);
  const Projection p{layer.w, layer.bias, x, x};
  linear(activations(), {&p, 1});
}

struct Step {
  int T, E;
  std::span<const RotaryTable> tables;
  KvPool& pool;
  std::span<const Span> spans;
  std::span<const int> blocks;
};

void run(const AttentionPart& part, const Step& step, float* x) {
  static thread_local Scratch space;
  const size_t T = size_t(step.T), width = size_t(part.q.w.rows), kv_width = size_t(part.k.w.rows);
  float* const q = space.reserve(2 * T * (width + kv_width));
  float *const k = q + T * width, *const v = k + T * kv_width, *const mixed = v + T * kv_width;
  activations().reset(normed(x, step.T, step.E, part.norm, part.eps), step.T, step.E);
  const std::array projections{Projection{part.q.w, part.q.bias, nullptr, q}, Projection{part.k.w, part.k.bias, nullptr, k},
                               Projection{part.v.w, part.v.bias, nullptr, v}};
  linear(activations(), projections);
  const RotaryTable table = step.tables[size_t(part.table)];
  const RowPreparation rows{part.q_norm, part.k_norm, part.eps, table.data, table.half, part.traditional};
  attention(q, k, v, step.T, part.q.w.rows / step.pool.head_dim, rows, step.pool, part.layer, step.spans, step.blocks,
            part.scale, mixed);
  add_linear(mixed, step.T, part.o, x);
}

void run(const MlpPart& part, const Step& step, float* x) {
  static thread_local Scratch space;
  const int hidden = part.gate.w.rows;
  const size_t most = size_t(std::min(step.T, MLP_ROWS)) * size_t(hidden);
  float *const gate = space.reserve(2 * most), *const up = gate + most;
  for (int from = 0; from < step.T; from += MLP_ROWS) {
    const int rows = std::min(MLP_ROWS, step.T - from);
    float* const at = x + size_t(from) * size_t(step.E);
    activations().reset(normed(at, rows, step.E, part.norm, part.eps), rows, step.E);
    const std::array projections{Projection{part.gate.w, part.gate.bias, nullptr, gate},
                                 Projection{part.up.w, part.up.bias, nullptr, up}};
    linear(activations(), projections);
    swiglu(gate, up, size_t(rows) * size_t(hidden), gate);
    add_linear(gate, rows, part.down, at);
  }
}

void expect(bool holds, const char* text) {
  if (!holds) throw std::invalid_argument(text);
}

void check(const AttentionPart& part, int E, int num_tables, const KvPool& pool) {
  const int width = pool.kv_heads * pool.head_dim;
  expect(part.q.w.cols == E && part.k.w.cols == E && part.v.w.cols == E, "q, k and v must have E columns");
  expect(part.k.w.rows == width && part.v.w.rows == width, "k and v must have the pool's heads as rows");
  expect(part.q.w.rows % width == 0, "q must have a multiple of the pool's heads as rows");
  expect(part.o.w.rows == E && part.o.w.cols == part.q.w.rows, "o must be (E, H*D)");
  expect(part.layer >= 0 && part.layer < pool.layers, "the pool has no such layer");
  expect(part.table >= 0 && part.table < num_tables, "there is no such rotary table");
}

void check(const MlpPart& part, int E, int, const KvPool&) {
  expect(part.gate.w.cols == E && part.up.w.cols == E, "gate and up must have E columns");
  expect(part.up.w.rows == part.gate.w.rows, "gate and up must have equally many rows");
  expect(part.down.w.rows == E && part.down.w.cols == part.gate.w.rows, "down must be (E, rows of gate)");
}

}  // namespace

void validate(const DecoderPart& part, int E, int num_tables, const KvPool& pool) {
  std::visit([&](const auto& p) { check(p, E, num_tables, pool); }, part);
}

void decode(const float* x, int T, int E, std::span<const DecoderPart> parts, std::span<const RotaryTable> tables, KvPool& pool,
            std::span<const Span> spans, std::span<const int> blocks, float* out) {
  if (out != x) std::memcpy(out, x, size_t(T) * size_t(E) * sizeof(float));
  const Step step{T, E, tables, pool, spans, blocks};
  for (const DecoderPart& part : parts) std::visit([&](const auto& p) { run(p, step, out); }, part);
}

}  // namespace omlx::kernels
