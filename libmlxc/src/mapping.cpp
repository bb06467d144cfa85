// Weight files in memory: one mapping a file, shared by the arrays over it.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>

#include "internal.h"
#include "mapping.h"
#include "mlx/c/mlx.h"
#include "omlxc.h"

namespace {

std::atomic<int> live_mappings{0};

/*
 * [ page of zeros | file, whole pages ]
 *   ^ reserved      ^ data
 * The page in front belongs to the mapping so that a header that an allocator expects before its data can be read.
 */
struct Mapping {
  char* reserved;
  size_t reserved_bytes;
  char* data;
  size_t bytes;
  std::atomic<int> references{1};
};

void release(Mapping* mapping) {
  if (mapping->references.fetch_sub(1) != 1) return;
  munmap(mapping->reserved, mapping->reserved_bytes);
  delete mapping;
  live_mappings.fetch_sub(1);
}

void* failed(const std::string& text) {
  omlx::set_error(text.c_str());
  return nullptr;
}

void* failed_with_errno(const char* what, const char* path) {
  return failed(std::string("cannot ") + what + " " + path + ": " + std::strerror(errno));
}

}  // namespace

extern "C" {

void* omlx_mapping_open(const char* path) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return failed_with_errno("open", path);
  struct stat info;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size == 0) {
    close(fd);
    return failed(std::string("cannot map ") + path + ": it is no file, or empty");
  }
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t bytes = static_cast<size_t>(info.st_size);
  const size_t reserved_bytes = page + (bytes + page - 1) / page * page;
  void* reserved =
      mmap(nullptr, reserved_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (reserved == MAP_FAILED) {
    close(fd);
    return failed_with_errno("map", path);
  }
  char* data = static_cast<char*>(reserved) + page;
  void* mapped = mmap(data, bytes, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0);
  close(fd);
  if (mapped == MAP_FAILED) {
    void* result = failed_with_errno("map", path);
    munmap(reserved, reserved_bytes);
    return result;
  }
  live_mappings.fetch_add(1);
  return new Mapping{static_cast<char*>(reserved), reserved_bytes, data, bytes};
}

double omlx_mapping_bytes(void* mapping) {
  return static_cast<double>(static_cast<Mapping*>(mapping)->bytes);
}

void* omlx_mapping_data(void* mapping) {
  return static_cast<Mapping*>(mapping)->data;
}

void omlx_mapping_close(void* mapping) {
  if (mapping != nullptr) release(static_cast<Mapping*>(mapping));
}

int omlx_live_mappings(void) {
  return live_mappings.load();
}

void* omlx_mapping_array(void* handle, double offset, const int* shape, int ndim, int dtype) {
  Mapping* mapping = static_cast<Mapping*>(handle);
  const size_t item = mlx_dtype_size(static_cast<mlx_dtype>(dtype));
  if (item == 0) return nullptr;
  double size = static_cast<double>(item);
  for (int i = 0; i < ndim; ++i) {
    if (shape[i] < 0) return failed("a size of the shape is negative");
    size *= shape[i];
  }
  if (!(offset >= 0) || offset + size > static_cast<double>(mapping->bytes)) {
    return failed("the array reaches beyond the end of the file");
  }
  char* data = mapping->data + static_cast<size_t>(offset);
  if (size == 0 || static_cast<size_t>(offset) % item != 0) {
    return omlx_array(data, shape, ndim, dtype);
  }
  mapping->references.fetch_add(1);
  return omlx::give(omlx::wrap(
      data, shape, ndim, dtype, mapping, [](void* m) { release(static_cast<Mapping*>(m)); }));
}

}  // extern "C"
