// How fast this machine reads memory: threads sum a buffer that no cache holds, in huge pages, all starting together.
//   bandwidth THREADS        prints GB/s, the median of some passes
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

constexpr size_t BYTES = size_t(512) << 20;
constexpr int WARM_UP = 2, PASSES = 15;

/// Many sums at a time, so that no addition waits for another one; the compiler makes vectors of them.
uint64_t sum(const uint64_t* values, size_t count) {
  constexpr size_t LANES = 64;
  uint64_t lanes[LANES] = {};
  for (size_t i = 0; i + LANES <= count; i += LANES) {
    for (size_t j = 0; j < LANES; j++) lanes[j] += values[i + j];
  }
  uint64_t total = 0;
  for (uint64_t lane : lanes) total += lane;
  return total;
}

/// Waits by looking, for all threads to come: waking a sleeping one takes as long as a good part of a pass.
class Barrier {
 public:
  explicit Barrier(int threads) : threads_(threads) {}
  void wait() {
    const int turn = turn_.load();
    if (waiting_.fetch_add(1) + 1 == threads_) {
      waiting_ = 0;
      turn_.fetch_add(1);
    } else {
      while (turn_.load() == turn) {
      }
    }
  }

 private:
  const int threads_;
  std::atomic<int> waiting_{0}, turn_{0};
};

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  if (threads < 1) return 2;
  constexpr size_t HUGE = size_t(2) << 20;
  void* memory = mmap(nullptr, BYTES + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 1;
  auto* values = reinterpret_cast<uint64_t*>((reinterpret_cast<uintptr_t>(memory) + HUGE - 1) / HUGE * HUGE);
#ifdef MADV_HUGEPAGE
  madvise(values, BYTES, MADV_HUGEPAGE);
#endif
  const size_t count = BYTES / sizeof(uint64_t), each = count / size_t(threads);
  for (size_t i = 0; i < count; i++) values[i] = i;

  Barrier barrier(threads);
  std::atomic<uint64_t> total{0};
  std::vector<double> seconds;
  const auto work = [&](int thread) {
    for (int pass = 0; pass < WARM_UP + PASSES; pass++) {
      barrier.wait();
      const auto start = std::chrono::steady_clock::now();
      total += sum(values + size_t(thread) * each, each);
      barrier.wait();
      const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
      if (thread == 0 && pass >= WARM_UP) seconds.push_back(spent.count());
    }
  };
  std::vector<std::thread> others;
  for (int i = 1; i < threads; i++) others.emplace_back(work, i);
  work(0);
  for (auto& other : others) other.join();
  std::nth_element(seconds.begin(), seconds.begin() + PASSES / 2, seconds.end());
  if (total == 0) return 1;  // uses the sums: else they need not be computed
  std::printf("%.3f\n", double(each * size_t(threads) * sizeof(uint64_t)) / seconds[PASSES / 2] * 1e-9);
}
