// Memory counters and limits, and the switches of the compiler.
#include "mlx/c/memory.h"

#include "mlx/c/compile.h"
#include "mlx/c/private/handles.h"
#include "mlx/compile.h"
#include "mlx/memory.h"

using namespace mlxc;

extern "C" int mlx_clear_cache(void) {
  return guarded([] { mx::clear_cache(); });
}

extern "C" int mlx_get_active_memory(size_t* res) {
  return guarded([&] { *res = mx::get_active_memory(); });
}

extern "C" int mlx_get_cache_memory(size_t* res) {
  return guarded([&] { *res = mx::get_cache_memory(); });
}

extern "C" int mlx_get_memory_limit(size_t* res) {
  return guarded([&] { *res = mx::get_memory_limit(); });
}

extern "C" int mlx_get_peak_memory(size_t* res) {
  return guarded([&] { *res = mx::get_peak_memory(); });
}

extern "C" int mlx_reset_peak_memory(void) {
  return guarded([] { mx::reset_peak_memory(); });
}

extern "C" int mlx_set_cache_limit(size_t* res, size_t limit) {
  return guarded([&] { *res = mx::set_cache_limit(limit); });
}

extern "C" int mlx_set_memory_limit(size_t* res, size_t limit) {
  return guarded([&] { *res = mx::set_memory_limit(limit); });
}

extern "C" int mlx_set_wired_limit(size_t* res, size_t limit) {
  return guarded([&] { *res = mx::set_wired_limit(limit); });
}

extern "C" int mlx_disable_compile(void) {
  return guarded([] { mx::disable_compile(); });
}

extern "C" int mlx_enable_compile(void) {
  return guarded([] { mx::enable_compile(); });
}
