// Lists of arrays, and evaluation of a list.
#include "mlx/c/vector.h"

#include "mlx/c/private/handles.h"
#include "mlx/c/transforms.h"
#include "mlx/transforms.h"

using namespace mlxc;

namespace {

Arrays list_of(const mlx_array* data, size_t size) {
  Arrays list;
  list.reserve(size);
  for (size_t i = 0; i < size; ++i) list.push_back(get(data[i]));
  return list;
}

}  // namespace

extern "C" mlx_vector_array mlx_vector_array_new(void) {
  return mlx_vector_array_new_data(nullptr, 0);
}

extern "C" int mlx_vector_array_set(mlx_vector_array* vec, const mlx_vector_array src) {
  return guarded([&] { put(*vec, Arrays(get(src))); });
}

extern "C" int mlx_vector_array_free(mlx_vector_array vec) {
  return guarded([&] { delete static_cast<Arrays*>(vec.ctx); });
}

extern "C" mlx_vector_array mlx_vector_array_new_data(const mlx_array* data, size_t size) {
  mlx_vector_array result{nullptr};
  guarded([&] { put(result, list_of(data, size)); });
  return result;
}

extern "C" mlx_vector_array mlx_vector_array_new_value(const mlx_array val) {
  return mlx_vector_array_new_data(&val, 1);
}

extern "C" int
mlx_vector_array_set_data(mlx_vector_array* vec, const mlx_array* data, size_t size) {
  return guarded([&] { put(*vec, list_of(data, size)); });
}

extern "C" int mlx_vector_array_set_value(mlx_vector_array* vec, const mlx_array val) {
  return mlx_vector_array_set_data(vec, &val, 1);
}

extern "C" int
mlx_vector_array_append_data(mlx_vector_array vec, const mlx_array* data, size_t size) {
  return guarded([&] {
    for (size_t i = 0; i < size; ++i) get(vec).push_back(get(data[i]));
  });
}

extern "C" int mlx_vector_array_append_value(mlx_vector_array vec, const mlx_array val) {
  return mlx_vector_array_append_data(vec, &val, 1);
}

extern "C" size_t mlx_vector_array_size(mlx_vector_array vec) {
  size_t size = 0;
  guarded([&] { size = get(vec).size(); });
  return size;
}

extern "C" int mlx_vector_array_get(mlx_array* res, const mlx_vector_array vec, size_t idx) {
  return guarded([&] { put(*res, mx::array(get(vec).at(idx))); });
}

extern "C" int mlx_async_eval(const mlx_vector_array outputs) {
  return guarded([&] { mx::async_eval(get(outputs)); });
}

extern "C" int mlx_eval(const mlx_vector_array outputs) {
  return guarded([&] { mx::eval(get(outputs)); });
}
