// The CPU kernels: plain C++, no MLX types. All matrices are row-major and contiguous.
//
// Exactness rule: every output element is computed in one fixed order of float32 operations that does
// not depend on the number of rows in the call, on the thread count, or on which form of a kernel ran.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <variant>

namespace omlx::kernels {

enum class DType { f32, f16, bf16 };

inline size_t size_of(DType type) { return type == DType::f32 ? 4 : 2; }

/// Weights of a linear layer or an embedding, borrowed. N = rows (outputs), K = cols (inputs).
struct Weight {
  const void* data = nullptr;     // bits 0: (N, K) of dtype; else (N, K*bits/32) uint32, MLX affine layout
  const void* scales = nullptr;   // bits > 0: (N, K/group) of dtype
  const void* biases = nullptr;   // bits > 0: (N, K/group) of dtype; weight = q * scale + bias
  DType dtype = DType::f32;       // of data (bits 0) or of scales and biases
  int bits = 0;                   // 0, 2, 3, 4, 5, 6 or 8
  int group = 0;                  // weights per scale, a multiple of 16
  int rows = 0;
  int cols = 0;
  const void* packed = nullptr;   // PackedWeight::data() of this weight; what integer arithmetic reads
};

/// A vector of any float type, borrowed; data null = absent.
struct Vector {
  const void* data = nullptr;
  DType dtype = DType::f32;
};

/// Throws std::invalid_argument unless the kernels can read this weight.
void validate(const Weight& w);

/// A quantized weight once more, in the order in which the integer kernels read it: one stream for every 16 rows, in
/// huge pages, as large as the weight. The weight itself is not needed by those kernels any more.
class PackedWeight {
 public:
  /// Whether there are integer kernels for this weight: groups of 32, 64 or 128.
  static bool possible(const Weight& w);

  /// Packs a weight for which that is so. Throws std::bad_alloc.
  explicit PackedWeight(const Weight& w);

  const void* data() const { return data_; }

 private:
  std::shared_ptr<void> owner_;
  void* data_;
};

/// How activations meet quantized weights. Dense weights, and those that are not packed, always meet float32 activations.
enum class Arithmetic {
  exact,  // as float32
  int16,  // rounded to 16 bits, with one scale per row and group of the weight; integer sums
  int8,   // the same with 8 bits
};

/// The arithmetic of linear() from now on, in this process; int16 until this is called.
void set_arithmetic(Arithmetic arithmetic);
Arithmetic arithmetic();

enum class Form { automatic, matvec, gemm };

/// Activations (M, K) for linear layers that share their input. Borrows x; what the format of a weight
/// needs of it is made on first use and kept until reset(). Memory is kept for the next reset().
class Activations {
 public:
  Activations();
  ~Activations();
  Activations(const Activations&) = delete;
  Activations& operator=(const Activations&) = delete;

  void reset(const float* x, int M, int K);

  /// The parts that kernels use.
  struct Parts;
  Parts& parts() { return *parts_; }

 private:
  std::unique_ptr<Parts> parts_;
};

/// One result of linear(): out (M, N) = (x · wᵀ + bias) + residual. residual null = none; it may be out.
struct Projection {
  Weight w;
  Vector bias;
  const float* residual = nullptr;
  float* out = nullptr;
};

/// Computes all projections of x, dividing their columns among the threads at once. The forms give
/// bit-identical results, and so does each projection alone; `form` is for tests.
void linear(Activations& x, std::span<const Projection> projections, Form form = Form::automatic);

/// out (M, N) = x (M, K) · wᵀ + bias.
void linear(const float* x, int M, const Weight& w, Vector bias, float* out,
            Form form = Form::automatic);

/// out (T, K) = rows ids[t] of w, as float32. Throws std::out_of_range for an id outside [0, N).
void embedding(const int* ids, int T, const Weight& w, float* out);

/// out (rows, E) = x / sqrt(mean(x²) + eps) * w.
void rms_norm(const float* x, int rows, int E, Vector w, float eps, float* out);

/// table (T, half, 2) = scale·cos θ, scale·sin θ with θ = float(position) * inv_freq in float32.
void rope_table(const int* positions, int T, const float* inv_freq, int half, float scale,
                float* table);

/// Rotates the first 2·half elements of each of `heads` heads of D elements; the rest is copied.
/// traditional: pairs (2i, 2i+1); else pairs (i, i+half). x, out (T, heads·D), table (T, half, 2).
void rope(const float* x, int T, int heads, int D, const float* table, int half, bool traditional,
          float* out);

/// out = gate / (1 + exp(-gate)) * up, n elements.
void swiglu(const float* gate, const float* up, size_t n, float* out);

/// out = (x + residual - mean) / sqrt(variance + eps) * w + b over rows of E. residual may be null; w and b may be absent.
void layer_norm(const float* x, const float* residual, int rows, int E, Vector w, Vector b, float eps, float* out);

enum class Activation { gelu, gelu_tanh, silu, relu };

/// out = activation(x) * up, n elements; up null: ones.
void activate(Activation kind, const float* x, const float* up, size_t n, float* out);

/// A text, or rows of one, for encode(): query rows [first_row, first_row + rows) stand at positions offset, offset + 1, …
/// of a text whose keys and values are rows [first_key, first_key + keys).
struct TextSpan {
  int first_row = 0;
  int rows = 0;
  int offset = 0;
  int first_key = 0;
  int keys = 0;
};
static_assert(sizeof(TextSpan) == 5 * sizeof(int32_t));

/// Throws std::invalid_argument unless the spans fit T query rows and S key rows.
void validate(std::span<const TextSpan> spans, int T, int S);

/// Attention within texts: q, out (T, heads·D), k and v (S, kv_heads·D). The row at position p sees the keys at positions
/// p - before … p + after; negative: without a limit. Rows outside every span become 0.
void encode(const float* q, int T, const float* k, const float* v, int S, int heads, int kv_heads, int D,
            std::span<const TextSpan> spans, int before, int after, float scale, float* out);

/// exp of n floats, within 2 units in the last place.
void exp(const float* x, size_t n, float* out);

constexpr int MAX_HEAD_DIM = 1024;

/// Keys and values of all layers in blocks of `block_tokens` tokens. A row of a head is kept in 16-bit integers and one
/// float32 scale: 13 bits and a sign of it are used, so that sums of products fit 32 bits and are exact in any order.
/// One reservation of address space; pages exist once they are touched.
class KvPool {
 public:
  /// Largest magnitude of a stored integer.
  static constexpr int LIMIT = 4095;

  /// block_tokens must be a multiple of 16, head_dim at most MAX_HEAD_DIM. Throws std::invalid_argument or std::bad_alloc.
  KvPool(int layers, int num_blocks, int block_tokens, int kv_heads, int head_dim);
  ~KvPool();
  KvPool(const KvPool&) = delete;
  KvPool& operator=(const KvPool&) = delete;

  /// Keys of one head of one block: [block_tokens/16][key_pairs][16][2]: for 16 tokens, elements 2i and 2i+1.
  int16_t* keys(int block, int layer, int head) const { return reinterpret_cast<int16_t*>(at(block, layer, head)); }
  /// Values of one head of one block: [block_tokens/2][padded_dim][2]: for each element, tokens 2i and 2i+1.
  int16_t* values(int block, int layer, int head) const {
    return reinterpret_cast<int16_t*>(at(block, layer, head) + value_offset_);
  }
  /// Key times scale is the key; [block_tokens].
  float* key_scales(int block, int layer, int head) const {
    return reinterpret_cast<float*>(at(block, layer, head) + scale_offset_);
  }
  float* value_scales(int block, int layer, int head) const {
    return key_scales(block, layer, head) + block_tokens;
  }
  size_t bytes() const { return bytes_; }
  char* data() const { return base_; }

  const int layers, num_blocks, block_tokens, kv_heads, head_dim;
  const int padded_dim;  // head_dim rounded up to 16
  const int key_pairs;   // head_dim / 2, rounded up

 private:
  char* at(int block, int layer, int head) const {
    return base_ + size_t(block) * block_bytes_ + (size_t(layer) * size_t(kv_heads) + size_t(head)) * head_bytes_;
  }

  const size_t value_offset_, scale_offset_, head_bytes_, block_bytes_;
  size_t bytes_ = 0;
  char* base_ = nullptr;
};

/// Rows [first_row, first_row + rows) of a batch belong to one sequence that already has `offset`
/// tokens in the cache. Its block table starts at `first_block` of the batch's block list.
struct Span {
  int first_row = 0;
  int rows = 0;
  int offset = 0;
  int first_block = 0;
};

/// Throws std::invalid_argument unless spans and blocks fit a batch of T rows and this pool.
void validate(std::span<const Span> spans, std::span<const int> blocks, int T, const KvPool& pool);

/// What happens to the rows of q and k before they are stored and compared. The default: nothing.
struct RowPreparation {
  Vector q_norm, k_norm;         // RMS norm of each head, (D)
  float eps = 0;
  const float* table = nullptr;  // rotary embedding of rope_table(): (T, half, 2)
  int half = 0;
  bool traditional = false;
};

/// Prepares rows, writes k and v (T, kv_heads·D) into the pool, then attends causally: q, out (T, heads·D).
/// Rows outside every span become 0.
void attention(const float* q, const float* k, const float* v, int T, int heads, const RowPreparation& prepare,
               KvPool& pool, int layer, std::span<const Span> spans, std::span<const int> blocks, float scale,
               float* out);

/// A linear layer, borrowed.
struct Linear {
  Weight w;
  Vector bias;
};

/// x + o(attention(q(n), k(n), v(n))) with n = RMS norm of x: attention() on one layer of a pool.
struct AttentionPart {
  Vector norm;
  float eps = 0;
  Linear q, k, v, o;
  Vector q_norm, k_norm;     // see RowPreparation; their eps is the same
  bool traditional = false;
  int table = 0;             // index into the step's rotary tables
  int layer = 0;             // of the pool
  float scale = 1;
};

/// x + down(silu(gate(n)) * up(n)) with n = RMS norm of x.
struct MlpPart {
  Vector norm;
  float eps = 0;
  Linear gate, up, down;
};

using DecoderPart = std::variant<AttentionPart, MlpPart>;

/// Rotary embedding of a step's rows: rope_table(), (T, half, 2).
struct RotaryTable {
  const float* data = nullptr;
  int half = 0;
};

/// Throws std::invalid_argument unless rows of E elements can go through this part, with so many rotary tables.
void validate(const DecoderPart& part, int E, int num_tables, const KvPool& pool);

/// Sends x (T, E) through the parts, one after another; out (T, E) may be x. Spans and blocks as in attention().
void decode(const float* x, int T, int E, std::span<const DecoderPart> parts, std::span<const RotaryTable> tables, KvPool& pool,
            std::span<const Span> spans, std::span<const int> blocks, float* out);

/// What candidates() tells of a row, before its values and ids.
struct RowStats {
  float max;                  // largest logit
  float lse;                  // log-sum-exp of the row; NaN if the row has a NaN or +inf or no finite logit
  float lse_at_temperature;   // log-sum-exp of row * inv_temperature
};

/// Top k of each row of logits (rows, vocab), descending, ties by lower id; ids and values (rows, k), stats (rows).
/// Where k > vocab the rest is filled with id -1 and -inf, and so is all of a row whose lse is NaN. -inf logits are allowed.
void candidates(const float* logits, int rows, int vocab, const float* inv_temperature, int k, RowStats* stats, int* ids,
                float* values);

/// The names of the tiers of this build, the best first: "amx", "avx512vnni", "avx512", "avx2vnni", "avx2" on x86-64,
/// "neon-i8mm", "neon" on arm64, and "portable".
std::span<const char* const> tiers();

/// The tier in use: the best the CPU has, or what OMLX_CPU_TIER names.
/// Throws std::runtime_error if that names no tier of this build or of this CPU.
std::string tier();

/// Selects a tier by name for tests; false if the build or the CPU does not have it.
bool set_tier(const std::string& name);

}  // namespace omlx::kernels
