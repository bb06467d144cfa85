// What the handles of the C API hold, and how C++ exceptions become status codes.
#pragma once

#include <exception>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "mlx/array.h"
#include "mlx/c/array.h"
#include "mlx/c/device.h"
#include "mlx/c/error.h"
#include "mlx/c/optional.h"
#include "mlx/c/stream.h"
#include "mlx/c/string.h"
#include "mlx/c/vector.h"
#include "mlx/device.h"
#include "mlx/stream.h"

namespace mlxc {

namespace mx = mlx::core;
using Arrays = std::vector<mx::array>;

/// Runs f; an exception goes to the error handler. Returns the status of a C function.
template <typename F>
int guarded(F&& f) {
  try {
    f();
    return 0;
  } catch (const std::exception& error) {
    mlx_error("%s", error.what());
  } catch (...) {
    mlx_error("unknown error");
  }
  return 1;
}

template <typename T>
T& held(void* ctx, const char* what) {
  if (ctx == nullptr) throw std::runtime_error(std::string("expected a non-empty ") + what);
  return *static_cast<T*>(ctx);
}

inline mx::array& get(mlx_array a) {
  return held<mx::array>(a.ctx, "mlx_array");
}
inline Arrays& get(mlx_vector_array v) {
  return held<Arrays>(v.ctx, "mlx_vector_array");
}
inline mx::Stream& get(mlx_stream s) {
  return held<mx::Stream>(s.ctx, "mlx_stream");
}
inline mx::Device& get(mlx_device d) {
  return held<mx::Device>(d.ctx, "mlx_device");
}
inline std::string& get(mlx_string s) {
  return held<std::string>(s.ctx, "mlx_string");
}

/// Stores a value in a handle, which may be empty.
template <typename Handle, typename T>
void put(Handle& handle, T value) {
  if (handle.ctx != nullptr) {
    *static_cast<T*>(handle.ctx) = std::move(value);
  } else {
    handle.ctx = new T(std::move(value));
  }
}

inline std::optional<mx::array> maybe(mlx_array a) {
  return a.ctx == nullptr ? std::nullopt : std::make_optional(get(a));
}
inline std::optional<int> maybe(mlx_optional_int i) {
  return i.has_value ? std::make_optional(i.value) : std::nullopt;
}
inline std::optional<float> maybe(mlx_optional_float f) {
  return f.has_value ? std::make_optional(f.value) : std::nullopt;
}

/// Throws for a number that is no dtype.
mx::Dtype to_dtype(mlx_dtype dtype);
mlx_dtype from_dtype(mx::Dtype dtype);

}  // namespace mlxc
