// What one tier (instruction set) provides: kernels over index ranges, single-threaded, no allocation.
#pragma once
#include "kernels.h"

namespace omlx::kernels {

struct LinearJob {
  const float* x;
  int M;
  const Weight* w;
  Vector bias;
  const float* residual;
  float* out;
};

/// A quantized linear layer on activations that are integers times a scale per row and group.
struct IntegerJob {
  const int8_t* steps;  // M rows, each `stride` bytes: see generic/integer.inc
  size_t stride;
  const float* d;     // (M, groups): the scales
  const float* sums;  // (M, groups): d * sum of the integers of the group
  int M;
  const Weight* w;    // packed
  Vector bias;
  const float* residual;
  float* out;
  size_t ahead;       // bytes of weights that a matvec fetches ahead; 0: the CPU does so itself
};

/// The kernels of one integer width of activations.
struct Planes {
  size_t (*row_bytes)(int K);
  void (*quantize)(const float* x, int K, int group, int8_t* steps, float* d, float* sums);
  /// out rows of all M, columns [n0, n1), n0 a multiple of 16; M <= INTEGER_ROWS.
  void (*matvec)(const IntegerJob&, int n0, int n1);
  /// Same for rows [m0, m1); scratch: integer_scratch(w) bytes.
  void (*gemm)(const IntegerJob&, int m0, int m1, int n0, int n1, uint8_t* scratch);
};

/// Query vectors that share one key/value head of one sequence, and where their keys are.
struct AttentionTile {
  static constexpr int MAX_QUERIES = 24;
  static constexpr int CHUNK = 256;  // keys per partial softmax, absolute borders
  static constexpr int RUN = 32;     // keys whose weighted values are summed in integers, absolute borders
  /// Largest magnitude of a weight: RUN products with values of at most KvPool::LIMIT fit 32 bits.
  static constexpr int WEIGHT_LIMIT = 16383;

  /// Largest magnitude of a query's integers, so that its product with a key fits 32 bits.
  static int query_limit(int head_dim) {
    const int64_t limit = INT32_MAX / (int64_t(KvPool::LIMIT) * head_dim);
    return limit < KvPool::LIMIT ? static_cast<int>(limit) : KvPool::LIMIT;
  }

  const KvPool* pool;
  int layer;
  int kv_head;
  const int* blocks;  // block table of the sequence
  int count;                            // queries, by ascending limit
  const int16_t* query[MAX_QUERIES];    // 2 * key_pairs integers each
  float query_scale[MAX_QUERIES];       // times the scale of the scores
  int limit[MAX_QUERIES];               // keys [0, limit) are visible
};

/// Softmax state of the queries of a tile. acc holds count rows of padded_dim floats.
struct AttentionState {
  float max[AttentionTile::MAX_QUERIES];
  float sum[AttentionTile::MAX_QUERIES];
  float* acc;
};

struct BlockStats {
  float max;
  bool bad;  // NaN or +inf seen
};

/// Queries of one head of one text, which sees its keys in both directions or as far as a window reaches.
struct EncodeTile {
  static constexpr int MAX_QUERIES = 24;
  static constexpr int CHUNK = 512;  // keys whose scores are held at once, absolute borders

  const float* keys;    // [keys/16][head_dim][16]
  const float* values;  // [keys][padded_dim]
  int head_dim, padded_dim;
  float scale;
  int count;
  const float* query[MAX_QUERIES];  // head_dim floats each
  int first[MAX_QUERIES];           // keys [first, last) are visible
  int last[MAX_QUERIES];
  float* out[MAX_QUERIES];          // head_dim floats each

  static size_t scratch_floats(int padded_dim) { return size_t(MAX_QUERIES) * size_t(CHUNK + padded_dim); }
};

struct Tier {
  const char* name;
  int tile_n;  // weight rows that matvec and gemm handle together

  /// out rows of all M, columns [n0, n1); M <= MATVEC_ROWS.
  void (*matvec)(const LinearJob&, int n0, int n1);
  /// Same for rows [m0, m1); panel: panel_floats(n1 - n0, K) floats of scratch.
  void (*gemm)(const LinearJob&, int m0, int m1, int n0, int n1, float* panel);
  Planes int16, int8;
  /// Rows of x up to which the integer matvec, which unpacks weights again for every few rows, is faster than a GEMM, which
  /// unpacks them once into memory; of weights of 4 and 8 bits.
  int integer_rows;
  /// One row of w as float32.
  void (*dequantize)(const Weight&, int row, float* out);
  void (*rms_norm)(const float* x, int E, Vector w, float eps, float* out);
  void (*rope)(const float* x, int heads, int D, const float* table, int half, bool traditional,
               float* out);
  void (*swiglu)(const float* gate, const float* up, size_t n, float* out);
  void (*exp)(const float* x, size_t n, float* out);
  /// out[i] = x[i] / scale, rounded, |out[i]| <= limit; returns scale, NaN if x has a NaN or an infinity.
  /// out has room for n rounded up to 16; integers behind n become 0.
  float (*quantize)(const float* x, int n, int limit, int16_t* out);
  /// Partial softmax of one chunk of keys for every query that sees at least one key of it.
  void (*attend)(const AttentionTile&, int chunk, AttentionState&);
  /// Adds the partial result of the next chunk to a running state (both count rows).
  void (*merge)(AttentionState& into, const AttentionState& part, int count, int padded_dim);
  /// out[d] = acc[d] / sum.
  void (*finish)(const float* acc, float sum, int head_dim, float* out);
  /// Maximum of n logits, and of each bucket: bucket b = lane (b % 16) of `stride` consecutive vectors.
  BlockStats (*block_max)(const float* x, int n, int stride, float* buckets);
  /// Sum of exp((x - max) * t) over n <= 4096 logits.
  float (*sum_exp)(const float* x, int n, float max, float t);
  /// Indices (plus base) of logits >= threshold, ascending; returns their number.
  int (*filter)(const float* x, int n, float threshold, int base, int* ids);
  /// One row; residual may be null.
  void (*layer_norm)(const float* x, const float* residual, int E, Vector w, Vector b, float eps, float* out);
  void (*activate)(Activation, const float* x, const float* up, size_t n, float* out);
  /// scores: EncodeTile::scratch_floats of scratch.
  void (*encode)(const EncodeTile&, float* scores);
  /// Up to 16 keys (rows `stride` floats apart) as [head_dim][16].
  void (*encode_keys)(const float* k, size_t stride, int count, int head_dim, float* out);
};

constexpr int MATVEC_ROWS = 4;
constexpr int INTEGER_ROWS = 128;    // of one integer matvec
constexpr int INTEGER_COLUMNS = 32;  // that one GEMM item handles

/// Bytes of 16 columns of a packed weight.
inline size_t packed_block(const Weight& w) {
  const size_t K = size_t(w.cols);
  return K / size_t(w.group) * 32 * size_of(w.dtype) + K * 2 * size_t(w.bits);
}

/// Bytes of scratch for the integer GEMM: panels with scales and biases.
inline size_t integer_scratch(const Weight& w) {
  const size_t groups = size_t(w.cols) / size_t(w.group);
  return INTEGER_COLUMNS / 16 * (16 * size_t(w.cols) + 128 * groups);
}

/// Row stride of a dequantized panel: a multiple of 16, off the powers of two that alias in L1.
inline size_t panel_stride(int K) { return (size_t(K) + 15) / 16 * 16 + 16; }

const Tier& active_tier();

}  // namespace omlx::kernels
