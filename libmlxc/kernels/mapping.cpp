// Arrays over memory that MLX does not own, without a copy on the CPU.
//
// MLX's pointer constructor copies on the CPU, because its allocator keeps a size before the data. The data of an
// array is found from a Buffer by adding the length of that header, so a Buffer that points so much before foreign
// memory works as long as nothing frees it through the allocator: an array::Data with its own deleter is never freed
// there and never reused for outputs.
#include "../src/mapping.h"

#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <utility>

#include "../src/internal.h"
#include "mlx/allocator.h"
#include "mlx/array.h"

namespace mx = mlx::core;

namespace {

/// Bytes between a Buffer's pointer and its data in the CPU allocator.
ptrdiff_t header_bytes() {
  static const ptrdiff_t bytes = [] {
    const mx::allocator::Data data = mx::allocator::malloc(1);
    mx::allocator::Buffer buffer = data.buffer();
    return static_cast<char*>(buffer.raw_ptr()) - static_cast<char*>(buffer.ptr());
  }();
  return bytes;
}

std::optional<mx::Dtype> dtype_of(int dtype) {
  // the order of mlx_dtype
  static const mx::Dtype DTYPES[] = {
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
  if (dtype < 0 || dtype >= static_cast<int>(std::size(DTYPES))) return std::nullopt;
  return DTYPES[dtype];
}

}  // namespace

void* omlx::wrap(
    void* data, const int* shape, int ndim, int dtype, void* payload, void (*release)(void*)) {
  std::shared_ptr<void> owner(payload, release);
  const auto type = dtype_of(dtype);
  if (!type) {
    set_error("unknown dtype");
    return nullptr;
  }
  try {
    mx::Shape sizes(shape, shape + ndim);
    size_t bytes = type->size();
    for (const auto size : sizes) bytes *= static_cast<size_t>(size);

    // a GPU allocator wraps pages it can use in place
    const mx::allocator::Buffer made = mx::allocator::make_buffer(data, bytes);
    if (made.ptr() != nullptr) {
      return new mx::array(
          mx::allocator::Data(
              made,
              [owner](mx::allocator::Buffer buffer) { mx::allocator::release(buffer); }),
          std::move(sizes),
          *type);
    }
    if (mx::is_available(mx::Device::gpu)) {
      return new mx::array(data, std::move(sizes), *type, [owner](void*) {});
    }
    const mx::allocator::Buffer buffer(static_cast<char*>(data) - header_bytes());
    return new mx::array(
        mx::allocator::Data(buffer, [owner](mx::allocator::Buffer) {}), std::move(sizes), *type);
  } catch (const std::exception& error) {
    set_error(error.what());
    return nullptr;
  }
}
