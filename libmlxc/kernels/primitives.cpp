// MLX primitives over the kernels, and the C functions that make them.
//
// eval_cpu runs on the thread that evaluates and only allocates the output; the work is dispatched to
// the stream's thread, in evaluation order. MLX keeps inputs and outputs alive until it has run.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../src/internal.h"
#include "kernels.h"
#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/device.h"
#include "mlx/ops.h"
#include "mlx/primitives.h"
#include "omlxc_kernels.h"
#include "scratch.h"
#include "threads.h"

namespace mx = mlx::core;
namespace k = omlx::kernels;

namespace {

using Arrays = std::vector<mx::array>;

/// Copies `from` to row-major `to`; element size 1, 2, 4 or 8.
void copy_strided(const char* from, const mx::Shape& shape, const mx::Strides& strides, size_t axis,
                  size_t item, char*& to) {
  if (axis == shape.size()) {
    std::copy_n(from, item, to);
    to += item;
    return;
  }
  for (int i = 0; i < shape[axis]; i++)
    copy_strided(from + i * strides[axis] * static_cast<int64_t>(item), shape, strides, axis + 1, item, to);
}

/// The data of an input, row-contiguous.
const void* contiguous(const mx::array& a, mx::cpu::CommandEncoder& encoder) {
  if (a.flags().row_contiguous) return a.data<char>();
  mx::array copy(a.shape(), a.dtype(), nullptr, {});
  copy.set_data(mx::allocator::malloc(copy.nbytes()));
  encoder.add_temporary(copy);
  encoder.dispatch([from = a.data<char>(), to = copy.data<char>(), shape = a.shape(),
                    strides = a.strides(), item = a.itemsize()] {
    char* end = to;
    copy_strided(from, shape, strides, 0, item, end);
  });
  return copy.data<char>();
}

/// An operation with one float32 output. `run` gets row-contiguous inputs.
class Kernel final : public mx::Primitive {
 public:
  using Run = std::function<void(const std::vector<const void*>& in, float* out)>;

  Kernel(mx::Stream stream, const char* name, Run run)
      : Primitive(stream), name_(name), run_(std::move(run)) {}

  void eval_cpu(const Arrays& inputs, Arrays& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    mx::array& out = outputs[0];
    out.set_data(mx::allocator::malloc(out.nbytes()));
    std::vector<const void*> in;
    in.reserve(inputs.size());
    for (const mx::array& a : inputs) in.push_back(contiguous(a, encoder));
    encoder.dispatch([run = run_, in = std::move(in), to = out.data<float>()] { run(in, to); });
  }

  void eval_gpu(const Arrays&, Arrays&) override {
    throw std::runtime_error(std::string(name_) + " runs on the CPU only; use the stock operations on a GPU");
  }

  const char* name() const override { return name_; }

 private:
  const char* name_;
  Run run_;
};

const mx::array& ref(void* handle, const char* what) {
  if (!handle) throw std::invalid_argument(std::string(what) + " is null");
  return *static_cast<mx::array*>(handle);
}

std::string shape_text(const mx::array& a) {
  std::string text = "(";
  for (size_t i = 0; i < a.ndim(); i++) text += (i ? ", " : "") + std::to_string(a.shape()[i]);
  return text + ")";
}

void expect(bool holds, const char* what, const mx::array& a) {
  if (!holds) throw std::invalid_argument(std::string(what) + ", got shape " + shape_text(a));
}

bool is_float(mx::Dtype t) { return t == mx::float32 || t == mx::float16 || t == mx::bfloat16; }

k::DType dtype_of(const mx::array& a, const char* what) {
  if (a.dtype() == mx::float32) return k::DType::f32;
  if (a.dtype() == mx::float16) return k::DType::f16;
  if (a.dtype() == mx::bfloat16) return k::DType::bf16;
  throw std::invalid_argument(std::string(what) + " must be float32, float16 or bfloat16");
}

/// Activations as float32.
mx::array activations(void* handle, const char* what) {
  const mx::array& a = ref(handle, what);
  if (a.dtype() == mx::float32) return a;
  if (!is_float(a.dtype())) throw std::invalid_argument(std::string(what) + " must have a float type");
  return mx::astype(a, mx::float32);
}

mx::array int32s(void* handle, const char* what) {
  const mx::array& a = ref(handle, what);
  if (a.dtype() == mx::int32) return a;
  if (!mx::issubdtype(a.dtype(), mx::integer)) throw std::invalid_argument(std::string(what) + " must be int32");
  return mx::astype(a, mx::int32);
}

mx::array make(mx::Shape shape, const char* name, Arrays inputs, Kernel::Run run) {
  auto kernel = std::make_shared<Kernel>(mx::default_stream(mx::default_device()), name, std::move(run));
  return mx::array(std::move(shape), mx::float32, std::move(kernel), std::move(inputs));
}

/// Runs f and hands out the array it returns; an exception becomes the error text and NULL.
template <class F>
void* guarded(const char* name, F&& f) {
  try {
    return omlx::give(new mx::array(f()));
  } catch (const std::exception& e) {
    omlx::set_error((std::string(name) + ": " + e.what()).c_str());
  } catch (...) {
    omlx::set_error((std::string(name) + ": unknown error").c_str());
  }
  return nullptr;
}

/// A weight without its pointers, and its arrays appended to inputs: w, then scales and biases.
k::Weight weight(void* w_handle, void* scales_handle, void* biases_handle, int bits, int group, Arrays& inputs) {
  const mx::array& w = ref(w_handle, "w");
  expect(w.ndim() == 2, "w must have two axes", w);
  k::Weight out;
  out.bits = bits;
  out.group = group;
  out.rows = w.shape(0);
  inputs.push_back(w);
  if (bits == 0) {
    out.dtype = dtype_of(w, "w");
    out.cols = w.shape(1);
  } else {
    const mx::array& scales = ref(scales_handle, "scales");
    const mx::array& biases = ref(biases_handle, "biases");
    if (w.dtype() != mx::uint32) throw std::invalid_argument("w must be uint32 when bits is not 0");
    if (scales.dtype() != biases.dtype()) throw std::invalid_argument("scales and biases must have one type");
    out.dtype = dtype_of(scales, "scales");
    expect(scales.ndim() == 2 && scales.shape(0) == out.rows, "scales must be (N, K/group_size)", scales);
    expect(biases.shape() == scales.shape(), "biases must have the shape of scales", biases);
    out.cols = scales.shape(1) * group;
    expect(int64_t(w.shape(1)) * 32 == int64_t(out.cols) * bits, "w must be (N, K*bits/32)", w);
    inputs.push_back(scales);
    inputs.push_back(biases);
  }
  k::validate(out);
  return out;
}

/// Fills in the pointers from the inputs at `first`; returns the index behind them.
size_t point(k::Weight& w, const std::vector<const void*>& in, size_t first) {
  w.data = in[first];
  if (w.bits == 0) return first + 1;
  w.scales = in[first + 1];
  w.biases = in[first + 2];
  return first + 3;
}

struct Batch {
  std::vector<k::Span> spans;
  std::vector<int> blocks;
};

/// A linear layer whose arrays are evaluated and stay where they are; packed where integer kernels will read it.
struct Layer {
  Arrays arrays;
  k::Weight w;
  k::Vector bias;
  std::optional<k::PackedWeight> packed;
};

/// Parts of a decoder, and what they point into.
struct Stack {
  std::vector<k::DecoderPart> parts;
  std::vector<std::shared_ptr<const Layer>> layers;
  Arrays vectors;
  int head_dim = 0;  // of the norms of heads; 0: there are none
};

k::Activations& shared_activations() {
  static thread_local k::Activations activations;
  return activations;
}

// A pool or batch handle is a pointer to a shared_ptr; graphs hold copies of the shared_ptr.
using LayerHandle = std::shared_ptr<const Layer>;
using StackHandle = std::shared_ptr<Stack>;
using PoolHandle = std::shared_ptr<k::KvPool>;
using BatchHandle = std::shared_ptr<const Batch>;

/// Makes the elements stay where they are for as long as the array lives; their address.
const void* settle(mx::array& a) {
  a = mx::contiguous(a);
  a.eval();
  return a.data<char>();
}

/// Adds a part to a stack; 0, or -1 for an error.
template <class F>
int extend(void* stack_handle, F&& make_part) {
  try {
    if (!stack_handle) throw std::invalid_argument("stack is null");
    Stack& stack = **static_cast<StackHandle*>(stack_handle);
    const auto linear = [&](void* handle, const char* what) {
      if (!handle) throw std::invalid_argument(std::string(what) + " is null");
      const Layer& layer = *stack.layers.emplace_back(*static_cast<LayerHandle*>(handle));
      return k::Linear{layer.w, layer.bias};
    };
    const auto vector = [&](void* handle, const char* what, int size) {
      k::Vector v;
      if (!handle) return v;
      mx::array a = ref(handle, what);
      if (a.ndim() != 1 || a.shape(0) != size)
        throw std::invalid_argument(std::string(what) + " must have " + std::to_string(size) + " elements, got shape " + shape_text(a));
      v.dtype = dtype_of(a, what);
      v.data = settle(a);
      stack.vectors.push_back(std::move(a));
      return v;
    };
    stack.parts.push_back(make_part(stack, linear, vector));
    return 0;
  } catch (const std::exception& e) {
    omlx::set_error((std::string("stack: ") + e.what()).c_str());
  }
  return -1;
}

void* handle_at(const double* handles, int i) { return reinterpret_cast<void*>(static_cast<uintptr_t>(handles[i])); }

}  // namespace

extern "C" {

void* omlx_x_embedding(void* ids_handle, void* w_handle, void* scales, void* biases, int bits, int group_size) {
  return guarded("embedding", [&] {
    const mx::array ids = int32s(ids_handle, "ids");
    expect(ids.ndim() == 1, "ids must have one axis", ids);
    Arrays inputs{ids};
    const k::Weight w = weight(w_handle, scales, biases, bits, group_size, inputs);
    const int rows = ids.shape(0);
    return make({rows, w.cols}, "omlx_x_embedding", std::move(inputs),
                [w, rows](const std::vector<const void*>& in, float* out) {
                  k::Weight bound = w;
                  point(bound, in, 1);
                  k::embedding(static_cast<const int*>(in[0]), rows, bound, out);
                });
  });
}

void* omlx_x_rms_norm(void* x_handle, void* w_handle, float eps) {
  return guarded("rms_norm", [&] {
    const mx::array x = activations(x_handle, "x");
    expect(x.ndim() >= 1 && x.shape(-1) > 0, "x needs a last axis", x);
    const int E = x.shape(-1);
    Arrays inputs{x};
    k::Vector w;
    if (w_handle) {
      const mx::array& a = ref(w_handle, "w");
      expect(a.ndim() == 1 && a.shape(0) == E, "w must be (E)", a);
      w.dtype = dtype_of(a, "w");
      inputs.push_back(a);
    }
    const int rows = static_cast<int>(x.size() / static_cast<size_t>(E));
    return make(x.shape(), "omlx_x_rms_norm", std::move(inputs),
                [w, rows, E, eps](const std::vector<const void*>& in, float* out) {
                  k::Vector bound = w;
                  if (in.size() > 1) bound.data = in[1];
                  k::rms_norm(static_cast<const float*>(in[0]), rows, E, bound, eps, out);
                });
  });
}

void* omlx_x_rope_table(void* positions_handle, void* inv_freq_handle, float scale) {
  return guarded("rope_table", [&] {
    const mx::array positions = int32s(positions_handle, "positions");
    const mx::array inv_freq = activations(inv_freq_handle, "inv_freq");
    expect(positions.ndim() == 1, "positions must have one axis", positions);
    expect(inv_freq.ndim() == 1, "inv_freq must have one axis", inv_freq);
    const int rows = positions.shape(0), half = inv_freq.shape(0);
    return make({rows, half, 2}, "omlx_x_rope_table", {positions, inv_freq},
                [rows, half, scale](const std::vector<const void*>& in, float* out) {
                  k::rope_table(static_cast<const int*>(in[0]), rows, static_cast<const float*>(in[1]), half,
                                scale, out);
                });
  });
}

void* omlx_x_rope(void* x_handle, void* table_handle, int num_heads, int traditional) {
  return guarded("rope", [&] {
    const mx::array x = activations(x_handle, "x");
    const mx::array table = activations(table_handle, "table");
    expect(x.ndim() == 2 && num_heads > 0 && x.shape(1) % num_heads == 0, "x must be (T, H*D)", x);
    const int rows = x.shape(0), D = x.shape(1) / num_heads;
    expect(table.ndim() == 3 && table.shape(0) == rows && table.shape(2) == 2 && table.shape(1) * 2 <= D,
           "table must be (T, d/2, 2) with d <= D", table);
    const int half = table.shape(1);
    return make(x.shape(), "omlx_x_rope", {x, table},
                [=](const std::vector<const void*>& in, float* out) {
                  k::rope(static_cast<const float*>(in[0]), rows, num_heads, D,
                          static_cast<const float*>(in[1]), half, traditional != 0, out);
                });
  });
}

void* omlx_layer_new(void* w_handle, void* scales, void* biases, void* bias_handle, int bits, int group_size) {
  try {
    auto layer = std::make_shared<Layer>();
    layer->w = weight(w_handle, scales, biases, bits, group_size, layer->arrays);
    if (bias_handle) {
      const mx::array& b = ref(bias_handle, "bias");
      expect(b.ndim() == 1 && b.shape(0) == layer->w.rows, "bias must be (N)", b);
      layer->bias.dtype = dtype_of(b, "bias");
      layer->arrays.push_back(b);
    }
    std::vector<const void*> data;
    for (mx::array& a : layer->arrays) data.push_back(settle(a));
    const size_t next = point(layer->w, data, 0);
    if (bias_handle) layer->bias.data = data[next];
    if (k::arithmetic() != k::Arithmetic::exact && k::PackedWeight::possible(layer->w)) {
      layer->packed.emplace(layer->w);
      layer->w.packed = layer->packed->data();
    }
    return new LayerHandle(std::move(layer));
  } catch (const std::exception& e) {
    omlx::set_error((std::string("layer_new: ") + e.what()).c_str());
  }
  return nullptr;
}

void omlx_layer_free(void* layer) { delete static_cast<LayerHandle*>(layer); }

void* omlx_x_linear(void* x_handle, void* layer_handle) {
  return guarded("linear", [&] {
    if (!layer_handle) throw std::invalid_argument("layer is null");
    const mx::array x = activations(x_handle, "x");
    const LayerHandle layer = *static_cast<LayerHandle*>(layer_handle);
    expect(x.ndim() >= 1 && x.shape(-1) == layer->w.cols, "the last axis of x must be K", x);
    mx::Shape shape = x.shape();
    shape.back() = layer->w.rows;
    const int rows = static_cast<int>(x.size() / static_cast<size_t>(layer->w.cols));
    return make(std::move(shape), "omlx_x_linear", {x}, [layer, rows](const std::vector<const void*>& in, float* out) {
      k::Activations& a = shared_activations();
      a.reset(static_cast<const float*>(in[0]), rows, layer->w.cols);
      const k::Projection p{layer->w, layer->bias, nullptr, out};
      k::linear(a, {&p, 1});
    });
  });
}

void* omlx_stack_new(void) { return new StackHandle(std::make_shared<Stack>()); }

void omlx_stack_free(void* stack) { delete static_cast<StackHandle*>(stack); }

int omlx_stack_attention(void* stack_handle, void* norm, void* q_norm, void* k_norm, const double* layers, int layer, int table,
                         int traditional, float eps, float scale) {
  return extend(stack_handle, [&](Stack& stack, const auto& linear, const auto& vector) {
    k::AttentionPart part;
    part.eps = eps;
    part.q = linear(handle_at(layers, 0), "q");
    part.norm = vector(norm, "norm", part.q.w.cols);
    part.k = linear(handle_at(layers, 1), "k");
    part.v = linear(handle_at(layers, 2), "v");
    part.o = linear(handle_at(layers, 3), "o");
    const auto head_norm = [&](void* handle, const char* what) {
      if (handle && stack.head_dim == 0) stack.head_dim = static_cast<int>(ref(handle, what).size());
      return vector(handle, what, stack.head_dim);
    };
    part.q_norm = head_norm(q_norm, "q_norm");
    part.k_norm = head_norm(k_norm, "k_norm");
    part.traditional = traditional != 0;
    part.table = table;
    part.layer = layer;
    part.scale = scale;
    return part;
  });
}

int omlx_stack_mlp(void* stack_handle, void* norm, void* gate, void* up, void* down, float eps) {
  return extend(stack_handle, [&](Stack&, const auto& linear, const auto& vector) {
    k::MlpPart part{{}, eps, linear(gate, "gate"), linear(up, "up"), linear(down, "down")};
    part.norm = vector(norm, "norm", part.gate.w.cols);
    return part;
  });
}

void* omlx_x_stack(void* x_handle, void* stack_handle, const double* tables, int n_tables, void* pool_handle,
                   void* batch_handle) {
  return guarded("stack", [&] {
    if (!stack_handle || !pool_handle || !batch_handle) throw std::invalid_argument("stack, pool or batch is null");
    const StackHandle stack = *static_cast<StackHandle*>(stack_handle);
    const PoolHandle pool = *static_cast<PoolHandle*>(pool_handle);
    const BatchHandle batch = *static_cast<BatchHandle*>(batch_handle);
    Arrays inputs{activations(x_handle, "x")};
    const mx::array& x = inputs[0];
    expect(x.ndim() == 2 && x.shape(1) > 0, "x must be (T, E)", x);
    const int rows = x.shape(0), E = x.shape(1);
    if (stack->head_dim != 0 && stack->head_dim != pool->head_dim)
      throw std::invalid_argument("norms of heads have " + std::to_string(stack->head_dim) + " elements, the pool's heads " + std::to_string(pool->head_dim));
    for (const k::DecoderPart& part : stack->parts) k::validate(part, E, n_tables, *pool);
    k::validate(batch->spans, batch->blocks, rows, *pool);
    std::vector<int> halves;
    for (int i = 0; i < n_tables; i++) {
      const mx::array table = activations(handle_at(tables, i), "table");
      expect(table.ndim() == 3 && table.shape(0) == rows && table.shape(2) == 2 && table.shape(1) * 2 <= pool->head_dim,
             "a table must be (T, d/2, 2) with d <= D", table);
      halves.push_back(table.shape(1));
      inputs.push_back(table);
    }
    mx::Shape shape = inputs[0].shape();
    return make(std::move(shape), "omlx_x_stack", std::move(inputs),
                [stack, pool, batch, rows, E, halves](const std::vector<const void*>& in, float* out) {
                  std::vector<k::RotaryTable> rotary;
                  for (size_t i = 0; i < halves.size(); i++) rotary.push_back({static_cast<const float*>(in[1 + i]), halves[i]});
                  k::decode(static_cast<const float*>(in[0]), rows, E, stack->parts, rotary, *pool, batch->spans,
                            batch->blocks, out);
                });
  });
}

void* omlx_pool_new(int layers, int num_blocks, int block_tokens, int kv_heads, int head_dim) {
  try {
    return new PoolHandle(std::make_shared<k::KvPool>(layers, num_blocks, block_tokens, kv_heads, head_dim));
  } catch (const std::bad_alloc&) {
    omlx::set_error("pool_new: the address space for the key/value pool cannot be reserved");
  } catch (const std::exception& e) {
    omlx::set_error((std::string("pool_new: ") + e.what()).c_str());
  }
  return nullptr;
}

void omlx_pool_free(void* pool) { delete static_cast<PoolHandle*>(pool); }

double omlx_pool_bytes(void* pool) {
  return pool ? static_cast<double>((*static_cast<PoolHandle*>(pool))->bytes()) : 0.0;
}

void* omlx_batch_new(const int* spans, int n_spans, const int* blocks, int n_blocks) {
  try {
    auto batch = std::make_shared<Batch>();
    for (int i = 0; i < n_spans; i++)
      batch->spans.push_back({spans[4 * i], spans[4 * i + 1], spans[4 * i + 2], spans[4 * i + 3]});
    if (n_blocks > 0) batch->blocks.assign(blocks, blocks + n_blocks);
    return new BatchHandle(std::move(batch));
  } catch (const std::exception& e) {
    omlx::set_error((std::string("batch_new: ") + e.what()).c_str());
  }
  return nullptr;
}

void omlx_batch_free(void* batch) { delete static_cast<BatchHandle*>(batch); }

void* omlx_x_candidates(void* logits_handle, void* inv_temperature_handle, int top) {
  return guarded("candidates", [&] {
    const mx::array logits = activations(logits_handle, "logits");
    const mx::array inverse = activations(inv_temperature_handle, "inv_temperature");
    expect(logits.ndim() == 2 && logits.shape(1) > 0, "logits must be (R, V)", logits);
    const int rows = logits.shape(0), vocab = logits.shape(1);
    expect(inverse.ndim() == 1 && inverse.shape(0) == rows, "inv_temperature must be (R)", inverse);
    if (top < 1 || top > 1024) throw std::invalid_argument("k must be 1 to 1024, got " + std::to_string(top));
    return make({rows, 3 + 2 * top}, "omlx_x_candidates", {logits, inverse},
                [=](const std::vector<const void*>& in, float* out) {
                  const size_t R = size_t(rows), k_ = size_t(top);
                  std::vector<k::RowStats> stats(R);
                  std::vector<int> ids(R * k_);
                  std::vector<float> values(R * k_);
                  k::candidates(static_cast<const float*>(in[0]), rows, vocab, static_cast<const float*>(in[1]), top,
                                stats.data(), ids.data(), values.data());
                  static_assert(sizeof(k::RowStats) == 3 * sizeof(float) && sizeof(int) == sizeof(float));
                  for (size_t r = 0; r < R; r++, out += 3 + 2 * k_) {
                    std::memcpy(out, &stats[r], sizeof stats[r]);
                    std::memcpy(out + 3, &values[r * k_], k_ * sizeof(float));
                    std::memcpy(out + 3 + k_, &ids[r * k_], k_ * sizeof(int));
                  }
                });
  });
}

void* omlx_x_layer_norm(void* x_handle, void* residual_handle, void* w_handle, void* b_handle, float eps) {
  return guarded("layer_norm", [&] {
    const mx::array x = activations(x_handle, "x");
    expect(x.ndim() >= 1 && x.shape(-1) > 0, "x needs a last axis", x);
    const int E = x.shape(-1);
    Arrays inputs{x};
    const bool has_residual = residual_handle != nullptr;
    if (has_residual) {
      inputs.push_back(activations(residual_handle, "residual"));
      expect(inputs.back().shape() == x.shape(), "residual must have the shape of x", inputs.back());
    }
    k::Vector w, b;
    const auto vector = [&](void* handle, const char* name, k::Vector& v) {
      if (!handle) return;
      const mx::array& a = ref(handle, name);
      expect(a.ndim() == 1 && a.shape(0) == E, "w and b must be (E)", a);
      v.dtype = dtype_of(a, name);
      inputs.push_back(a);
    };
    vector(w_handle, "w", w);
    vector(b_handle, "b", b);
    const bool has_w = w_handle != nullptr, has_b = b_handle != nullptr;
    const int rows = static_cast<int>(x.size() / static_cast<size_t>(E));
    return make(x.shape(), "omlx_x_layer_norm", std::move(inputs),
                [=](const std::vector<const void*>& in, float* out) {
                  size_t next = 1;
                  const auto* residual = has_residual ? static_cast<const float*>(in[next++]) : nullptr;
                  k::Vector weight = w, bias = b;
                  if (has_w) weight.data = in[next++];
                  if (has_b) bias.data = in[next];
                  k::layer_norm(static_cast<const float*>(in[0]), residual, rows, E, weight, bias, eps, out);
                });
  });
}

void* omlx_x_activate(int activation, void* x_handle, void* up_handle) {
  return guarded("activate", [&] {
    if (activation < 0 || activation > static_cast<int>(k::Activation::relu))
      throw std::invalid_argument("there is no activation " + std::to_string(activation));
    const mx::array x = activations(x_handle, "x");
    Arrays inputs{x};
    if (up_handle) {
      inputs.push_back(activations(up_handle, "up"));
      expect(inputs.back().shape() == x.shape(), "up must have the shape of x", inputs.back());
    }
    return make(x.shape(), "omlx_x_activate", std::move(inputs),
                [n = x.size(), kind = static_cast<k::Activation>(activation)](const std::vector<const void*>& in, float* out) {
                  const auto* up = in.size() > 1 ? static_cast<const float*>(in[1]) : nullptr;
                  k::activate(kind, static_cast<const float*>(in[0]), up, n, out);
                });
  });
}

void* omlx_x_encode(void* q_handle, void* k_handle, void* v_handle, void* spans_handle, int kv_heads, int before,
                    int after, float scale) {
  return guarded("encode", [&] {
    const mx::array q = activations(q_handle, "q");
    const mx::array keys = activations(k_handle, "k");
    const mx::array values = activations(v_handle, "v");
    const mx::array spans = int32s(spans_handle, "spans");
    expect(keys.ndim() == 2 && kv_heads > 0 && keys.shape(1) > 0 && keys.shape(1) % kv_heads == 0, "k must be (S, Hkv*D)", keys);
    expect(values.shape() == keys.shape(), "v must have the shape of k", values);
    expect(q.ndim() == 2 && q.shape(1) > 0 && q.shape(1) % keys.shape(1) == 0,
           "q must be (T, H*D) with H a multiple of the key heads", q);
    expect(spans.ndim() == 2 && spans.shape(1) == 5, "spans must be (n, 5)", spans);
    const int T = q.shape(0), S = keys.shape(0), D = keys.shape(1) / kv_heads, heads = q.shape(1) / D;
    const auto count = static_cast<size_t>(spans.shape(0));
    return make(q.shape(), "omlx_x_encode", {q, keys, values, spans},
                [=](const std::vector<const void*>& in, float* out) {
                  const std::span<const k::TextSpan> texts(static_cast<const k::TextSpan*>(in[3]), count);
                  k::encode(static_cast<const float*>(in[0]), T, static_cast<const float*>(in[1]),
                            static_cast<const float*>(in[2]), S, heads, kv_heads, D, texts, before, after, scale, out);
                });
  });
}

int omlx_x_threads(int n) {
  try {
    return n < 0 ? k::num_threads() : k::set_num_threads(n);
  } catch (const std::exception& e) {
    omlx::set_error((std::string("threads: ") + e.what()).c_str());
  }
  return -1;
}

int omlx_x_arithmetic(int arithmetic) {
  if (arithmetic < 0) return static_cast<int>(k::arithmetic());
  if (arithmetic > static_cast<int>(k::Arithmetic::int8)) {
    omlx::set_error("arithmetic: must be 0, 1 or 2, or negative to ask");
    return -1;
  }
  k::set_arithmetic(static_cast<k::Arithmetic>(arithmetic));
  return arithmetic;
}

const char* omlx_x_tier(void) {
  try {
    static const std::string name = k::tier();
    return name.c_str();
  } catch (const std::exception& e) {
    omlx::set_error(e.what());
  }
  return nullptr;
}

}  // extern "C"
