// Arrays and element types.
#include "mlx/c/array.h"

#include <iterator>
#include <sstream>

#include "mlx/c/private/handles.h"
#include "mlx/utils.h"

using namespace mlxc;

namespace {

// The order is that of mlx_dtype.
const mx::Dtype DTYPES[] = {
    mx::bool_,
    mx::uint8,
    mx::uint16,
    mx::uint32,
    mx::uint64,
    mx::int8,
    mx::int16,
    mx::int32,
    mx::int64,
    mx::float16,
    mx::float32,
    mx::float64,
    mx::bfloat16,
    mx::complex64,
};

/// The value of f, or `otherwise` after an exception.
template <typename T, typename F>
T guarded_value(T otherwise, F&& f) {
  T value = otherwise;
  guarded([&] { value = f(); });
  return value;
}

mx::array copy_of(const void* data, mx::Shape shape, mx::Dtype dtype) {
  switch (dtype) {
    case mx::bool_:
      return mx::array(static_cast<const bool*>(data), std::move(shape), dtype);
    case mx::uint8:
      return mx::array(static_cast<const uint8_t*>(data), std::move(shape), dtype);
    case mx::uint16:
      return mx::array(static_cast<const uint16_t*>(data), std::move(shape), dtype);
    case mx::uint32:
      return mx::array(static_cast<const uint32_t*>(data), std::move(shape), dtype);
    case mx::uint64:
      return mx::array(static_cast<const uint64_t*>(data), std::move(shape), dtype);
    case mx::int8:
      return mx::array(static_cast<const int8_t*>(data), std::move(shape), dtype);
    case mx::int16:
      return mx::array(static_cast<const int16_t*>(data), std::move(shape), dtype);
    case mx::int32:
      return mx::array(static_cast<const int32_t*>(data), std::move(shape), dtype);
    case mx::int64:
      return mx::array(static_cast<const int64_t*>(data), std::move(shape), dtype);
    case mx::float16:
      return mx::array(static_cast<const mx::float16_t*>(data), std::move(shape), dtype);
    case mx::float32:
      return mx::array(static_cast<const float*>(data), std::move(shape), dtype);
    case mx::float64:
      return mx::array(static_cast<const double*>(data), std::move(shape), dtype);
    case mx::bfloat16:
      return mx::array(static_cast<const mx::bfloat16_t*>(data), std::move(shape), dtype);
    case mx::complex64:
      return mx::array(static_cast<const mx::complex64_t*>(data), std::move(shape), dtype);
  }
  throw std::invalid_argument("unknown dtype");
}

template <typename T>
mlx_array scalar(T value) {
  mlx_array result{nullptr};
  guarded([&] { put(result, mx::array(value)); });
  return result;
}

}  // namespace

mx::Dtype mlxc::to_dtype(mlx_dtype dtype) {
  if (static_cast<size_t>(dtype) >= std::size(DTYPES)) throw std::invalid_argument("unknown dtype");
  return DTYPES[dtype];
}

mlx_dtype mlxc::from_dtype(mx::Dtype dtype) {
  for (size_t i = 0; i < std::size(DTYPES); ++i) {
    if (DTYPES[i].val() == dtype.val()) return static_cast<mlx_dtype>(i);
  }
  throw std::invalid_argument("unknown dtype");
}

extern "C" size_t mlx_dtype_size(mlx_dtype dtype) {
  return guarded_value<size_t>(0, [&] { return mx::size_of(to_dtype(dtype)); });
}

extern "C" int mlx_array_tostring(mlx_string* str, const mlx_array arr) {
  return guarded([&] {
    std::ostringstream out;
    out << get(arr);
    put(*str, out.str());
  });
}

extern "C" mlx_array mlx_array_new(void) {
  return mlx_array{nullptr};
}

extern "C" int mlx_array_free(mlx_array arr) {
  return guarded([&] { delete static_cast<mx::array*>(arr.ctx); });
}

extern "C" mlx_array mlx_array_new_bool(bool val) {
  return scalar(val);
}

extern "C" mlx_array mlx_array_new_int(int val) {
  return scalar(val);
}

extern "C" mlx_array mlx_array_new_float32(float val) {
  return scalar(val);
}

extern "C" mlx_array mlx_array_new_float(float val) {
  return scalar(val);
}

extern "C" mlx_array
mlx_array_new_data(const void* data, const int* shape, int dim, mlx_dtype dtype) {
  mlx_array result{nullptr};
  guarded([&] { put(result, copy_of(data, mx::Shape(shape, shape + dim), to_dtype(dtype))); });
  return result;
}

extern "C" mlx_array mlx_array_new_data_managed_payload(
    void* data,
    const int* shape,
    int dim,
    mlx_dtype dtype,
    void* payload,
    void (*dtor)(void*)) {
  mlx_array result{nullptr};
  guarded([&] {
    put(result,
        mx::array(
            data, mx::Shape(shape, shape + dim), to_dtype(dtype), [payload, dtor](void*) {
              dtor(payload);
            }));
  });
  return result;
}

extern "C" mlx_array mlx_array_new_data_managed(
    void* data,
    const int* shape,
    int dim,
    mlx_dtype dtype,
    void (*dtor)(void*)) {
  return mlx_array_new_data_managed_payload(data, shape, dim, dtype, data, dtor);
}

extern "C" int mlx_array_set(mlx_array* arr, const mlx_array src) {
  return guarded([&] { put(*arr, mx::array(get(src))); });
}

extern "C" size_t mlx_array_itemsize(const mlx_array arr) {
  return guarded_value<size_t>(0, [&] { return get(arr).itemsize(); });
}

extern "C" size_t mlx_array_size(const mlx_array arr) {
  return guarded_value<size_t>(0, [&] { return get(arr).size(); });
}

extern "C" size_t mlx_array_nbytes(const mlx_array arr) {
  return guarded_value<size_t>(0, [&] { return get(arr).nbytes(); });
}

extern "C" size_t mlx_array_ndim(const mlx_array arr) {
  return guarded_value<size_t>(0, [&] { return get(arr).ndim(); });
}

extern "C" const int* mlx_array_shape(const mlx_array arr) {
  return guarded_value<const int*>(nullptr, [&] { return get(arr).shape().data(); });
}

extern "C" const size_t* mlx_array_strides(const mlx_array arr) {
  return guarded_value<const size_t*>(nullptr, [&] {
    return reinterpret_cast<const size_t*>(get(arr).strides().data());
  });
}

extern "C" int mlx_array_dim(const mlx_array arr, int dim) {
  return guarded_value(0, [&] { return get(arr).shape(dim); });
}

extern "C" mlx_dtype mlx_array_dtype(const mlx_array arr) {
  return guarded_value(MLX_BOOL, [&] { return from_dtype(get(arr).dtype()); });
}

extern "C" int mlx_array_eval(mlx_array arr) {
  return guarded([&] { get(arr).eval(); });
}

extern "C" int mlx_array_item_bool(bool* res, const mlx_array arr) {
  return guarded([&] { *res = get(arr).item<bool>(); });
}

extern "C" int mlx_array_item_uint32(uint32_t* res, const mlx_array arr) {
  return guarded([&] { *res = get(arr).item<uint32_t>(); });
}

extern "C" int mlx_array_item_int32(int32_t* res, const mlx_array arr) {
  return guarded([&] { *res = get(arr).item<int32_t>(); });
}

extern "C" int mlx_array_item_float32(float* res, const mlx_array arr) {
  return guarded([&] { *res = get(arr).item<float>(); });
}

#define DATA(name, type)                                                               \
  extern "C" const type* mlx_array_data_##name(const mlx_array arr) {                  \
    return guarded_value<const type*>(nullptr, [&] { return get(arr).data<type>(); }); \
  }

DATA(bool, bool)
DATA(uint8, uint8_t)
DATA(uint16, uint16_t)
DATA(uint32, uint32_t)
DATA(int32, int32_t)
DATA(float32, float)

extern "C" int _mlx_array_is_available(bool* res, const mlx_array arr) {
  return guarded([&] { *res = get(arr).is_available(); });
}

extern "C" int _mlx_array_wait(const mlx_array arr) {
  return guarded([&] { get(arr).wait(); });
}

extern "C" int _mlx_array_is_contiguous(bool* res, const mlx_array arr) {
  return guarded([&] { *res = get(arr).flags().contiguous; });
}

extern "C" int _mlx_array_is_row_contiguous(bool* res, const mlx_array arr) {
  return guarded([&] { *res = get(arr).flags().row_contiguous; });
}

extern "C" int _mlx_array_is_col_contiguous(bool* res, const mlx_array arr) {
  return guarded([&] { *res = get(arr).flags().col_contiguous; });
}
