// Arrays over memory that MLX does not own.
#pragma once

namespace omlx {

/// As mlx_array_new_data_managed_payload, but without a copy also on the CPU. Returns the pointer that mlx_array
/// carries, or NULL with the error set; release(payload) is called in either case, at the latest when the memory is
/// needed no more.
///
/// kernels/mapping.cpp has the form for MLX's C++ API, mapping_mlxc.cpp the one for a build without it.
void* wrap(
    void* data, const int* shape, int ndim, int dtype, void* payload, void (*release)(void*));

}  // namespace omlx
