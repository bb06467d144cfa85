// Weights in the order of the integer kernels: see generic/integer.inc.
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <new>
#include <stdexcept>

#include "threads.h"
#include "tier.h"

namespace omlx::kernels {

namespace {

constexpr size_t HUGE_PAGE = size_t(2) << 20;
constexpr size_t CHUNK = size_t(64) << 20;
constexpr size_t LINE = 64;

/// Memory with huge pages, given out piece after piece.
struct Chunk {
  explicit Chunk(size_t size) : reserved(size + HUGE_PAGE) {
    void* base = mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) throw std::bad_alloc();
    start = static_cast<char*>(base);
    next = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(base) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    end = next + size;
#ifdef MADV_HUGEPAGE
    madvise(next, size, MADV_HUGEPAGE);  // a wish: small pages work as well
#endif
  }
  ~Chunk() { munmap(start, reserved); }
  Chunk(const Chunk&) = delete;
  Chunk& operator=(const Chunk&) = delete;

  size_t reserved;
  char *start, *next, *end;
};

/// `size` bytes and what keeps them. The weights of a model lie in the order in which they are packed.
std::pair<std::shared_ptr<void>, char*> allocate(size_t size) {
  static std::mutex mutex;
  static std::weak_ptr<Chunk> current;  // goes with the last weight in it
  const std::lock_guard lock(mutex);
  size = (size + LINE - 1) / LINE * LINE;
  std::shared_ptr<Chunk> chunk = current.lock();
  if (!chunk || size_t(chunk->end - chunk->next) < size) {
    chunk = std::make_shared<Chunk>((std::max(size, CHUNK) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    current = chunk;
  }
  char* data = chunk->next;
  chunk->next += size;
  return {std::move(chunk), data};
}

/// 8 weights of BITS bits from BITS bytes, one to a byte.
template <int BITS>
uint64_t spread(const uint8_t* p) {
  uint64_t v = 0;
  std::memcpy(&v, p, BITS);
  if constexpr (BITS == 8) return v;
  constexpr uint64_t ONE = (1u << BITS) - 1, TWO = (1u << 2 * BITS) - 1, FOUR = (uint64_t{1} << 4 * BITS) - 1;
  v = (v & FOUR) | (v >> 4 * BITS) << 32;
  v = (v & (TWO | TWO << 32)) | (v >> 2 * BITS & (TWO | TWO << 32)) << 16;
  constexpr uint64_t EACH = ONE | ONE << 16 | ONE << 32 | ONE << 48;
  return (v & EACH) | (v >> BITS & EACH) << 8;
}

/// Steps of 32 values of k, [8][16]: 4 values in a lane.
using Steps = uint32_t[8][16];

/// COUNT steps go into one vector, their bits [from, from + 8 / COUNT).
template <int COUNT>
uint32_t* put_field(const Steps& steps, int from, uint32_t* out) {
  constexpr uint32_t MASK = ((1u << 8 / COUNT) - 1) * 0x01010101u;
  for (int s = 0; s < 8; s += COUNT) {
    for (int n = 0; n < 16; n++) {
      uint32_t v = 0;
      for (int f = 0; f < COUNT; f++) v |= (steps[s + f][n] >> from & MASK) << f * (8 / COUNT);
      *out++ = v;
    }
  }
  return out;
}

template <int BITS>
void pack_columns(const Weight& w, int n0, uint8_t* out) {
  const size_t K = size_t(w.cols), row_bytes = K * BITS / 8, item = size_of(w.dtype);
  const size_t groups = K / size_t(w.group);
  const int rows = std::min(16, w.rows - n0);
  const uint8_t* data = static_cast<const uint8_t*>(w.data) + size_t(n0) * row_bytes;
  const auto put_scales = [&](const void* from, size_t g) {
    for (int n = 0; n < rows; n++)
      std::memcpy(out + size_t(n) * item, static_cast<const uint8_t*>(from) + (size_t(n0 + n) * groups + g) * item, item);
    std::memset(out + size_t(rows) * item, 0, size_t(16 - rows) * item);  // columns that are not there: nothing but zeros
    out += 16 * item;
  };
  for (size_t g = 0; g < groups; g++) {
    put_scales(w.scales, g);
    put_scales(w.biases, g);
    for (size_t k = g * size_t(w.group); k < (g + 1) * size_t(w.group); k += 32) {
      Steps steps = {};
      for (int n = 0; n < rows; n++) {
        const uint8_t* from = data + size_t(n) * row_bytes + k * BITS / 8;
        for (int i = 0; i < 4; i++) {
          const uint64_t eight = spread<BITS>(from + i * BITS);
          steps[2 * i][n] = uint32_t(eight);
          steps[2 * i + 1][n] = uint32_t(eight >> 32);
        }
      }
      uint32_t vectors[BITS][16];
      uint32_t* to = vectors[0];
      if constexpr (BITS == 8) to = put_field<1>(steps, 0, to);
      if constexpr (BITS == 4 || BITS == 5 || BITS == 6) to = put_field<2>(steps, 0, to);
      if constexpr (BITS == 2 || BITS == 3) to = put_field<4>(steps, 0, to);
      if constexpr (BITS == 6) put_field<4>(steps, 4, to);
      if constexpr (BITS == 5) put_field<8>(steps, 4, to);
      if constexpr (BITS == 3) put_field<8>(steps, 2, to);
      std::memcpy(out, vectors, sizeof vectors);
      out += sizeof vectors;
    }
  }
}

}  // namespace

bool PackedWeight::possible(const Weight& w) {
  return w.bits > 0 && (w.group == 32 || w.group == 64 || w.group == 128);
}

PackedWeight::PackedWeight(const Weight& w) {
  validate(w);
  if (!possible(w)) throw std::invalid_argument("there are no integer kernels for groups of " + std::to_string(w.group));
  const size_t blocks = (size_t(w.rows) + 15) / 16, bytes = packed_block(w);
  auto [owner, data] = allocate(blocks * bytes);
  owner_ = std::move(owner);
  data_ = data;
  parallel(blocks, [&w, bytes, to = reinterpret_cast<uint8_t*>(data)](int, size_t i) {
    const int n0 = int(i) * 16;
    uint8_t* out = to + i * bytes;
    switch (w.bits) {
      case 2: return pack_columns<2>(w, n0, out);
      case 3: return pack_columns<3>(w, n0, out);
      case 4: return pack_columns<4>(w, n0, out);
      case 5: return pack_columns<5>(w, n0, out);
      case 6: return pack_columns<6>(w, n0, out);
      default: return pack_columns<8>(w, n0, out);
    }
  });
}

}  // namespace omlx::kernels
