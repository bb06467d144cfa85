// Arrays over foreign memory through mlx-c alone: in place where the device can, else a copy.
#include "mapping.h"
#include "mlx/c/mlx.h"

void* omlx::wrap(
    void* data, const int* shape, int ndim, int dtype, void* payload, void (*release)(void*)) {
  return mlx_array_new_data_managed_payload(
             data, shape, ndim, static_cast<mlx_dtype>(dtype), payload, release)
      .ctx;
}
