// Scratch memory of one parallel call: one aligned slice per thread, kept by the calling thread.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <new>

namespace omlx::kernels {

/// A grow-only buffer of floats, 64-byte aligned; its content does not survive reserve().
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { std::free(data_); }

  float* reserve(size_t floats) {
    if (floats > size_) {
      std::free(data_);
      size_ = 0;
      data_ = static_cast<float*>(std::aligned_alloc(64, (floats * sizeof(float) + 63) / 64 * 64));
      if (!data_) throw std::bad_alloc();
      size_ = floats;
    }
    return data_;
  }

 private:
  float* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace omlx::kernels
