// The MLX primitives: that they compute in a graph what the kernels compute, and how they fail.
#include <cmath>
#include <cstring>
#include <memory>
#include <stdexcept>

#include "../../src/internal.h"
#include "check.h"
#include "mlx/mlx.h"
#include "omlxc_kernels.h"

namespace mx = mlx::core;
using check::Random;
using Arrays = std::vector<mx::array>;

namespace {
std::string last_error;
int handles = 0;
}  // namespace

// What the shim has in libomlxc.
void omlx::set_error(const char* text) { last_error = text; }
void* omlx::give(void* handle) {
  handles += handle != nullptr;
  return handle;
}

namespace {

void* handle(mx::array a) { return new mx::array(std::move(a)); }

/// Takes a handle over; NULL fails the test.
mx::array take(void* h) {
  if (!h) {
    check::fail("no result: " + last_error);
    return mx::array(0.0f);
  }
  const std::unique_ptr<mx::array> a(static_cast<mx::array*>(h));
  handles--;
  return *a;
}

std::vector<float> values(mx::array a) {
  a = mx::contiguous(mx::astype(a, mx::float32));
  a.eval();
  return {a.data<float>(), a.data<float>() + a.size()};
}

std::vector<double> doubles(const mx::array& a) {
  const auto v = values(a);
  return {v.begin(), v.end()};
}

mx::array normals(Random& random, mx::Shape shape, float scale = 1.0f) {
  size_t n = 1;
  for (int s : shape) n *= size_t(s);
  const auto v = random.normals(n, scale);
  return mx::array(v.data(), std::move(shape), mx::float32);
}

/// Temporary handles, freed at the end of the scope.
class Handles {
 public:
  ~Handles() {
    for (void* h : all_) delete static_cast<mx::array*>(h);
  }
  void* operator()(mx::array a) {
    all_.push_back(handle(std::move(a)));
    return all_.back();
  }

 private:
  std::vector<void*> all_;
};

/// omlx_x_linear of a layer that is bound for this once.
void* linear_once(void* x, void* w, void* scales, void* biases, void* bias, int bits, int group) {
  void* layer = omlx_layer_new(w, scales, biases, bias, bits, group);
  if (!layer) return nullptr;
  void* out = omlx_x_linear(x, layer);
  omlx_layer_free(layer);
  return out;
}

void refused(void* result, const std::string& part) {
  check::that(result == nullptr, "accepted, expected: " + part);
  check::that(last_error.find(part) != std::string::npos, "error is \"" + last_error + "\", expected: " + part);
}

}  // namespace

TEST("omlx_x_linear() reads what mx::quantize makes, for every number of bits and scale type") {
  omlx::kernels::set_arithmetic(omlx::kernels::Arithmetic::exact);
  Random random(1);
  for (int bits : {2, 3, 4, 5, 6, 8}) {
    for (int group : {32, 64, 128}) {
      for (mx::Dtype type : {mx::float32, mx::float16, mx::bfloat16}) {
        const auto parts = mx::quantize(mx::astype(normals(random, {48, 256}), type), group, bits);
        const auto x = normals(random, {2, 3, 256});
        const auto wide = [](const mx::array& a) { return mx::astype(a, mx::float32); };
        const auto w = mx::dequantize(parts[0], wide(parts[1]), wide(parts[2]), group, bits);
        Handles h;
        const auto got = take(linear_once(h(x), h(parts[0]), h(parts[1]), h(parts[2]), nullptr, bits, group));
        check::that(got.shape() == mx::Shape{2, 3, 48}, "shape");
        check::close(values(got), doubles(mx::matmul(x, mx::transpose(w))), 2e-6, check::text("bits group", {bits, group}));
        const std::vector<int> rows{7, 0, 47};
        const auto ids = mx::array(rows.data(), {3}, mx::int32);
        const auto embedded = take(omlx_x_embedding(h(ids), h(parts[0]), h(parts[1]), h(parts[2]), bits, group));
        check::close(values(embedded), doubles(mx::take(w, ids, 0)), 1e-6, check::text("embedding", {bits, group}));
      }
    }
  }
}

TEST("operations take inputs of any layout and any float type") {
  Random random(2);
  Handles h;
  const auto wide = normals(random, {64, 10});
  const auto x = mx::transpose(wide);                                  // (10, 64), column-major
  const auto w = mx::transpose(mx::astype(normals(random, {64, 24}), mx::bfloat16));
  const auto bias = mx::broadcast_to(mx::array(0.5f), {24});
  const auto got = take(linear_once(h(x), h(w), nullptr, nullptr, h(bias), 0, 0));
  const auto want = mx::add(mx::matmul(x, mx::transpose(mx::astype(w, mx::float32))), bias);
  check::close(values(got), doubles(want), 2e-6, "transposed");
  const auto half = mx::astype(x, mx::float16);
  const auto small = take(omlx_x_rms_norm(h(half), nullptr, 1e-5f));
  check::that(small.dtype() == mx::float32, "dtype");
  check::close(values(small), doubles(mx::fast::rms_norm(mx::astype(half, mx::float32), std::nullopt, 1e-5f)), 1e-6, "float16");
  const auto gate = mx::slice(wide, {0, 1}, {64, 9}, {1, 2});          // every second column
  const auto up = mx::slice(wide, {0, 2}, {64, 10}, {1, 2});
  const auto silu = mx::multiply(mx::multiply(gate, mx::sigmoid(gate)), up);
  check::close(values(take(omlx_x_activate(2, h(gate), h(up)))), doubles(silu), 1e-6, "strided");
}

TEST("omlx_x_rope() agrees with mx::fast::rope in both pairings") {
  Random random(3);
  const int T = 6, H = 3, D = 64;
  for (int dims : {64, 32}) {
    for (int traditional : {0, 1}) {
      Handles h;
      const auto x = normals(random, {T, H * D});
      std::vector<float> inv(dims / 2);
      for (int i = 0; i < dims / 2; i++) inv[i] = std::pow(10000.0f, -2.0f * i / dims);
      const auto positions = mx::add(mx::arange(T, mx::int32), mx::array(100));
      const auto table = take(omlx_x_rope_table(h(positions), h(mx::array(inv.data(), {dims / 2})), 1.0f));
      const auto got = take(omlx_x_rope(h(x), h(table), H, traditional));
      const auto heads = mx::transpose(mx::reshape(x, {1, T, H, D}), {0, 2, 1, 3});
      const auto want = mx::fast::rope(heads, dims, traditional != 0, 10000.0f, 1.0f, 100);
      check::close(values(got), doubles(mx::transpose(want, {0, 2, 1, 3})), 1e-5, check::text("dims traditional", {dims, traditional}));
    }
  }
}

namespace {

double number(void* handle) { return double(reinterpret_cast<uintptr_t>(handle)); }

/// A dense layer with its matrix and bias as MLX arrays, for the same in stock operations.
struct Dense {
  mx::array w, bias;
  void* layer;

  Dense(Random& random, int rows, int cols)
      : w(normals(random, {rows, cols}, 0.15f)), bias(normals(random, {rows}, 0.1f)) {
    Handles h;
    layer = omlx_layer_new(h(w), nullptr, nullptr, h(bias), 0, 0);
  }
  ~Dense() { omlx_layer_free(layer); }
  Dense(const Dense&) = delete;
  mx::array operator()(const mx::array& x) const { return mx::add(mx::matmul(x, mx::transpose(w)), bias); }
};

}  // namespace

TEST("omlx_x_stack() agrees with MLX over two layers and two chunks, and keeps what it needs alive") {
  Random random(4);
  const int T = 40, FIRST = 13, E = 48, F = 96, H = 6, K = 2, D = 32;
  Handles h;
  for (const bool traditional : {false, true}) {
    void* pool = omlx_pool_new(2, 8, 16, K, D);
    check::that(omlx_pool_bytes(pool) == 2.0 * 8 * 16 * K * (D * 2 * 2 + 2 * 4), "pool bytes");
    void* stack = omlx_stack_new();
    std::vector<float> inv(D / 2);
    for (int i = 0; i < D / 2; i++) inv[i] = std::pow(10000.0f, -2.0f * i / D);
    const auto x = normals(random, {T, E});
    auto want = x;
    for (int layer = 0; layer < 2; layer++) {
      const Dense q(random, H * D, E), k(random, K * D, E), v(random, K * D, E), o(random, E, H * D), gate(random, F, E),
          up(random, F, E), down(random, E, F);
      const auto norm = normals(random, {E}), q_norm = normals(random, {D}), k_norm = normals(random, {D});
      const double layers[] = {number(q.layer), number(k.layer), number(v.layer), number(o.layer)};
      const bool normed = layer == 1;
      check::that(omlx_stack_attention(stack, h(norm), normed ? h(q_norm) : nullptr, normed ? h(k_norm) : nullptr, layers, layer, 0,
                                       traditional, 1e-5f, 0.25f) == 0, last_error);
      check::that(omlx_stack_mlp(stack, h(mx::astype(norm, mx::float16)), gate.layer, up.layer, down.layer, 1e-5f) == 0, last_error);
      const auto split = [&](const mx::array& a, int heads, const mx::array* w) {
        auto rows = mx::reshape(a, {1, T, heads, D});
        if (w && normed) rows = mx::fast::rms_norm(rows, *w, 1e-5f);
        rows = mx::transpose(rows, {0, 2, 1, 3});
        return w ? mx::fast::rope(rows, D, traditional, 10000.0f, 1.0f, 0) : rows;
      };
      const auto n = mx::fast::rms_norm(want, norm, 1e-5f);
      const auto mixed = mx::fast::scaled_dot_product_attention(split(q(n), H, &q_norm), split(k(n), K, &k_norm), split(v(n), K, nullptr), 0.25f, "causal");
      want = mx::add(want, o(mx::reshape(mx::transpose(mixed, {0, 2, 1, 3}), {T, H * D})));
      const auto m = mx::fast::rms_norm(want, mx::astype(mx::astype(norm, mx::float16), mx::float32), 1e-5f);
      const auto g = gate(m);
      want = mx::add(want, down(mx::multiply(mx::multiply(g, mx::sigmoid(g)), up(m))));
    }
    const std::vector<int> blocks{5, 0, 3};
    std::vector<mx::array> out;
    for (const auto& [from, to] : {std::pair{0, FIRST}, std::pair{FIRST, T}}) {
      const std::vector<int> span{0, to - from, from, 0};
      void* batch = omlx_batch_new(span.data(), 1, blocks.data(), 3);
      const auto positions = mx::add(mx::arange(to - from, mx::int32), mx::array(from));
      const double table = number(h(take(omlx_x_rope_table(h(positions), h(mx::array(inv.data(), {D / 2})), 1.0f))));
      out.push_back(take(omlx_x_stack(h(mx::slice(x, {from, 0}, {to, E})), stack, &table, 1, pool, batch)));
      omlx_batch_free(batch);
      if (from == 0) out.back().eval();
    }
    omlx_stack_free(stack);
    omlx_pool_free(pool);
    check::close(values(mx::concatenate(out, 0)), doubles(want), 3e-3, traditional ? "pairs of neighbours" : "pairs of halves");
  }
}

TEST("omlx_x_candidates() gives what candidates() gives, in rows") {
  Random random(8);
  Handles h;
  const int R = 2, V = 300, k = 8;
  const auto logits = normals(random, {R, V}, 3.0f);
  const float inverse[] = {1.0f, 0.5f};
  const auto got = values(take(omlx_x_candidates(h(logits), h(mx::array(inverse, {R})), k)));
  std::vector<omlx::kernels::RowStats> stats(R);
  std::vector<int> ids(R * k), bits(R * k);
  std::vector<float> top(R * k);
  omlx::kernels::candidates(values(logits).data(), R, V, inverse, k, stats.data(), ids.data(), top.data());
  for (int r = 0; r < R; r++) {
    const float* row = got.data() + r * (3 + 2 * k);
    check::same({row, row + 3}, {stats[r].max, stats[r].lse, stats[r].lse_at_temperature}, "stats");
    check::same({row + 3, row + 3 + k}, {top.begin() + r * k, top.begin() + (r + 1) * k}, "values");
    std::memcpy(&bits[r * k], row + 3 + k, k * sizeof(int));
  }
  check::that(bits == ids, "ids");
}

TEST("the encoder operations agree with MLX's own") {
  Random random(7);
  const int H = 4, K = 2, D = 32, LENGTHS[] = {5, 40};
  Handles h;
  const auto q = normals(random, {45, H * D}), k = normals(random, {45, K * D}), v = normals(random, {45, K * D});
  const std::vector<int> numbers{0, 5, 0, 0, 5, 5, 40, 0, 5, 40};
  const auto spans = mx::array(numbers.data(), {2, 5}, mx::int32);
  const auto got = take(omlx_x_encode(h(q), h(k), h(v), h(spans), K, -1, -1, 0.2f));
  Arrays parts;
  int row = 0;
  for (int n : LENGTHS) {
    const auto split = [&](const mx::array& a, int heads) {
      return mx::transpose(mx::reshape(mx::slice(a, {row, 0}, {row + n, heads * D}), {1, n, heads, D}), {0, 2, 1, 3});
    };
    const auto out = mx::fast::scaled_dot_product_attention(split(q, H), split(k, K), split(v, K), 0.2f);
    parts.push_back(mx::reshape(mx::transpose(out, {0, 2, 1, 3}), {n, H * D}));
    row += n;
  }
  check::close(values(got), doubles(mx::concatenate(parts, 0)), 1e-5, "encode");
  const auto w = mx::astype(normals(random, {64}), mx::float16), b = normals(random, {64});
  const auto x = normals(random, {3, 7, 64}), residual = normals(random, {3, 7, 64});
  const auto norm = take(omlx_x_layer_norm(h(x), h(residual), h(w), h(b), 1e-12f));
  const auto want = mx::fast::layer_norm(mx::add(x, residual), mx::astype(w, mx::float32), b, 1e-12f);
  check::close(values(norm), doubles(want), 1e-5, "layer_norm");
  const auto bare = take(omlx_x_layer_norm(h(x), nullptr, nullptr, h(b), 1e-12f));
  check::close(values(bare), doubles(mx::fast::layer_norm(x, std::nullopt, b, 1e-12f)), 1e-5, "layer_norm with a bias only");
  const auto gelu = mx::multiply(mx::multiply(x, mx::array(0.5f)), mx::add(mx::array(1.0f), mx::erf(mx::multiply(x, mx::array(0.70710678f)))));
  check::close(values(take(omlx_x_activate(0, h(x), h(residual)))), doubles(mx::multiply(gelu, residual)), 1e-6, "gelu");
  check::close(values(take(omlx_x_activate(3, h(x), nullptr))), doubles(mx::maximum(x, mx::array(0.0f))), 1e-7, "relu");
  refused(omlx_x_encode(h(q), h(k), h(q), h(spans), K, -1, -1, 1.0f), "v must have the shape of k");
  refused(omlx_x_encode(h(q), h(k), h(v), h(mx::zeros({2, 4}, mx::int32)), K, -1, -1, 1.0f), "spans must be (n, 5)");
  refused(omlx_x_layer_norm(h(x), h(q), nullptr, nullptr, 1.0f), "residual must have the shape of x");
  refused(omlx_x_activate(4, h(x), nullptr), "no activation 4");
  bool thrown = false;
  try {
    take(omlx_x_encode(h(q), h(k), h(v), h(mx::array({0, 45, 0, 0, 44}, {1, 5})), K, -1, -1, 1.0f)).eval();
    mx::synchronize();
  } catch (const std::exception& e) {
    thrown = std::string(e.what()).find("span 0") != std::string::npos;
  }
  check::that(thrown, "a span that does not fit was accepted");
}

TEST("a quantized part of a stack gives the same bits as its operations one after another, in chunks too") {
  Random random(9);
  const int E = 64, F = 96;
  void* pool = omlx_pool_new(1, 1, 16, 1, 32);
  for (const int bits : {0, 4}) {
    for (const int T : {1, 3, 600}) {
      Handles h;
      const auto bind = [&](int rows, int cols) {
        std::vector<mx::array> parts{normals(random, {rows, cols}, 0.1f)};
        if (bits) parts = mx::quantize(parts[0], 32, bits);
        std::vector<void*> given;
        for (const auto& part : parts) given.push_back(h(part));
        given.resize(3);
        return omlx_layer_new(given[0], given[1], given[2], h(normals(random, {rows})), bits, 32);
      };
      void *gate = bind(F, E), *up = bind(F, E), *down = bind(E, F);
      void* x = h(normals(random, {T, E}));
      void* norm = h(normals(random, {E}));
      void* stack = omlx_stack_new();
      check::that(omlx_stack_mlp(stack, norm, gate, up, down, 1e-5f) == 0, last_error);
      void* batch = omlx_batch_new(nullptr, 0, nullptr, 0);
      const auto got = values(take(omlx_x_stack(x, stack, nullptr, 0, pool, batch)));
      omlx_batch_free(batch);
      omlx_stack_free(stack);

      void* normed = h(take(omlx_x_rms_norm(x, norm, 1e-5f)));
      void* between = h(take(omlx_x_activate(2, h(take(omlx_x_linear(normed, gate))), h(take(omlx_x_linear(normed, up))))));
      const auto inner = values(take(omlx_x_linear(between, down)));
      auto sum = values(*static_cast<mx::array*>(x));
      for (size_t i = 0; i < sum.size(); i++) sum[i] = inner[i] + sum[i];
      check::same(got, sum, check::text("bits T", {bits, T}));
      for (void* layer : {gate, up, down}) omlx_layer_free(layer);
    }
  }
  omlx_pool_free(pool);
}

TEST("an id outside of the vocabulary is an error of the evaluation, and the next one works") {
  Handles h;
  Random random(5);
  const auto w = normals(random, {10, 32});
  for (int round = 0; round < 3; round++) {
    for (int id : {10, -1}) {
      auto bad = take(omlx_x_embedding(h(mx::array({id})), h(w), nullptr, nullptr, 0, 0));
      bool thrown = false;
      try {
        bad.eval();
        mx::synchronize();
      } catch (const std::exception& e) {
        thrown = std::string(e.what()).find("token id " + std::to_string(id)) != std::string::npos;
      }
      check::that(thrown, "id " + std::to_string(id) + " was accepted");
    }
    const auto good = take(omlx_x_embedding(h(mx::array({9})), h(w), nullptr, nullptr, 0, 0));
    check::close(values(good), doubles(mx::slice(w, {9, 0}, {10, 32})), 1e-7, "id 9");
  }
}

TEST("wrong arguments give NULL and a text that names them") {
  Handles h;
  Random random(6);
  void* x = h(normals(random, {2, 64}));
  void* w = h(normals(random, {8, 32}));
  void* words = h(mx::zeros({8, 8}, mx::uint32));
  void* scales = h(normals(random, {8, 2}));
  const int before = handles;
  refused(linear_once(nullptr, w, nullptr, nullptr, nullptr, 0, 0), "x is null");
  refused(linear_once(x, w, nullptr, nullptr, nullptr, 0, 0), "must be K, got shape (2, 64)");
  refused(linear_once(x, words, scales, scales, nullptr, 7, 32), "bits");
  refused(linear_once(x, words, scales, nullptr, nullptr, 4, 32), "biases is null");
  refused(linear_once(x, w, scales, scales, nullptr, 4, 32), "w must be uint32");
  refused(linear_once(x, words, scales, scales, h(normals(random, {7})), 4, 32), "bias must be (N)");
  refused(linear_once(h(mx::zeros({2, 64}, mx::int32)), words, scales, scales, nullptr, 4, 32), "x must have a float type");
  refused(omlx_x_rms_norm(x, w, 1e-5f), "w must be (E)");
  refused(omlx_x_rope(x, w, 3, 0), "x must be (T, H*D)");
  refused(omlx_x_activate(2, x, w), "up must have the shape of x");
  refused(omlx_pool_new(1, 8, 20, 1, 32), "multiple of 16");
  refused(omlx_pool_new(1000, 1 << 30, 1024, 64, 256), "cannot be reserved");
  void* pool = omlx_pool_new(1, 8, 16, 1, 32);
  const std::vector<int> span{0, 2, 15, 0}, blocks{0};
  void* batch = omlx_batch_new(span.data(), 1, blocks.data(), 1);
  void* square = omlx_layer_new(h(normals(random, {64, 64})), nullptr, nullptr, nullptr, 0, 0);
  void* narrow = omlx_layer_new(h(normals(random, {32, 64})), nullptr, nullptr, nullptr, 0, 0);
  void* other = omlx_layer_new(w, nullptr, nullptr, nullptr, 0, 0);
  const auto unextended = [&](int status, const char* part) { refused(status == 0 ? w : nullptr, part); };
  const auto attention = [&](void* stack, std::initializer_list<void*> list, int layer, int table) {
    std::vector<double> layers;
    for (void* l : list) layers.push_back(double(reinterpret_cast<uintptr_t>(l)));
    return omlx_stack_attention(stack, h(normals(random, {64})), nullptr, nullptr, layers.data(), layer, table, 0, 1e-5f, 1.0f);
  };
  const auto with = [&](std::initializer_list<void*> list, int layer, int table) {
    void* stack = omlx_stack_new();
    check::that(attention(stack, list, layer, table) == 0, last_error);
    return stack;
  };
  const auto run_refused = [&](void* stack, void* the_pool, const char* part) {
    refused(omlx_x_stack(x, stack, nullptr, 0, the_pool, batch), part);
    omlx_stack_free(stack);
  };
  run_refused(omlx_stack_new(), nullptr, "pool or batch is null");
  run_refused(with({square, square, narrow, square}, 0, 0), pool, "k and v must have the pool's heads");
  run_refused(with({square, other, narrow, square}, 0, 0), pool, "must have E columns");
  run_refused(with({square, narrow, narrow, narrow}, 0, 0), pool, "o must be (E, H*D)");
  run_refused(with({square, narrow, narrow, square}, 1, 0), pool, "no such layer");
  run_refused(with({square, narrow, narrow, square}, 0, 0), pool, "no such rotary table");
  run_refused(omlx_stack_new(), pool, "span 0 needs 2 blocks");
  void* stack = omlx_stack_new();
  unextended(attention(nullptr, {square, square, square, square}, 0, 0), "stack is null");
  unextended(attention(stack, {square, nullptr, square, square}, 0, 0), "k is null");
  unextended(omlx_stack_mlp(stack, h(normals(random, {7})), square, square, square, 1e-5f), "norm must have 64 elements, got shape (7)");
  check::that(omlx_stack_mlp(stack, nullptr, square, narrow, square, 1e-5f) == 0, last_error);
  run_refused(stack, pool, "equally many rows");
  for (void* layer : {square, narrow, other}) omlx_layer_free(layer);
  refused(omlx_x_candidates(x, h(normals(random, {3})), 4), "inv_temperature must be (R)");
  refused(omlx_x_candidates(x, h(normals(random, {2})), 2000), "k must be 1 to 1024, got 2000");
  omlx_batch_free(batch);
  omlx_pool_free(pool);
  check::that(handles == before, "a failed call counted a handle");
}

TEST("evaluation on a GPU stream is refused with a clear text") {
  if (!mx::is_available(mx::Device::gpu)) return;
  mx::set_default_device(mx::Device::gpu);
  Handles h;
  bool thrown = false;
  try {
    take(omlx_x_rms_norm(h(mx::ones({2, 16})), nullptr, 1e-5f)).eval();
  } catch (const std::exception& e) {
    thrown = std::string(e.what()).find("CPU only") != std::string::npos;
  }
  check::that(thrown, "not refused");
  mx::set_default_device(mx::Device::cpu);
}
