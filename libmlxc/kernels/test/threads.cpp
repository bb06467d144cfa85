#include "../threads.h"

#include <atomic>
#include <thread>

#include "check.h"

using namespace omlx::kernels;

TEST("parallel() runs every index exactly once, over many short regions") {
  const int before = num_threads();
  for (int threads : {1, 2, 3, 8}) {
    set_num_threads(threads);
    for (int region = 0; region < 3000; region++) {
      const size_t count = size_t(region % 40);
      std::vector<std::atomic<int>> runs(count);
      std::atomic<bool> strange{false};
      parallel(count, [&](int thread, size_t i) {
        runs[i].fetch_add(1);
        if (thread < 0 || thread >= threads) strange = true;
      });
      for (auto& r : runs)
        if (r != 1) return check::fail("an index ran " + std::to_string(r) + " times");
      check::that(!strange, "a thread number out of range");
    }
  }
  set_num_threads(before);
}

TEST("parallel_ranges() covers every index exactly once, in ranges of at most the size asked for") {
  const int before = num_threads();
  for (int threads : {1, 2, 3}) {
    set_num_threads(threads);
    for (size_t count : {1, 2, 7, 100, 1000}) {
      for (size_t largest : {size_t(1), size_t(5), count}) {
        std::vector<std::atomic<int>> runs(count);
        std::atomic<bool> wrong{false};
        for (int region = 0; region < 50; region++) {
          parallel_ranges(count, largest, [&](int, size_t begin, size_t end) {
            if (begin >= end || end > count || end - begin > largest) wrong = true;
            for (size_t i = begin; i < end; i++) runs[i]++;
          });
        }
        check::that(!wrong, "a range is empty, too large or out of bounds");
        for (const auto& n : runs) check::that(n == 50, "an index ran " + std::to_string(n.load()) + " times in 50 regions");
      }
    }
  }
  set_num_threads(before);
}

TEST("parallel() gives every thread of a region its own number") {
  const int before = num_threads();
  set_num_threads(3);
  std::vector<std::atomic<int>> inside(3);
  std::atomic<bool> shared{false};
  for (int region = 0; region < 300; region++) {
    parallel(64, [&](int thread, size_t) {
      if (inside[thread].fetch_add(1) != 0) shared = true;
      for (int spin = 0; spin < 200; spin++) std::atomic_signal_fence(std::memory_order_seq_cst);
      inside[thread].fetch_sub(1);
    });
  }
  check::that(!shared, "two threads had one number");
  set_num_threads(before);
}

TEST("parallel() wakes workers that have gone to sleep") {
  const int before = num_threads();
  set_num_threads(2);
  // A region whose two items wait for each other can only end with a second thread. The worker may be late, so that the
  // caller runs both items; try until it was there, each time after a pause that sends it to sleep.
  bool joined = false;
  for (int attempt = 0; attempt < 1000 && !joined; attempt++) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::atomic<bool> second{false};
    parallel(2, [&](int thread, size_t) {
      if (thread == 1) second = true;
      for (int spin = 0; spin < 200000 && !second; spin++) std::atomic_signal_fence(std::memory_order_seq_cst);
    });
    joined = second;
  }
  check::that(joined, "the worker never took part");
  set_num_threads(before);
}

TEST("parallel() may be called from two threads at a time") {
  std::atomic<long> total{0};
  const auto work = [&] {
    for (int region = 0; region < 2000; region++) parallel(16, [&](int, size_t i) { total += long(i); });
  };
  std::thread other(work);
  work();
  other.join();
  check::that(total == 2L * 2000 * 120, "sum " + std::to_string(total.load()));
}
