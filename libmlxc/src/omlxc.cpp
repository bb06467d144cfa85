// The shim: mlx-c calls in the shape that bun:ffi is fast with. Written against the mlx-c API only.
#include "omlxc.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "internal.h"
#include "mlx/c/mlx.h"

namespace {

thread_local std::string last_error;
thread_local mlx_stream current{nullptr};
std::atomic<int64_t> live{0};

/// mlx-c adds " at file:line" to what MLX says; a reader of the message gains nothing from it.
std::string without_place(const char* message) {
  std::string text(message);
  const size_t colon = text.rfind(':');
  const size_t at = text.rfind(" at ");
  if (at == std::string::npos || colon == std::string::npos || colon < at) return text;
  const bool is_line = colon + 1 < text.size() &&
      text.find_first_not_of("0123456789", colon + 1) == std::string::npos;
  return is_line ? text.substr(0, at) : text;
}

void on_error(const char* message, void*) {
  omlx::set_error(without_place(message).c_str());
}

int failed(const char* text) {
  omlx::set_error(text);
  return -1;
}

/// The bytes of an evaluated, row-major array.
int copy_out(mlx_array array, void* out, double bytes) {
  const size_t size = mlx_array_nbytes(array);
  if (static_cast<double>(size) != bytes) return failed("the buffer does not have the array's size");
  if (size > 0) std::memcpy(out, mlx_array_data_uint8(array), size);
  return 0;
}

mlx_array as_array(void* handle) {
  return mlx_array{handle};
}

mlx_stream stream() {
  return current;
}

/// Runs an mlx-c call that sets an array.
template <typename F>
void* made(F&& call) {
  if (current.ctx == nullptr) {
    omlx::set_error("omlx_init was not called in this thread");
    return nullptr;
  }
  mlx_array result = mlx_array_new();
  if (call(&result) != 0) {
    mlx_array_free(result);
    return nullptr;
  }
  return omlx::give(result.ctx);
}

/// A list of handles as mlx-c wants it.
class List {
 public:
  List(const double* handles, int count) {
    std::vector<mlx_array> arrays;
    arrays.reserve(static_cast<size_t>(count));
    for (int i = 0; i < count; ++i) {
      arrays.push_back(as_array(reinterpret_cast<void*>(static_cast<uintptr_t>(handles[i]))));
    }
    value_ = mlx_vector_array_new_data(arrays.data(), arrays.size());
  }
  explicit List(mlx_vector_array value) : value_(value) {}
  List(const List&) = delete;
  List& operator=(const List&) = delete;
  ~List() {
    if (value_.ctx != nullptr) mlx_vector_array_free(value_);
  }

  /// False when a handle of the list was no array.
  bool valid() const {
    return value_.ctx != nullptr;
  }
  mlx_vector_array get() const {
    return value_;
  }
  mlx_vector_array* out() {
    return &value_;
  }

 private:
  mlx_vector_array value_{nullptr};
};

/// Writes the list's arrays as handles of their own.
int hand_out(const List& list, int expected, double* out) {
  const int count = static_cast<int>(mlx_vector_array_size(list.get()));
  if (count != expected) return failed("unexpected number of results");
  for (int i = 0; i < count; ++i) {
    mlx_array item = mlx_array_new();
    if (mlx_vector_array_get(&item, list.get(), static_cast<size_t>(i)) != 0) {
      omlx_free_many(out, i);
      return -1;
    }
    out[i] = static_cast<double>(reinterpret_cast<uintptr_t>(omlx::give(item.ctx)));
  }
  return 0;
}

mlx_optional_int some(int value) {
  return mlx_optional_int{value, true};
}

/// A temporary array that is freed here.
struct Temp {
  mlx_array value = mlx_array_new();
  Temp() = default;
  explicit Temp(mlx_array array) : value(array) {}
  Temp(const Temp&) = delete;
  Temp& operator=(const Temp&) = delete;
  ~Temp() {
    mlx_array_free(value);
  }
};

/// A scalar of the dtype that holds value best before MLX casts it.
mlx_array scalar_of(double value) {
  const bool is_int = std::trunc(value) == value &&
      value >= std::numeric_limits<int>::min() && value <= std::numeric_limits<int>::max();
  // -0 must stay a float
  return is_int && !std::signbit(value == 0 ? value : 1.0)
      ? mlx_array_new_int(static_cast<int>(value))
      : mlx_array_new_float(static_cast<float>(value));
}


}  // namespace

void omlx::set_error(const char* text) {
  last_error = text == nullptr || *text == '\0' ? "unknown error" : text;
}

void* omlx::give(void* handle) {
  if (handle != nullptr) live.fetch_add(1, std::memory_order_relaxed);
  return handle;
}

extern "C" {

/* ---- start and errors ---- */

int omlx_init(int device) {
  mlx_set_error_handler(on_error, nullptr, nullptr);
  if (std::strcmp(omlx_version(), omlx_built_for()) != 0) {
    return failed((std::string("built for MLX ") + omlx_built_for() + ", but MLX " +
                   omlx_version() + " was loaded")
                      .c_str());
  }
  if (device != 0 && device != 1) return failed("device must be 0 (CPU) or 1 (GPU)");
  mlx_device wanted = mlx_device_new_type(device == 1 ? MLX_GPU : MLX_CPU, 0);
  bool available = false;
  int status = mlx_device_is_available(&available, wanted);
  if (status == 0 && !available) {
    status = failed(device == 1 ? "this build of MLX has no GPU device" : "MLX has no CPU device");
  }
  if (status == 0) status = mlx_set_default_device(wanted);
  if (status == 0) status = device == 0 ? mlx_disable_compile() : mlx_enable_compile();
  if (status == 0) status = mlx_get_default_stream(&current, wanted);
  mlx_device_free(wanted);
  return status == 0 ? 0 : -1;
}

const char* omlx_last_error(void) {
  return last_error.c_str();
}

const char* omlx_version(void) {
  static const std::string version = [] {
    mlx_string text = mlx_string_new();
    std::string result;
    if (mlx_version(&text) == 0) result = mlx_string_data(text);
    mlx_string_free(text);
    return result;
  }();
  return version.c_str();
}

const char* omlx_built_for(void) {
  return OMLX_MLX_VERSION;
}

const char* omlx_signatures(int which) {
  return which == 0 ? OMLX_SIGNATURES : OMLX_KERNEL_SIGNATURES;
}

int omlx_has_kernels(void) {
  return OMLX_HAS_KERNELS;
}

/* ---- lifetime ---- */

void omlx_free(void* array) {
  if (array == nullptr) return;
  mlx_array_free(as_array(array));
  live.fetch_sub(1, std::memory_order_relaxed);
}

void omlx_free_many(const double* handles, int count) {
  for (int i = 0; i < count; ++i) {
    omlx_free(reinterpret_cast<void*>(static_cast<uintptr_t>(handles[i])));
  }
}

double omlx_live_arrays(void) {
  return static_cast<double>(live.load());
}

/* ---- making arrays ---- */

void* omlx_array(const void* data, const int* shape, int ndim, int dtype) {
  return omlx::give(mlx_array_new_data(data, shape, ndim, static_cast<mlx_dtype>(dtype)).ctx);
}

void* omlx_zeros(const int* shape, int ndim, int dtype) {
  return made([&](mlx_array* result) {
    return mlx_zeros(
        result, shape, static_cast<size_t>(ndim), static_cast<mlx_dtype>(dtype), stream());
  });
}

void* omlx_full(double value, const int* shape, int ndim, int dtype) {
  return made([&](mlx_array* result) {
    Temp scalar(scalar_of(value));
    return mlx_full(
        result,
        shape,
        static_cast<size_t>(ndim),
        scalar.value,
        static_cast<mlx_dtype>(dtype),
        stream());
  });
}

void* omlx_scalar(double value, int dtype) {
  // the dtypes that most scalars have need no graph node
  switch (dtype) {
    case MLX_FLOAT32: {
      const float element = static_cast<float>(value);
      return omlx_array(&element, nullptr, 0, dtype);
    }
    case MLX_INT32: {
      const int64_t element = static_cast<int64_t>(value);
      const int32_t low = static_cast<int32_t>(element);
      return omlx_array(&low, nullptr, 0, dtype);
    }
    default:
      return made([&](mlx_array* result) {
        Temp scalar(scalar_of(value));
        return mlx_astype(result, scalar.value, static_cast<mlx_dtype>(dtype), stream());
      });
  }
}

void* omlx_arange(int start, int stop) {
  const int count = stop > start ? stop - start : 0;
  std::vector<int> values(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) values[static_cast<size_t>(i)] = start + i;
  return omlx_array(values.data(), &count, 1, MLX_INT32);
}

/* ---- running and reading ---- */

int omlx_eval(const double* handles, int count) {
  List list(handles, count);
  return list.valid() && mlx_eval(list.get()) == 0 ? 0 : -1;
}

int omlx_async_eval(const double* handles, int count) {
  List list(handles, count);
  return list.valid() && mlx_async_eval(list.get()) == 0 ? 0 : -1;
}

int omlx_synchronize(void) {
  return mlx_synchronize(stream()) == 0 ? 0 : -1;
}

int omlx_read(void* array, int dtype, void* out, double bytes) {
  const mlx_array source = as_array(array);
  const mlx_dtype wanted = static_cast<mlx_dtype>(dtype);
  Temp cast;
  Temp dense;
  bool ready = false;
  bool plain = false;
  int status = _mlx_array_is_available(&ready, source);
  if (status == 0 && ready) status = _mlx_array_is_row_contiguous(&plain, source);
  if (status != 0) return -1;
  if (plain && mlx_array_dtype(source) == wanted) return copy_out(source, out, bytes);  // nothing to evaluate
  status = mlx_array_dtype(source) == wanted
      ? mlx_array_set(&cast.value, source)
      : mlx_astype(&cast.value, source, wanted, stream());
  if (status == 0) status = mlx_contiguous(&dense.value, cast.value, false, stream());
  if (status == 0) status = mlx_array_eval(dense.value);
  if (status != 0) return -1;
  return copy_out(dense.value, out, bytes);
}

void* omlx_data(void* array) {
  const mlx_array source = as_array(array);
  bool ready = false;
  bool dense = false;
  if (_mlx_array_is_available(&ready, source) != 0) return nullptr;
  if (!ready) {
    omlx::set_error("the array is not evaluated");
    return nullptr;
  }
  if (_mlx_array_is_row_contiguous(&dense, source) != 0) return nullptr;
  if (!dense) {
    omlx::set_error("the array is not row-major");
    return nullptr;
  }
  return const_cast<uint8_t*>(mlx_array_data_uint8(source));
}

int omlx_shape(void* array, int* out) {
  const mlx_array source = as_array(array);
  const size_t ndim = mlx_array_ndim(source);
  if (ndim > 8) return failed("more than 8 dimensions");
  if (ndim > 0) std::memcpy(out, mlx_array_shape(source), ndim * sizeof(int));
  return static_cast<int>(ndim);
}

int omlx_dtype(void* array) {
  return static_cast<int>(mlx_array_dtype(as_array(array)));
}

/* ---- element by element ---- */

#define UNARY(name)                                                                \
  void* omlx_##name(void* a) {                                                     \
    return made([&](mlx_array* r) { return mlx_##name(r, as_array(a), stream()); }); \
  }

#define BINARY(name)                                                                \
  void* omlx_##name(void* a, void* b) {                                             \
    return made(                                                                    \
        [&](mlx_array* r) { return mlx_##name(r, as_array(a), as_array(b), stream()); }); \
  }

UNARY(abs)
UNARY(cos)
UNARY(erf)
UNARY(exp)
UNARY(log)
UNARY(negative)
UNARY(rsqrt)
UNARY(sigmoid)
UNARY(sin)
UNARY(sqrt)
UNARY(square)
UNARY(tanh)

BINARY(add)
BINARY(subtract)
BINARY(multiply)
BINARY(divide)
BINARY(maximum)
BINARY(minimum)
BINARY(power)
BINARY(logaddexp)
BINARY(equal)
BINARY(not_equal)
BINARY(greater)
BINARY(greater_equal)
BINARY(less)
BINARY(less_equal)
BINARY(logical_and)
BINARY(logical_or)

void* omlx_where(void* condition, void* x, void* y) {
  return made([&](mlx_array* r) {
    return mlx_where(r, as_array(condition), as_array(x), as_array(y), stream());
  });
}

void* omlx_astype(void* a, int dtype) {
  return made([&](mlx_array* r) {
    return mlx_astype(r, as_array(a), static_cast<mlx_dtype>(dtype), stream());
  });
}

/* ---- along one axis ---- */

#define REDUCTION(name)                                                            \
  void* omlx_##name(void* a, int axis, int keepdims) {                             \
    return made([&](mlx_array* r) {                                                \
      return mlx_##name##_axis(r, as_array(a), axis, keepdims != 0, stream());     \
    });                                                                            \
  }

REDUCTION(sum)
REDUCTION(mean)
REDUCTION(max)
REDUCTION(min)
REDUCTION(logsumexp)
REDUCTION(argmax)

void* omlx_softmax(void* a, int axis, int precise) {
  return made([&](mlx_array* r) {
    return mlx_softmax_axis(r, as_array(a), axis, precise != 0, stream());
  });
}

void* omlx_take(void* a, void* indices, int axis) {
  return made([&](mlx_array* r) {
    return mlx_take_axis(r, as_array(a), as_array(indices), axis, stream());
  });
}

void* omlx_take_along_axis(void* a, void* indices, int axis) {
  return made([&](mlx_array* r) {
    return mlx_take_along_axis(r, as_array(a), as_array(indices), axis, stream());
  });
}

/* ---- shapes ---- */

void* omlx_reshape(void* a, const int* shape, int ndim) {
  return made([&](mlx_array* r) {
    return mlx_reshape(r, as_array(a), shape, static_cast<size_t>(ndim), stream());
  });
}

void* omlx_broadcast_to(void* a, const int* shape, int ndim) {
  return made([&](mlx_array* r) {
    return mlx_broadcast_to(r, as_array(a), shape, static_cast<size_t>(ndim), stream());
  });
}

void* omlx_transpose(void* a, const int* axes, int ndim) {
  return made([&](mlx_array* r) {
    return mlx_transpose_axes(r, as_array(a), axes, static_cast<size_t>(ndim), stream());
  });
}

void* omlx_swapaxes(void* a, int axis1, int axis2) {
  return made(
      [&](mlx_array* r) { return mlx_swapaxes(r, as_array(a), axis1, axis2, stream()); });
}

void* omlx_expand_dims(void* a, int axis) {
  return made([&](mlx_array* r) { return mlx_expand_dims(r, as_array(a), axis, stream()); });
}

void* omlx_squeeze(void* a, int axis) {
  return made([&](mlx_array* r) { return mlx_squeeze_axis(r, as_array(a), axis, stream()); });
}

void* omlx_contiguous(void* a) {
  return made([&](mlx_array* r) { return mlx_contiguous(r, as_array(a), false, stream()); });
}

void* omlx_concatenate(const double* handles, int count, int axis) {
  List list(handles, count);
  if (!list.valid()) return nullptr;
  return made(
      [&](mlx_array* r) { return mlx_concatenate_axis(r, list.get(), axis, stream()); });
}

int omlx_split(void* a, int parts, int axis, double* out) {
  List list(mlx_vector_array_new());
  if (mlx_split(list.out(), as_array(a), parts, axis, stream()) != 0) return -1;
  return hand_out(list, parts, out);
}

void* omlx_slice(void* a, const int* bounds, int ndim) {
  const size_t n = static_cast<size_t>(ndim);
  return made([&](mlx_array* r) {
    return mlx_slice(
        r, as_array(a), bounds, n, bounds + n, n, bounds + 2 * n, n, stream());
  });
}

void* omlx_slice_update(void* src, void* update, const int* bounds, int ndim) {
  const size_t n = static_cast<size_t>(ndim);
  return made([&](mlx_array* r) {
    return mlx_slice_update(
        r,
        as_array(src),
        as_array(update),
        bounds,
        n,
        bounds + n,
        n,
        bounds + 2 * n,
        n,
        stream());
  });
}

/* ---- matrices ---- */

BINARY(matmul)

void* omlx_addmm(void* c, void* a, void* b, float alpha, float beta) {
  return made([&](mlx_array* r) {
    return mlx_addmm(r, as_array(c), as_array(a), as_array(b), alpha, beta, stream());
  });
}

void* omlx_quantized_matmul(
    void* x,
    void* w,
    void* scales,
    void* biases,
    int transpose,
    int group_size,
    int bits) {
  return made([&](mlx_array* r) {
    return mlx_quantized_matmul(
        r,
        as_array(x),
        as_array(w),
        as_array(scales),
        as_array(biases),
        transpose != 0,
        some(group_size),
        some(bits),
        "affine",
        stream());
  });
}

void* omlx_dequantize(void* w, void* scales, void* biases, int group_size, int bits, int dtype) {
  const mlx_optional_dtype type = dtype < 0
      ? mlx_optional_dtype{MLX_FLOAT32, false}
      : mlx_optional_dtype{static_cast<mlx_dtype>(dtype), true};
  return made([&](mlx_array* r) {
    return mlx_dequantize(
        r,
        as_array(w),
        as_array(scales),
        as_array(biases),
        some(group_size),
        some(bits),
        "affine",
        mlx_array_new(),
        type,
        stream());
  });
}

int omlx_quantize(void* w, int group_size, int bits, double* out) {
  List list(mlx_vector_array_new());
  const int status = mlx_quantize(
      list.out(),
      as_array(w),
      some(group_size),
      some(bits),
      "affine",
      mlx_array_new(),
      stream());
  return status == 0 ? hand_out(list, 3, out) : -1;
}

/* ---- fused ---- */

void* omlx_rms_norm(void* x, void* weight, float eps) {
  return made([&](mlx_array* r) {
    return mlx_fast_rms_norm(r, as_array(x), as_array(weight), eps, stream());
  });
}

void* omlx_layer_norm(void* x, void* weight, void* bias, float eps) {
  return made([&](mlx_array* r) {
    return mlx_fast_layer_norm(r, as_array(x), as_array(weight), as_array(bias), eps, stream());
  });
}

void* omlx_rope(
    void* x,
    int dims,
    int traditional,
    int offset,
    void* freqs,
    float base,
    float scale) {
  return made([&](mlx_array* r) {
    const mlx_optional_float optional{base, freqs == nullptr};
    return mlx_fast_rope(
        r,
        as_array(x),
        dims,
        traditional != 0,
        optional,
        scale,
        offset,
        as_array(freqs),
        stream());
  });
}

void* omlx_rope_dynamic(
    void* x,
    int dims,
    int traditional,
    void* offset,
    void* freqs,
    float base,
    float scale) {
  return made([&](mlx_array* r) {
    const mlx_optional_float optional{base, freqs == nullptr};
    return mlx_fast_rope_dynamic(
        r,
        as_array(x),
        dims,
        traditional != 0,
        optional,
        scale,
        as_array(offset),
        as_array(freqs),
        stream());
  });
}

void* omlx_sdpa(void* q, void* k, void* v, void* mask, int mode, float scale) {
  const char* name = mode == 1 ? "causal" : mode == 2 ? "array" : "";
  return made([&](mlx_array* r) {
    return mlx_fast_scaled_dot_product_attention(
        r,
        as_array(q),
        as_array(k),
        as_array(v),
        scale,
        name,
        as_array(mode == 2 ? mask : nullptr),
        mlx_array_new(),
        stream());
  });
}

/* ---- memory ---- */

double omlx_memory(int which) {
  size_t bytes = 0;
  const int status = which == 0 ? mlx_get_active_memory(&bytes)
      : which == 1              ? mlx_get_peak_memory(&bytes)
                                : mlx_get_cache_memory(&bytes);
  return status == 0 ? static_cast<double>(bytes) : -1;
}

int omlx_reset_peak(void) {
  return mlx_reset_peak_memory() == 0 ? 0 : -1;
}

int omlx_clear_cache(void) {
  return mlx_clear_cache() == 0 ? 0 : -1;
}

double omlx_set_cache_limit(double bytes) {
  size_t before = 0;
  return mlx_set_cache_limit(&before, static_cast<size_t>(bytes)) == 0
      ? static_cast<double>(before)
      : -1;
}

double omlx_set_memory_limit(double bytes) {
  size_t before = 0;
  return mlx_set_memory_limit(&before, static_cast<size_t>(bytes)) == 0
      ? static_cast<double>(before)
      : -1;
}

/* ---- checks of the bindings themselves ---- */

double omlx_probe_read(const int* values, int count) {
  double sum = 0;
  for (int i = 0; i < count; ++i) sum += values[i];
  return sum;
}

void omlx_probe_write(int* values, int count, int seed) {
  for (int i = 0; i < count; ++i) values[i] = seed + i;
}

}  // extern "C"
