// A pool of worker threads for short parallel regions (microseconds).
#pragma once
#include <cstddef>
#include <type_traits>

namespace omlx::kernels {

/// Number of threads that parallel() uses, the caller included.
int num_threads();

/// Sets the number of threads (clamped to 1..256; 0 = one per usable core). Returns the new number.
/// Not to be called while another thread is inside parallel().
int set_num_threads(int n);

namespace detail {
using Body = void (*)(void* context, int thread, size_t begin, size_t end);
void parallel(size_t count, size_t largest, Body body, void* context);
}  // namespace detail

/// Runs f(thread, begin, end) for ranges that make up [0, count), each index exactly once, and returns when all are
/// done. thread < num_threads() names the scratch space that the call may use.
///
/// Every thread claims ranges of its own share in ascending order, then of those that others have left: a quarter of what
/// is left there, but at most `largest` indices. So threads read memory in long streams and yet end together. The caller
/// takes part and can finish alone: it waits only for ranges that a worker has already claimed, never for a worker that
/// has not woken up. When another thread is inside, the caller runs everything itself. f must not throw and must not
/// start a region of its own.
template <class F>
void parallel_ranges(size_t count, size_t largest, F&& f) {
  detail::parallel(
      count, largest,
      [](void* context, int thread, size_t begin, size_t end) {
        (*static_cast<std::remove_reference_t<F>*>(context))(thread, begin, end);
      },
      &f);
}

/// The same with f(thread, index), index by index: for work that takes longer than claiming it.
template <class F>
void parallel(size_t count, F&& f) {
  parallel_ranges(count, 1, [&f](int thread, size_t begin, size_t end) {
    for (size_t i = begin; i < end; i++) f(thread, i);
  });
}

}  // namespace omlx::kernels
