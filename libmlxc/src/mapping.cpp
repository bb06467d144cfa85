// Weight files in memory: one mapping a file, shared by the arrays over it.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "internal.h"
#include "mapping.h"
#include "mlx/c/mlx.h"
#include "omlxc.h"

namespace {

std::atomic<int> live_mappings{0};

constexpr size_t HUGE_PAGE = size_t(2) << 20;

/*
 * [ page of zeros | file: its own pages, or a copy in anonymous memory ]
 *   ^ reserved      ^ data
 * The page in front belongs to the mapping so that a header that an allocator expects before its data can be read.
 */
struct Mapping {
  char* reserved;
  size_t reserved_bytes;
  char* data;
  size_t bytes;
  bool in_memory;
  std::atomic<int> references{1};
};

void release(Mapping* mapping) {
  if (mapping->references.fetch_sub(1) != 1) return;
  munmap(mapping->reserved, mapping->reserved_bytes);
  delete mapping;
  live_mappings.fetch_sub(1);
}

/// Reads size bytes from `offset` of a file; 0, or an errno (EIO where the file ends before).
int read_range(int fd, char* to, size_t offset, size_t size) {
  while (size > 0) {
    const ssize_t count = pread(fd, to, size, static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return count < 0 ? errno : EIO;
    to += count;
    offset += static_cast<size_t>(count);
    size -= static_cast<size_t>(count);
  }
  return 0;
}

/// Reads a whole file on several threads: most of the time goes into making the pages, not into the disk.
int read_file(int fd, char* to, size_t bytes) {
  constexpr size_t PIECE = size_t(8) << 20;
  constexpr unsigned MAX_THREADS = 8;
  const size_t pieces = (bytes + PIECE - 1) / PIECE;
  std::atomic<size_t> next{0};
  std::atomic<int> error{0};
  const auto work = [&] {
    for (size_t i; error == 0 && (i = next++) < pieces;) {
      const size_t begin = i * PIECE;
      if (const int found = read_range(fd, to + begin, begin, std::min(PIECE, bytes - begin))) error = found;
    }
  };
  const size_t useful = std::min<size_t>(pieces, std::min(MAX_THREADS, std::thread::hardware_concurrency()));
  std::vector<std::thread> helpers;
  for (size_t i = 1; i < useful; ++i) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  return error;
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

void* omlx_mapping_open(const char* path, int in_memory) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return failed_with_errno("open", path);
  struct stat info;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size == 0) {
    close(fd);
    return failed(std::string("cannot map ") + path + ": it is no file, or empty");
  }
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t bytes = static_cast<size_t>(info.st_size);
  const size_t align = in_memory ? HUGE_PAGE : page;
  // room for the page in front, wherever the region begins
  const size_t reserved_bytes = page + align + (bytes + align - 1) / align * align;
  void* reserved =
      mmap(nullptr, reserved_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (reserved == MAP_FAILED) {
    close(fd);
    return failed_with_errno("map", path);
  }
  const auto begin = reinterpret_cast<uintptr_t>(reserved) + page;
  char* data = reinterpret_cast<char*>((begin + align - 1) / align * align);
  int error = 0;
  if (in_memory) {
#ifdef MADV_HUGEPAGE
    madvise(data, bytes, MADV_HUGEPAGE);  // a wish: small pages work as well
#endif
    error = mprotect(data, bytes, PROT_READ | PROT_WRITE) != 0 ? errno : read_file(fd, data, bytes);
    if (error == 0 && mprotect(data, bytes, PROT_READ) != 0) error = errno;
  } else if (mmap(data, bytes, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0) == MAP_FAILED) {
    error = errno;
  }
  close(fd);
  if (error != 0) {
    munmap(reserved, reserved_bytes);
    errno = error;
    return failed_with_errno(in_memory ? "read" : "map", path);
  }
  live_mappings.fetch_add(1);
  return new Mapping{static_cast<char*>(reserved), reserved_bytes, data, bytes, in_memory != 0};
}

double omlx_mapping_bytes(void* mapping) {
  return static_cast<double>(static_cast<Mapping*>(mapping)->bytes);
}

void* omlx_mapping_data(void* mapping) {
  return static_cast<Mapping*>(mapping)->data;
}

void omlx_mapping_release_pages(void* handle) {
  const Mapping* mapping = static_cast<Mapping*>(handle);
  if (!mapping->in_memory) madvise(mapping->data, mapping->bytes, MADV_DONTNEED);
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
