#include "threads.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

namespace omlx::kernels {
namespace {

constexpr auto SPIN_TIME = std::chrono::microseconds(100);
constexpr int MAX_THREADS = 256;

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

int usable_cores() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

class Pool {
 public:
  explicit Pool(int size) : size_(size), shares_(std::make_unique<Share[]>(size_t(size))) {
    for (int id = 1; id < size; id++) workers_.emplace_back([this, id] { work(id); });
  }

  ~Pool() {
    stop_.store(true);
    {
      std::lock_guard lock(sleep_mutex_);
      region_.fetch_add(1);
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  int size() const { return size_; }

  void run(size_t count, size_t largest, detail::Body body, void* context) {
    std::unique_lock busy(run_mutex_, std::try_to_lock);
    if (size_ == 1 || count < 2 || !busy) {
      for (size_t i = 0; i < count; i += largest) body(context, 0, i, std::min(count, i + largest));
      return;
    }
    body_ = body;
    largest_ = largest;
    context_ = context;
    for (int i = 0; i < size_; i++) {
      Share& share = shares_[i];
      share.next.store(count * size_t(i) / size_t(size_), std::memory_order_relaxed);
      share.end = count * size_t(i + 1) / size_t(size_);
    }
    const uint32_t region = region_.fetch_add(1) + 1;  // opens the region
    if (sleepers_.load() > 0) {
      std::lock_guard lock(sleep_mutex_);
      wake_.notify_all();
    }
    claim(0);
    closed_.store(region);
    // Only workers that entered before the region closed are waited for.
    for (int spins = 0; inside_.load() != 0; spins++) {
      if (spins < 4000) pause_cpu();
      else std::this_thread::yield();
    }
  }

 private:
  /// Own share first, then what is left of the others'.
  void claim(int id) {
    for (int k = 0; k < size_; k++) {
      Share& share = shares_[(id + k) % size_];
      const size_t end = share.end;
      for (size_t next; (next = share.next.load(std::memory_order_relaxed)) < end;) {
        const size_t size = std::clamp<size_t>((end - next) / 4, 1, largest_);
        const size_t begin = share.next.fetch_add(size, std::memory_order_relaxed);  // perhaps not `next` any more
        if (begin < end) body_(context_, id, begin, std::min(begin + size, end));
      }
    }
  }

  void work(int id) {
    uint32_t last = 0;
    for (;;) {
      const uint32_t region = await_region(last);
      last = region;
      if (stop_.load()) return;
      // The caller sets closed_ before it reads inside_, and a worker raises inside_ before it reads
      // closed_: either the worker sees the region closed, or the caller waits for the worker.
      inside_.fetch_add(1);
      if (region_.load() == region && closed_.load() != region) claim(id);
      inside_.fetch_sub(1);
    }
  }

  /// Spins for a short time, then sleeps, until the region counter differs from `last`.
  uint32_t await_region(uint32_t last) {
    const auto deadline = std::chrono::steady_clock::now() + SPIN_TIME;
    do {
      for (int i = 0; i < 64; i++) {
        const uint32_t region = region_.load(std::memory_order_acquire);
        if (region != last) return region;
        pause_cpu();
      }
    } while (std::chrono::steady_clock::now() < deadline);
    std::unique_lock lock(sleep_mutex_);
    sleepers_.fetch_add(1);
    wake_.wait(lock, [&] { return region_.load() != last; });
    sleepers_.fetch_sub(1);
    return region_.load();
  }

  const int size_;
  std::vector<std::thread> workers_;
  std::mutex run_mutex_;

  detail::Body body_ = nullptr;
  void* context_ = nullptr;
  size_t largest_ = 1;

  /// Indices that one thread works through, so that it reads memory in one stream.
  struct alignas(64) Share {
    std::atomic<size_t> next{0};
    size_t end = 0;
  };
  std::unique_ptr<Share[]> shares_;

  alignas(64) std::atomic<uint32_t> region_{0};
  std::atomic<uint32_t> closed_{0};
  std::atomic<bool> stop_{false};
  alignas(64) std::atomic<int> inside_{0};
  alignas(64) std::atomic<int> sleepers_{0};
  std::mutex sleep_mutex_;
  std::condition_variable wake_;
};

std::mutex pool_mutex;
std::unique_ptr<Pool>& pool_slot() {
  // Never destroyed: a worker may still run while the process exits.
  static auto* slot = new std::unique_ptr<Pool>(std::make_unique<Pool>(usable_cores()));
  return *slot;
}

}  // namespace

int num_threads() { return pool_slot()->size(); }

int set_num_threads(int n) {
  std::lock_guard lock(pool_mutex);
  const int wanted = n <= 0 ? usable_cores() : std::min(n, MAX_THREADS);
  auto& slot = pool_slot();
  if (slot->size() != wanted) slot = std::make_unique<Pool>(wanted);
  return wanted;
}

void detail::parallel(size_t count, size_t largest, Body body, void* context) {
  if (count == 0) return;
  pool_slot()->run(count, largest, body, context);
}

}  // namespace omlx::kernels
