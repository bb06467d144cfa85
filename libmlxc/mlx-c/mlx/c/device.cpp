// Devices and streams.
#include "mlx/c/device.h"

#include <sstream>

#include "mlx/c/private/handles.h"
#include "mlx/c/stream.h"
#include "mlx/utils.h"

using namespace mlxc;

namespace {

mx::Device::DeviceType to_type(mlx_device_type type) {
  return type == MLX_GPU ? mx::Device::gpu : mx::Device::cpu;
}

mlx_stream default_stream_of(mx::Device::DeviceType type) {
  mlx_stream result{nullptr};
  guarded([&] { put(result, mx::default_stream(mx::Device(type))); });
  return result;
}

template <typename T>
std::string text_of(const T& value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

}  // namespace

extern "C" mlx_device mlx_device_new(void) {
  return mlx_device{nullptr};
}

extern "C" mlx_device mlx_device_new_type(mlx_device_type type, int index) {
  mlx_device result{nullptr};
  guarded([&] { put(result, mx::Device(to_type(type), index)); });
  return result;
}

extern "C" int mlx_device_free(mlx_device dev) {
  return guarded([&] { delete static_cast<mx::Device*>(dev.ctx); });
}

extern "C" int mlx_device_set(mlx_device* dev, const mlx_device src) {
  return guarded([&] { put(*dev, mx::Device(get(src))); });
}

extern "C" int mlx_device_tostring(mlx_string* str, mlx_device dev) {
  return guarded([&] { put(*str, text_of(get(dev))); });
}

extern "C" bool mlx_device_equal(mlx_device lhs, mlx_device rhs) {
  bool equal = false;
  guarded([&] { equal = get(lhs) == get(rhs); });
  return equal;
}

extern "C" int mlx_device_get_index(int* index, mlx_device dev) {
  return guarded([&] { *index = get(dev).index; });
}

extern "C" int mlx_device_get_type(mlx_device_type* type, mlx_device dev) {
  return guarded([&] { *type = get(dev).type == mx::Device::gpu ? MLX_GPU : MLX_CPU; });
}

extern "C" int mlx_get_default_device(mlx_device* dev) {
  return guarded([&] { put(*dev, mx::Device(mx::default_device())); });
}

extern "C" int mlx_set_default_device(mlx_device dev) {
  return guarded([&] { mx::set_default_device(get(dev)); });
}

extern "C" int mlx_device_is_available(bool* avail, mlx_device dev) {
  return guarded([&] { *avail = mx::is_available(get(dev)); });
}

extern "C" int mlx_device_count(int* count, mlx_device_type type) {
  return guarded([&] { *count = mx::device_count(to_type(type)); });
}

extern "C" mlx_stream mlx_stream_new(void) {
  return mlx_stream{nullptr};
}

extern "C" mlx_stream mlx_stream_new_device(mlx_device dev) {
  mlx_stream result{nullptr};
  guarded([&] { put(result, mx::new_stream(get(dev))); });
  return result;
}

extern "C" int mlx_stream_set(mlx_stream* stream, const mlx_stream src) {
  return guarded([&] { put(*stream, mx::Stream(get(src))); });
}

extern "C" int mlx_stream_free(mlx_stream stream) {
  return guarded([&] { delete static_cast<mx::Stream*>(stream.ctx); });
}

extern "C" int mlx_stream_tostring(mlx_string* str, mlx_stream stream) {
  return guarded([&] { put(*str, text_of(get(stream))); });
}

extern "C" bool mlx_stream_equal(mlx_stream lhs, mlx_stream rhs) {
  bool equal = false;
  guarded([&] { equal = get(lhs) == get(rhs); });
  return equal;
}

extern "C" int mlx_stream_get_device(mlx_device* dev, mlx_stream stream) {
  return guarded([&] { put(*dev, mx::Device(get(stream).device)); });
}

extern "C" int mlx_stream_get_index(int* index, mlx_stream stream) {
  return guarded([&] { *index = get(stream).index; });
}

extern "C" int mlx_synchronize(mlx_stream stream) {
  return guarded([&] { mx::synchronize(get(stream)); });
}

extern "C" int mlx_get_default_stream(mlx_stream* stream, mlx_device dev) {
  return guarded([&] { put(*stream, mx::default_stream(get(dev))); });
}

extern "C" int mlx_set_default_stream(mlx_stream stream) {
  return guarded([&] { mx::set_default_stream(get(stream)); });
}

extern "C" mlx_stream mlx_default_cpu_stream_new(void) {
  return default_stream_of(mx::Device::cpu);
}

extern "C" mlx_stream mlx_default_gpu_stream_new(void) {
  return default_stream_of(mx::Device::gpu);
}
