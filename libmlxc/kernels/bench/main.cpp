// Speed of the kernels on the shapes of SmolLM2-135M (4-bit layers, 8-bit head, groups of 32), random weights:
// each kind of kernel alone, then whole steps as tokens per second. Medians; weights are read from memory, not cache.
// With 1 thread the times are CPU times.
//   omlx_kernels_bench [threads [linear|dense|small|steps]]
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "../kernels.h"
#include "../threads.h"

using namespace omlx::kernels;

namespace {

constexpr int E = 576, FFN = 1536, HEADS = 9, KV_HEADS = 3, D = 64, LAYERS = 30, VOCAB = 49152, BLOCK_TOKENS = 32;

/// With one thread its CPU time, which other programs disturb less; else the clock.
double now() {
  timespec t;
  clock_gettime(num_threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return double(t.tv_sec) + double(t.tv_nsec) * 1e-9;
}

double median(int repeats, const std::function<void()>& f) {
  f();
  std::vector<double> seconds;
  for (int i = 0; i < repeats; i++) {
    const double start = now();
    f();
    seconds.push_back(now() - start);
  }
  std::nth_element(seconds.begin(), seconds.begin() + repeats / 2, seconds.end());
  return seconds[size_t(repeats / 2)];
}

uint32_t noise() {
  static uint64_t state = 1;
  state = state * 6364136223846793005u + 1442695040888963407u;
  return uint32_t(state >> 32);
}

std::vector<float> floats(size_t n) {
  std::vector<float> v(n);
  for (float& x : v) x = float(noise() >> 8) / 8388608.0f - 1.0f;
  return v;
}

struct Matrix {
  Weight w;
  std::vector<uint32_t> data;
  std::vector<uint16_t> scales, biases;

  Matrix(int rows, int cols, int bits) : data(size_t(rows) * cols * bits / 32), scales(size_t(rows) * cols / 32), biases(scales.size()) {
    for (auto& x : data) x = noise();
    for (auto& x : scales) x = uint16_t(0x1400 + noise() % 256);  // about 1e-3
    for (auto& x : biases) x = uint16_t(0x9800 + noise() % 256);
    w = {data.data(), scales.data(), biases.data(), DType::f16, bits, 32, rows, cols};
    if (arithmetic() == Arithmetic::exact) return;
    packed = std::make_unique<PackedWeight>(w);
    w.packed = packed->data();
  }
  std::unique_ptr<PackedWeight> packed;
  double bytes() const { return double(data.size()) * 4 + double(scales.size()) * 4; }
};

struct Layer {
  Matrix q{E, E, 4}, k{KV_HEADS * D, E, 4}, v{KV_HEADS * D, E, 4}, o{E, E, 4}, gate{FFN, E, 4}, up{FFN, E, 4}, down{E, FFN, 4};
};

template <class Any>
void report_linear(const char* name, const std::vector<const Any*>& copies, int M) {
  const Weight& w = copies[0]->w;
  const auto x = floats(size_t(M) * w.cols);
  std::vector<float> out(size_t(M) * w.rows);
  const double seconds = median(M > 8 ? 5 : 25, [&] {
                           for (const Any* m : copies) linear(x.data(), M, m->w, {}, out.data());
                         }) / double(copies.size());
  std::printf("  %-22s M %3d  %9.1f us  %6.1f GB/s  %7.1f GFLOP/s\n", name, M, seconds * 1e6, copies[0]->bytes() / seconds * 1e-9,
              2.0 * M * w.rows * w.cols / seconds * 1e-9);
}

class Model {
 public:
  std::vector<std::unique_ptr<Layer>> layers;
  Matrix head{VOCAB, E, 8};
  KvPool pool{LAYERS, 256, BLOCK_TOKENS, KV_HEADS, D};

  Model() {
    for (int i = 0; i < LAYERS; i++) layers.push_back(std::make_unique<Layer>());
    for (int i = 0; i < 256; i++) blocks_.push_back(i);
    std::memset(pool.data(), 0, pool.bytes());  // pages that were never written are all one page, in the cache
  }

  /// T rows of one sequence at `offset`, logits of the last row; one: T sequences with one row and all logits.
  void step(int T, int offset, bool batch) {
    resize(T);
    std::vector<Span> spans;
    if (batch) {
      for (int t = 0; t < T; t++) spans.push_back({t, 1, offset, t * (256 / T)});
    } else {
      spans.push_back({0, T, offset, 0});
    }
    std::vector<int> ids(T, 17), positions(T, offset);
    embedding(ids.data(), T, head.w, x_.data());
    rope_table(positions.data(), T, inv_freq_.data(), D / 2, 1.0f, table_.data());
    for (int i = 0; i < LAYERS; i++) {
      const Layer& l = *layers[i];
      time(0, [&] { rms_norm(x_.data(), T, E, {}, 1e-5f, h_.data()); });
      time(1, [&] {
        linear(h_.data(), T, l.q.w, {}, q_.data());
        linear(h_.data(), T, l.k.w, {}, k_.data());
        linear(h_.data(), T, l.v.w, {}, v_.data());
      });
      time(0, [&] {
        rope(q_.data(), T, HEADS, D, table_.data(), D / 2, false, q2_.data());
        rope(k_.data(), T, KV_HEADS, D, table_.data(), D / 2, false, k2_.data());
      });
      time(2, [&] { attention(q2_.data(), k2_.data(), v_.data(), T, HEADS, {}, pool, i, spans, blocks_, 0.125f, a_.data()); });
      time(1, [&] { linear(a_.data(), T, l.o.w, {}, h_.data()); });
      time(0, [&] {
        add(h_);
        rms_norm(x_.data(), T, E, {}, 1e-5f, h_.data());
      });
      time(1, [&] {
        linear(h_.data(), T, l.gate.w, {}, gate_.data());
        linear(h_.data(), T, l.up.w, {}, up_.data());
      });
      time(0, [&] { swiglu(gate_.data(), up_.data(), size_t(T) * FFN, act_.data()); });
      time(1, [&] { linear(act_.data(), T, l.down.w, {}, h_.data()); });
      time(0, [&] { add(h_); });
    }
    rms_norm(x_.data(), T, E, {}, 1e-5f, h_.data());
    const int rows = batch ? T : 1;
    time(3, [&] { linear(h_.data() + size_t(T - rows) * E, rows, head.w, {}, logits_.data()); });
  }

  double seconds[4] = {};

 private:
  template <class F>
  void time(int part, F&& f) {
    const double start = now();
    f();
    seconds[part] += now() - start;
  }
  void add(const std::vector<float>& y) {
    for (size_t i = 0; i < x_.size(); i++) x_[i] += y[i];
  }
  void resize(int T) {
    const size_t t = size_t(T);
    x_.resize(t * E), h_.resize(t * E), q_.resize(t * E), q2_.resize(t * E), a_.resize(t * E);
    k_.resize(t * KV_HEADS * D), k2_.resize(t * KV_HEADS * D), v_.resize(t * KV_HEADS * D);
    gate_.resize(t * FFN), up_.resize(t * FFN), act_.resize(t * FFN), table_.resize(t * D);
    logits_.resize(std::min<size_t>(t, 8) * VOCAB);
  }

  std::vector<int> blocks_;
  std::vector<float> inv_freq_ = floats(D / 2);
  std::vector<float> x_, h_, q_, q2_, k_, k2_, v_, a_, gate_, up_, act_, table_, logits_;
};

void report_step(Model& model, const char* name, int T, int offset, bool batch) {
  const int repeats = T > 8 ? 7 : 31;
  std::fill(std::begin(model.seconds), std::end(model.seconds), 0.0);
  const double seconds = median(repeats, [&] { model.step(T, offset, batch); });
  const double n = repeats + 1;
  std::printf("  %-26s %8.2f ms  %7.1f tok/s   (linear %.2f, attention %.2f, small %.2f, head %.2f ms)\n", name, seconds * 1e3, T / seconds,
              model.seconds[1] / n * 1e3, model.seconds[2] / n * 1e3, model.seconds[0] / n * 1e3, model.seconds[3] / n * 1e3);
}

}  // namespace

/// Memory with huge pages, as the engine reads weights into.
template <class T>
struct HugePages {
  using value_type = T;
  T* allocate(size_t n) {
    constexpr size_t PAGE = size_t(2) << 20;
    const size_t bytes = (n * sizeof(T) + PAGE - 1) / PAGE * PAGE;
    void* p = std::aligned_alloc(PAGE, bytes);
    if (!p) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    madvise(p, bytes, MADV_HUGEPAGE);
#endif
    return static_cast<T*>(p);
  }
  void deallocate(T* p, size_t) { std::free(p); }
  bool operator==(const HugePages&) const { return true; }
};

struct Dense {
  Weight w;
  std::vector<uint32_t, HugePages<uint32_t>> data;

  Dense(int rows, int cols, DType dtype) : data(size_t(rows) * cols * size_of(dtype) / 4) {
    for (auto& x : data) x = dtype == DType::f32 ? 0x3c000000 | noise() >> 9 : 0x3c003c00 | (noise() & 0x7f007f);
    w = {data.data(), nullptr, nullptr, dtype, 0, 0, rows, cols};
  }
  double bytes() const { return double(data.size()) * 4; }
};

int main(int argc, char** argv) {
  setvbuf(stdout, nullptr, _IOLBF, 0);
  if (argc > 1) set_num_threads(std::atoi(argv[1]));
  const std::string only = argc > 2 ? argv[2] : "";
  const auto wanted = [&](const char* part) { return only.empty() || only == part; };
  if (const char* name = std::getenv("OMLX_KERNELS"))
    set_arithmetic(std::string(name) == "exact" ? Arithmetic::exact : std::string(name) == "int8" ? Arithmetic::int8 : Arithmetic::int16);
  std::printf("tier %s, %d threads\n", tier().c_str(), num_threads());
  Model model;
  if (wanted("linear")) {
    std::vector<const Matrix*> q, gate, down;
    for (const auto& l : model.layers) {
      q.push_back(&l->q);
      gate.push_back(&l->gate);
      gate.push_back(&l->up);
      down.push_back(&l->down);
    }
    std::printf("linear, weights from memory\n");
    for (int M : {1, 2, 4, 8, 16, 24, 32, 128, 512}) {
      report_linear("q, o      576 x  576", q, M);
      report_linear("gate, up 1536 x  576", gate, M);
      report_linear("down      576 x 1536", down, M);
      if (M <= 8) report_linear("head    49152 x  576", std::vector<const Matrix*>{&model.head}, M);
    }
  }
  if (wanted("dense")) {
    std::printf("dense, weights from memory\n");
    for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      std::vector<std::unique_ptr<Dense>> copies;
      std::vector<const Dense*> all;
      for (int i = 0; i < 24; i++) copies.push_back(std::make_unique<Dense>(1536, 576, dtype));
      for (const auto& c : copies) all.push_back(c.get());
      for (int M : {1, 4, 16, 128, 512})
        report_linear(dtype == DType::f32 ? "f32      1536 x  576" : dtype == DType::bf16 ? "bf16     1536 x  576" : "f16      1536 x  576", all, M);
    }
  }
  if (wanted("small")) {
    std::printf("small kernels\n");
    const auto logits = floats(VOCAB);
    std::vector<float> values(256);
    RowStats stats;
    std::vector<int> ids(256);
    const float one = 0.8f;
    const double s = median(51, [&] { candidates(logits.data(), 1, VOCAB, &one, 256, &stats, ids.data(), values.data()); });
    std::printf("  top 256 of %d        %9.1f us\n", VOCAB, s * 1e6);
  }
  if (wanted("steps")) {
    std::printf("whole steps\n");
    report_step(model, "decode at 200", 1, 200, false);
    report_step(model, "decode at 2000", 1, 2000, false);
    report_step(model, "decode at 4000", 1, 4000, false);
    report_step(model, "decode at 7500", 1, 7500, false);
    report_step(model, "4 sequences at 200", 4, 200, true);
    report_step(model, "8 sequences at 200", 8, 200, true);
    report_step(model, "prefill 128", 128, 0, false);
    report_step(model, "prefill 512", 512, 0, false);
    report_step(model, "prefill 512 at 4000", 512, 4000, false);
  }
}
