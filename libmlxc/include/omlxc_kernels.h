/*
 * The CPU kernels that TypeScript calls, as lazy MLX operations.
 *
 * Conventions as in omlxc.h: handles are the pointer that mlx_array carries; a returned handle belongs to the caller,
 * the inputs stay the caller's and may be freed before evaluation. NULL or -1 is an error, told by omlx_last_error.
 * Inputs of any layout and, for activations, any float type are accepted; row-contiguous float32 needs no copy.
 * Outputs are float32. They run on the CPU only: evaluation on a GPU stream is an error.
 *
 * A row of a result never depends on the other rows of the call, on their number or on the number of threads.
 *
 * Letters: T rows (tokens), K inputs, N outputs, E hidden size, V vocabulary, H heads, D head size, P block tokens.
 *
 * scripts/gen-symbols.ts reads this file: one declaration a statement, parameters named, no macros in between.
 */
#ifndef OMLXC_KERNELS_H
#define OMLXC_KERNELS_H

#pragma GCC visibility push(default)
#ifdef __cplusplus
extern "C" {
#endif

/* ---- operations ---- */

/* Rows ids (T) int32 of w -> (T, E). The weight forms of omlx_layer_new. Evaluation fails for an id outside of w. */
void* omlx_x_embedding(void* ids, void* w, void* scales, void* biases, int bits, int group_size);
/* x / sqrt(mean(x*x) + eps) * w over the last axis; w (E) of any float type, or NULL for ones. */
void* omlx_x_rms_norm(void* x, void* w, float eps);
/* positions (T) int32, inv_freq (D/2) float32 -> (T, D/2, 2): cos and sin of float(position)*inv_freq, times scale. */
void* omlx_x_rope_table(void* positions, void* inv_freq, float scale);
/* x (T, H*D), table (T, d/2, 2) with d <= D: rotates the first d elements of each head; the rest is copied.
 * traditional 0: pairs (i, i + d/2); 1: pairs (2i, 2i + 1). */
void* omlx_x_rope(void* x, void* table, int num_heads, int traditional);
/* Top k (1..1024) of each row of logits (R, V), descending, equal ones by lower id -> (R, 3 + 2k), a row of which is: the
 * largest logit, log-sum-exp, log-sum-exp of logits * inv_temperature (R) of the row; k raw logits; k ids, as the bits of
 * int32. With k > V the rest is -inf and id -1. A row with NaN, +inf or nothing finite has NaN for the first three. */
void* omlx_x_candidates(void* logits, void* inv_temperature, int k);

/* ---- linear layers ---- */

/* A linear layer, bound once. bits 0: w (N, K) float32, float16 or bfloat16; scales and biases NULL. bits 2, 3, 4, 5, 6
 * or 8: w (N, K*bits/32) uint32 in MLX's affine layout, scales and biases (N, K/group_size) of one float type, weight =
 * q*scale + bias. bias (N) of any float type, or NULL. The arrays are kept, evaluated; quantized weights in groups of
 * 32, 64 or 128 are packed for integer arithmetic, unless the arithmetic of the process is exact now, and then the
 * layer's arithmetic stays so. Its own handle; graphs keep what they need. */
void* omlx_layer_new(void* w, void* scales, void* biases, void* bias, int bits, int group_size);
void omlx_layer_free(void* layer);
/* x (..., K) times the layer's weights, plus its bias -> (..., N). */
void* omlx_x_linear(void* x, void* layer);

/* ---- a decoder's layers: all of them are one operation ---- */

/* Parts, added one after another. Each adds to its input x (T, E); n is the RMS norm of x with `norm` (E), or NULL for
 * ones. What they are made of may be freed afterwards. Its own handle; graphs keep what they need. */
void* omlx_stack_new(void);
void omlx_stack_free(void* stack);
/* x + o(attention(q(n), k(n), v(n))). layers: four handles as numbers, q, k, v, o. Causal attention over cached keys: k and
 * v (T, Hkv*D) of all rows are written into layer `layer` of the pool, then q (T, H*D) attends through the block tables of
 * the batch. Before that the heads of q and k go through RMS norms with q_norm and k_norm (D), or NULL for none, and are
 * rotated by the step's table number `table` as omlx_x_rope does. 0, or -1 for an error. */
int omlx_stack_attention(void* stack, void* norm, void* q_norm, void* k_norm, const double* layers, int layer, int table, int traditional, float eps, float scale);
/* x + down(silu(gate(n)) * up(n)). 0, or -1 for an error. */
int omlx_stack_mlp(void* stack, void* norm, void* gate, void* up, void* down, float eps);
/* x (T, E) through all parts -> (T, E). tables: n_tables handles of (T, d/2, 2), as numbers. Rows of no span attend to
 * nothing. Keys and values are written at evaluation: operations on one pool must be ordered by data or by evaluation. The
 * result keeps stack, pool and batch alive until it has run. */
void* omlx_x_stack(void* x, void* stack, const double* tables, int n_tables, void* pool, void* batch);

/* ---- key/value pool and batches: their own handles, freed by their own functions ---- */

/* Keys and values of all layers, in 16-bit integers with a scale for each row of a head, in num_blocks blocks of
 * block_tokens tokens (a multiple of 16). Address space is reserved at once, memory is taken as blocks are first
 * written. */
void* omlx_pool_new(int layers, int num_blocks, int block_tokens, int kv_heads, int head_dim);
void omlx_pool_free(void* pool);
/* Reserved bytes. */
double omlx_pool_bytes(void* pool);
/* spans: n_spans times {first row, rows, tokens already in the cache, first index into blocks}; blocks: the block
 * tables one after another, each covering its cached tokens and its rows. Copied. */
void* omlx_batch_new(const int* spans, int n_spans, const int* blocks, int n_blocks);
void omlx_batch_free(void* batch);

/* ---- encoders ---- */

/* (x + residual - mean) / sqrt(variance + eps) * w + b over the last axis. residual of x's shape, or NULL; w and b (E) of
 * any float type, or NULL. */
void* omlx_x_layer_norm(void* x, void* residual, void* w, void* b, float eps);
/* activation(x) * up, elementwise; up NULL: ones. 0: x * normal distribution of x (gelu), 1: its tanh form, 2: silu, 3: relu. */
void* omlx_x_activate(int activation, void* x, void* up);
/* Attention within texts, none of it cached: q (T, H*D), k and v (S, Hkv*D). spans (n, 5) int32, one row for each text
 * or part of one: {first row of q, rows, position of the first row in its text, first row of k, keys of the text}. The
 * row at position p sees the keys at p - before ... p + after; negative: without a limit. Rows of no span become 0.
 * Evaluation fails for spans that do not fit. */
void* omlx_x_encode(void* q, void* k, void* v, void* spans, int kv_heads, int before, int after, float scale);

/* ---- immediate functions ---- */

/* Sets the number of kernel threads (0: one per usable core; -1: leave it) and returns it. Not while work is running. */
int omlx_x_threads(int n);
/* How activations meet quantized weights from now on, in this process: 0 as float32, 1 rounded to 16 bits and summed as
 * integers (so until this is called), 2 rounded to 8 bits. Not while work is running. Returns it; a negative number only asks. -1 for a number above 2. */
int omlx_x_arithmetic(int arithmetic);
/* "avx512vnni", "avx512", "avx2vnni", "avx2", "neon" or "portable": what the CPU has, or what OMLX_CPU_TIER asks for. NULL if that is not to be had. */
const char* omlx_x_tier(void);

#ifdef __cplusplus
}
#endif
#pragma GCC visibility pop

#endif
