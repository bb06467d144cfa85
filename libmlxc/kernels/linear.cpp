// Linear layers and embeddings: choice of form and division among threads.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <deque>
#include <stdexcept>
#include <vector>

#include "scratch.h"
#include "threads.h"
#include "tier.h"

namespace omlx::kernels {

/// Activations as integers, for weights of one format.
struct Integers {
  Arithmetic arithmetic;
  const Tier* tier;  // its kernels know the order of the bytes
  int group;
  bool ready = false;
  Scratch memory;
  int8_t* steps;
  size_t stride;
  float *d, *sums;
};

struct Activations::Parts {
  const float* x = nullptr;
  int M = 0, K = 0;
  std::deque<Integers> integers;  // a few formats at most; entries are reused
};

namespace {

constexpr size_t L2_FLOATS = 96 * 1024;  // of x kept in L2 by one GEMM item: 384 KiB
constexpr int PANEL_ROWS = 16;

std::atomic<Arithmetic> current_arithmetic{Arithmetic::int16};

/// How far ahead a matvec of some rows fetches weights. Measured: the CPU's own prefetcher alone is enough only for one row
/// and one thread on AMD, where fetching costs an eighth; with more of either it gains a twentieth to a third.
size_t fetch_ahead([[maybe_unused]] int rows) {
#ifdef __x86_64__
  static const bool amd = __builtin_cpu_is("amd");
  return amd && rows == 1 && num_threads() == 1 ? 0 : 4096;
#else
  return 0;
#endif
}

/// Whether the integer kernels take this weight.
bool integer(const Weight& w, Arithmetic arithmetic) {
  return arithmetic != Arithmetic::exact && w.packed;
}

const Planes& planes_of(const Tier& tier, Arithmetic arithmetic) {
  return arithmetic == Arithmetic::int8 ? tier.int8 : tier.int16;
}

/// The integers of x for this weight, made now if no weight before had its format.
const Integers& integers(Activations::Parts& x, const Tier& tier, const Weight& w, Arithmetic arithmetic) {
  Integers* found = nullptr;
  for (Integers& entry : x.integers) {
    if (entry.arithmetic == arithmetic && entry.tier == &tier && entry.group == w.group)
      found = &entry;
  }
  if (!found) {
    found = &x.integers.emplace_back();
    found->arithmetic = arithmetic;
    found->tier = &tier;
    found->group = w.group;
  }
  if (found->ready) return *found;
  const Planes& planes = planes_of(tier, arithmetic);
  const size_t rows = size_t(x.M), K = size_t(x.K), groups = K / size_t(w.group);
  // Rows are 64 bytes more than needed apart, so that a power of two does not put them all in one set of the cache.
  const size_t stride = (planes.row_bytes(x.K) + 63) / 64 * 64 + 64;
  float* memory = found->memory.reserve(rows * (stride / sizeof(float) + 2 * groups));
  found->steps = reinterpret_cast<int8_t*>(memory);
  found->stride = stride;
  found->d = memory + rows * stride / sizeof(float);
  found->sums = found->d + rows * groups;
  const auto row = [&](size_t m) {
    planes.quantize(x.x + m * K, x.K, w.group, found->steps + m * stride, found->d + m * groups,
                    found->sums + m * groups);
  };
  constexpr size_t WORTH = 8192;  // elements of one work item
  const size_t each = std::max<size_t>(1, WORTH / K);
  parallel((rows + each - 1) / each, [&](int, size_t i) {
    for (size_t m = i * each; m < std::min(rows, (i + 1) * each); m++) row(m);
  });
  found->ready = true;
  return *found;
}

/// One projection, cut into items: of a matvec a thread computes several at once, of a GEMM one.
struct Work {
  const Projection* projection = nullptr;
  const Integers* integers = nullptr;  // null: float32 arithmetic
  bool matvec = false;
  int rows = 0, columns = 0;  // of x and of the weight in one item
  int column_items = 0;
  size_t items = 0;
  size_t scratch = 0;  // bytes per thread

  void cut(int M, int N) {
    column_items = (N + columns - 1) / columns;
    items = size_t((M + rows - 1) / rows) * size_t(column_items);
  }
};

/// Divides M rows into equal blocks of at most `fit` rows.
int balanced(int M, int fit) {
  const int blocks = (M + fit - 1) / fit;
  return (M + blocks - 1) / blocks;
}

Work plan(Activations::Parts& x, const Projection& projection, const Tier& tier, Form form, Arithmetic arithmetic) {
  const Weight& w = projection.w;
  const int M = x.M, N = w.rows, K = w.cols;
  Work work;
  work.projection = &projection;
  if (integer(w, arithmetic)) {
    work.integers = &integers(x, tier, w, arithmetic);
    const int few = w.bits == 4 || w.bits == 8 ? tier.integer_rows : 2;  // rare widths: unpacked again for every row
    work.matvec = form == Form::matvec || (form == Form::automatic && M <= few);
    const size_t fit = L2_FLOATS * 4 / work.integers->stride;
    work.rows = balanced(M, int(std::clamp<size_t>(fit, 24, work.matvec ? INTEGER_ROWS : 480)));
    work.columns = work.matvec ? PANEL_ROWS : INTEGER_COLUMNS;
    work.scratch = integer_scratch(w);
  } else {
    work.matvec = form == Form::matvec || (form == Form::automatic && M <= MATVEC_ROWS);
    work.rows = work.matvec ? MATVEC_ROWS
                            : balanced(M, int(std::clamp<size_t>(L2_FLOATS / size_t(std::max(1, K)), 24, 240)) / 6 * 6);
    work.columns = work.matvec ? tier.tile_n : PANEL_ROWS;
    work.scratch = (PANEL_ROWS + 8) * panel_stride(K) * sizeof(float);
  }
  work.cut(M, N);
  return work;
}

/// Items [item, item + count) of one block of rows.
void compute(const Activations::Parts& x, const Work& work, const Tier& tier, Arithmetic arithmetic, size_t item,
             size_t count, uint8_t* scratch) {
  const Projection& p = *work.projection;
  const int N = p.w.rows;
  const int m0 = int(item / size_t(work.column_items)) * work.rows, m1 = std::min(x.M, m0 + work.rows);
  const int column = int(item % size_t(work.column_items));
  const int n0 = column * work.columns, n1 = std::min(N, (column + int(count)) * work.columns);
  // A matvec sees only its own rows; a GEMM is told which.
  const size_t first = work.matvec ? size_t(m0) : 0;
  const int rows = work.matvec ? m1 - m0 : x.M;
  const float* residual = p.residual ? p.residual + first * size_t(N) : nullptr;
  float* out = p.out + first * size_t(N);
  if (const Integers* q = work.integers) {
    const size_t groups = size_t(x.K) / size_t(p.w.group);
    const IntegerJob job{q->steps + first * q->stride, q->stride, q->d + first * groups, q->sums + first * groups, rows,
                         &p.w, p.bias, residual, out, fetch_ahead(rows)};
    const Planes& planes = planes_of(tier, arithmetic);
    if (work.matvec) planes.matvec(job, n0, n1);
    else planes.gemm(job, m0, m1, n0, n1, scratch);
  } else {
    const LinearJob job{x.x + first * size_t(x.K), rows, &p.w, p.bias, residual, out};
    if (work.matvec) tier.matvec(job, n0, n1);
    else tier.gemm(job, m0, m1, n0, n1, reinterpret_cast<float*>(scratch));
  }
}

/// The calling thread's scratch for all threads of a parallel region, `bytes` each.
struct ThreadScratch {
  explicit ThreadScratch(size_t bytes) : each((bytes + 63) / 64 * 64) {
    static thread_local Scratch scratch;
    base = reinterpret_cast<uint8_t*>(scratch.reserve(each / sizeof(float) * size_t(num_threads())));
  }
  uint8_t* operator()(int thread) const { return base + each * size_t(thread); }

  size_t each;
  uint8_t* base;
};

}  // namespace

void set_arithmetic(Arithmetic arithmetic) { current_arithmetic.store(arithmetic); }
Arithmetic arithmetic() { return current_arithmetic.load(); }

Activations::Activations() : parts_(std::make_unique<Parts>()) {}
Activations::~Activations() = default;

void Activations::reset(const float* x, int M, int K) {
  parts_->x = x;
  parts_->M = M;
  parts_->K = K;
  for (Integers& entry : parts_->integers) entry.ready = false;
}

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

void linear(Activations& activations, std::span<const Projection> projections, Form form) {
  const Tier& tier = active_tier();
  const Arithmetic arithmetic = omlx::kernels::arithmetic();
  Activations::Parts& x = activations.parts();
  if (x.M <= 0) return;
  static thread_local std::vector<Work> works;
  works.clear();
  size_t items = 0, scratch = 0;
  bool matvec = true;
  for (const Projection& p : projections) {
    works.push_back(plan(x, p, tier, form, arithmetic));
    items += works.back().items;
    scratch = std::max(scratch, works.back().scratch);
    matvec &= works.back().matvec;
  }
  const ThreadScratch memory(scratch);
  const std::vector<Work>& all = works;  // the caller's, also in other threads
  parallel_ranges(items, matvec ? items : 1, [&](int thread, size_t begin, size_t end) {
    const Work* work = all.data();
    for (size_t left = end - begin; left > 0;) {
      for (; begin >= work->items; work++) begin -= work->items;
      const size_t count = std::min(left, size_t(work->column_items) - begin % size_t(work->column_items));
      compute(x, *work, tier, arithmetic, begin, count, memory(thread));
      begin += count;
      left -= count;
    }
  });
}

void linear(const float* x, int M, const Weight& w, Vector bias, float* out, Form form) {
  static thread_local Activations activations;
  activations.reset(x, M, w.cols);
  const Projection projection{w, bias, nullptr, out};
  linear(activations, {&projection, 1}, form);
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
