// Operations, each one call of MLX's C++ API.
#include "mlx/c/ops.h"

#include "mlx/c/private/handles.h"
#include "mlx/ops.h"

using namespace mlxc;

namespace {

mx::Shape ints(const int* data, size_t size) {
  return mx::Shape(data, data + size);
}

}  // namespace

#define UNARY(name)                                                                    \
  extern "C" int mlx_##name(mlx_array* res, const mlx_array a, const mlx_stream s) {   \
    return guarded([&] { put(*res, mx::name(get(a), get(s))); });                      \
  }

#define BINARY(name)                                                                   \
  extern "C" int mlx_##name(                                                           \
      mlx_array* res, const mlx_array a, const mlx_array b, const mlx_stream s) {      \
    return guarded([&] { put(*res, mx::name(get(a), get(b), get(s))); });              \
  }

#define REDUCTION(name)                                                                \
  extern "C" int mlx_##name##_axis(                                                    \
      mlx_array* res, const mlx_array a, int axis, bool keepdims, const mlx_stream s) { \
    return guarded([&] { put(*res, mx::name(get(a), axis, keepdims, get(s))); });      \
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
BINARY(divide)
BINARY(equal)
BINARY(greater)
BINARY(greater_equal)
BINARY(less)
BINARY(less_equal)
BINARY(logaddexp)
BINARY(logical_and)
BINARY(logical_or)
BINARY(matmul)
BINARY(maximum)
BINARY(minimum)
BINARY(multiply)
BINARY(not_equal)
BINARY(power)
BINARY(subtract)

REDUCTION(logsumexp)
REDUCTION(max)
REDUCTION(mean)
REDUCTION(min)
REDUCTION(sum)
REDUCTION(argmax)

extern "C" int mlx_where(
    mlx_array* res,
    const mlx_array condition,
    const mlx_array x,
    const mlx_array y,
    const mlx_stream s) {
  return guarded([&] { put(*res, mx::where(get(condition), get(x), get(y), get(s))); });
}

extern "C" int mlx_astype(mlx_array* res, const mlx_array a, mlx_dtype dtype, const mlx_stream s) {
  return guarded([&] { put(*res, mx::astype(get(a), to_dtype(dtype), get(s))); });
}

extern "C" int
mlx_softmax_axis(mlx_array* res, const mlx_array a, int axis, bool precise, const mlx_stream s) {
  return guarded([&] { put(*res, mx::softmax(get(a), axis, precise, get(s))); });
}

extern "C" int mlx_take_axis(
    mlx_array* res,
    const mlx_array a,
    const mlx_array indices,
    int axis,
    const mlx_stream s) {
  return guarded([&] { put(*res, mx::take(get(a), get(indices), axis, get(s))); });
}

extern "C" int mlx_take_along_axis(
    mlx_array* res,
    const mlx_array a,
    const mlx_array indices,
    int axis,
    const mlx_stream s) {
  return guarded([&] { put(*res, mx::take_along_axis(get(a), get(indices), axis, get(s))); });
}

extern "C" int mlx_broadcast_to(
    mlx_array* res,
    const mlx_array a,
    const int* shape,
    size_t shape_num,
    const mlx_stream s) {
  return guarded([&] { put(*res, mx::broadcast_to(get(a), ints(shape, shape_num), get(s))); });
}

extern "C" int mlx_concatenate_axis(
    mlx_array* res,
    const mlx_vector_array arrays,
    int axis,
    const mlx_stream s) {
  return guarded([&] { put(*res, mx::concatenate(get(arrays), axis, get(s))); });
}

extern "C" int
mlx_contiguous(mlx_array* res, const mlx_array a, bool allow_col_major, const mlx_stream s) {
  return guarded([&] { put(*res, mx::contiguous(get(a), allow_col_major, get(s))); });
}

extern "C" int mlx_expand_dims(mlx_array* res, const mlx_array a, int axis, const mlx_stream s) {
  return guarded([&] { put(*res, mx::expand_dims(get(a), axis, get(s))); });
}

extern "C" int mlx_full(
    mlx_array* res,
    const int* shape,
    size_t shape_num,
    const mlx_array vals,
    mlx_dtype dtype,
    const mlx_stream s) {
  return guarded(
      [&] { put(*res, mx::full(ints(shape, shape_num), get(vals), to_dtype(dtype), get(s))); });
}

extern "C" int mlx_reshape(
    mlx_array* res,
    const mlx_array a,
    const int* shape,
    size_t shape_num,
    const mlx_stream s) {
  return guarded([&] { put(*res, mx::reshape(get(a), ints(shape, shape_num), get(s))); });
}

extern "C" int mlx_slice(
    mlx_array* res,
    const mlx_array a,
    const int* start,
    size_t start_num,
    const int* stop,
    size_t stop_num,
    const int* strides,
    size_t strides_num,
    const mlx_stream s) {
  return guarded([&] {
    put(*res,
        mx::slice(
            get(a),
            ints(start, start_num),
            ints(stop, stop_num),
            ints(strides, strides_num),
            get(s)));
  });
}

extern "C" int mlx_slice_update(
    mlx_array* res,
    const mlx_array src,
    const mlx_array update,
    const int* start,
    size_t start_num,
    const int* stop,
    size_t stop_num,
    const int* strides,
    size_t strides_num,
    const mlx_stream s) {
  return guarded([&] {
    put(*res,
        mx::slice_update(
            get(src),
            get(update),
            ints(start, start_num),
            ints(stop, stop_num),
            ints(strides, strides_num),
            get(s)));
  });
}

extern "C" int mlx_split(
    mlx_vector_array* res,
    const mlx_array a,
    int num_splits,
    int axis,
    const mlx_stream s) {
  return guarded([&] { put(*res, mx::split(get(a), num_splits, axis, get(s))); });
}

extern "C" int mlx_squeeze_axis(mlx_array* res, const mlx_array a, int axis, const mlx_stream s) {
  return guarded([&] { put(*res, mx::squeeze(get(a), axis, get(s))); });
}

extern "C" int
mlx_swapaxes(mlx_array* res, const mlx_array a, int axis1, int axis2, const mlx_stream s) {
  return guarded([&] { put(*res, mx::swapaxes(get(a), axis1, axis2, get(s))); });
}

extern "C" int mlx_transpose_axes(
    mlx_array* res,
    const mlx_array a,
    const int* axes,
    size_t axes_num,
    const mlx_stream s) {
  return guarded(
      [&] { put(*res, mx::transpose(get(a), std::vector<int>(axes, axes + axes_num), get(s))); });
}

extern "C" int mlx_zeros(
    mlx_array* res,
    const int* shape,
    size_t shape_num,
    mlx_dtype dtype,
    const mlx_stream s) {
  return guarded(
      [&] { put(*res, mx::zeros(ints(shape, shape_num), to_dtype(dtype), get(s))); });
}

extern "C" int mlx_addmm(
    mlx_array* res,
    const mlx_array c,
    const mlx_array a,
    const mlx_array b,
    float alpha,
    float beta,
    const mlx_stream s) {
  return guarded([&] { put(*res, mx::addmm(get(c), get(a), get(b), alpha, beta, get(s))); });
}

extern "C" int mlx_quantize(
    mlx_vector_array* res,
    const mlx_array w,
    mlx_optional_int group_size,
    mlx_optional_int bits,
    const char* mode,
    const mlx_array global_scale,
    const mlx_stream s) {
  return guarded([&] {
    put(*res,
        mx::quantize(get(w), maybe(group_size), maybe(bits), mode, maybe(global_scale), get(s)));
  });
}

extern "C" int mlx_dequantize(
    mlx_array* res,
    const mlx_array w,
    const mlx_array scales,
    const mlx_array biases,
    mlx_optional_int group_size,
    mlx_optional_int bits,
    const char* mode,
    const mlx_array global_scale,
    mlx_optional_dtype dtype,
    const mlx_stream s) {
  return guarded([&] {
    std::optional<mx::Dtype> type;
    if (dtype.has_value) type = to_dtype(dtype.value);
    put(*res,
        mx::dequantize(
            get(w),
            get(scales),
            maybe(biases),
            maybe(group_size),
            maybe(bits),
            mode,
            maybe(global_scale),
            type,
            get(s)));
  });
}

extern "C" int mlx_quantized_matmul(
    mlx_array* res,
    const mlx_array x,
    const mlx_array w,
    const mlx_array scales,
    const mlx_array biases,
    bool transpose,
    mlx_optional_int group_size,
    mlx_optional_int bits,
    const char* mode,
    const mlx_stream s) {
  return guarded([&] {
    put(*res,
        mx::quantized_matmul(
            get(x),
            get(w),
            get(scales),
            maybe(biases),
            transpose,
            maybe(group_size),
            maybe(bits),
            mode,
            get(s)));
  });
}
