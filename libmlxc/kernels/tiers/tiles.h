// The tile registers of AMX: eight matrices of up to 16 rows of 64 bytes, and products of bytes between them. Either the
// CPU's own, or (OMLX_TILES_EMULATED) plain C++ with the same results and the same refusals, for CPUs without them.
#pragma once
#include <cstdint>
#include <cstring>

namespace {

/// The shapes of all tiles, as LDTILECFG reads them.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  void set(int tile, int count, int bytes) {
    rows[tile] = static_cast<uint8_t>(count);
    row_bytes[tile] = static_cast<uint16_t>(bytes);
  }
};
static_assert(sizeof(TileShapes) == 64);

#ifdef OMLX_TILES_EMULATED

class Tiles {
 public:
  explicit Tiles(const TileShapes& shapes) : shapes_(shapes) {
    for (int t = 0; t < 8; t++) require(shapes.rows[t] <= 16 && shapes.row_bytes[t] <= 64);
  }

  template <int T>
  void zero() {
    std::memset(data_[T], 0, sizeof data_[T]);
  }
  template <int T>
  void load(const void* base, size_t stride) {
    zero<T>();
    for (size_t r = 0; r < shapes_.rows[T]; r++)
      std::memcpy(data_[T][r], static_cast<const uint8_t*>(base) + r * stride, shapes_.row_bytes[T]);
  }
  template <int T>
  void store(void* base, size_t stride) const {
    for (size_t r = 0; r < shapes_.rows[T]; r++)
      std::memcpy(static_cast<uint8_t*>(base) + r * stride, data_[T][r], shapes_.row_bytes[T]);
  }
  /// C += A B. A: rows of signed bytes; B: row k has bytes 4k .. 4k + 3 of every column, unsigned; C: 32-bit numbers.
  template <int C, int A, int B>
  void dot() {
    require(C != A && C != B && A != B);
    require(shapes_.rows[C] == shapes_.rows[A] && shapes_.row_bytes[C] == shapes_.row_bytes[B]);
    require(shapes_.row_bytes[A] == 4 * shapes_.rows[B] && shapes_.row_bytes[C] % 4 == 0);
    for (int m = 0; m < shapes_.rows[C]; m++) {
      for (int n = 0; n < shapes_.row_bytes[C] / 4; n++) {
        uint32_t sum;
        std::memcpy(&sum, data_[C][m] + 4 * n, 4);
        for (int k = 0; k < shapes_.rows[B]; k++)
          for (int i = 0; i < 4; i++)
            sum += static_cast<uint32_t>(static_cast<int8_t>(data_[A][m][4 * k + i]) * data_[B][k][4 * n + i]);
        std::memcpy(data_[C][m] + 4 * n, &sum, 4);
      }
    }
  }

 private:
  /// What the CPU answers with an exception.
  static void require(bool holds) {
    if (!holds) __builtin_trap();
  }

  TileShapes shapes_;
  uint8_t data_[8][16][64] = {};
};

#else

/// The calling thread's tiles, configured from here to the end of the scope. Not the compiler's intrinsics: those of
/// GCC 12 drop the stores into the shapes, and their tiles cannot be template parameters.
class Tiles {
 public:
  explicit Tiles(const TileShapes& shapes) { __asm__ volatile("ldtilecfg %0" : : "m"(shapes)); }
  ~Tiles() { __asm__ volatile("tilerelease"); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  template <int T>
  OMLX_INLINE void zero() {
    __asm__ volatile("tilezero %%tmm%c0" : : "n"(T));
  }
  template <int T>
  OMLX_INLINE void load(const void* base, size_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(base), "r"(stride), "n"(T) : "memory");
  }
  template <int T>
  OMLX_INLINE void store(void* base, size_t stride) const {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(base), "r"(stride), "n"(T) : "memory");
  }
  /// C += A B. A: rows of signed bytes; B: row k has bytes 4k .. 4k + 3 of every column, unsigned; C: 32-bit numbers.
  template <int C, int A, int B>
  OMLX_INLINE void dot() {
    __asm__ volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "n"(C), "n"(A), "n"(B));
  }
};

#endif

}  // namespace
