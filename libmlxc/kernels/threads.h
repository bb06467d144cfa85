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
using Body = void (*)(void* context, int thread, size_t index);
void parallel(size_t count, Body body, void* context);
}  // namespace detail

/// Runs f(thread, index) for every index in [0, count), each exactly once, and returns when all are
/// done. thread < num_threads() names the scratch space that the call may use.
///
/// Every thread claims indices of its own share in ascending order, then those that others have left. The caller
/// takes part and can finish alone: it
/// waits only for indices that a worker has already claimed, never for a worker that has not woken
/// up. When another thread is inside parallel(), the caller runs everything itself. f must not throw
/// and must not call parallel().
template <class F>
void parallel(size_t count, F&& f) {
  detail::parallel(
      count,
      [](void* context, int thread, size_t index) {
        (*static_cast<std::remove_reference_t<F>*>(context))(thread, index);
      },
      &f);
}

}  // namespace omlx::kernels
