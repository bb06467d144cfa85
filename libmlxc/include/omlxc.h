/*
 * The C functions that TypeScript calls.
 *
 * Conventions
 *   Array handles are the pointer that mlx_array carries. A function that returns one gives it to the caller, who frees
 *   it with omlx_free or omlx_free_many; it never takes over the handles it is given. Arrays are lazy: freeing the
 *   inputs of an operation before it is evaluated is allowed, and is what lets MLX reuse their buffers.
 *   NULL (a handle) or -1 (an int) is an error; omlx_last_error tells it. No function prints or ends the process.
 *   Lists of handles are arrays of double: a pointer fits into one exactly, and JavaScript writes it without BigInt.
 *   Shapes, axes and slice bounds are int32. dtype is a value of mlx_dtype: 0 bool, 1 uint8, 2 uint16, 3 uint32,
 *   4 uint64, 5 int8, 6 int16, 7 int32, 8 int64, 9 float16, 10 float32, 11 float64, 12 bfloat16, 13 complex64.
 *   At most eight integer or pointer arguments a function.
 *   Every call is made on the thread that called omlx_init.
 *
 * scripts/gen-symbols.ts reads this file: one declaration a statement, parameters named, no macros in between.
 */
#ifndef OMLXC_H
#define OMLXC_H

#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)
#ifdef __cplusplus
extern "C" {
#endif

/* ---- start and errors ---- */

/* Prepares this thread: device 0 is the CPU, 1 the GPU. Checks that the MLX library is the version this library was
 * built for, keeps MLX's errors from ending the process, and turns MLX's compile off on the CPU (it would need a C++
 * compiler). May be called again to change the device. */
int omlx_init(int device);
/* Text of this thread's last error; valid until the next failing call. */
const char* omlx_last_error(void);
/* Version of the MLX library that runs, and of the one this library was built for. */
const char* omlx_version(void);
const char* omlx_built_for(void);
/* Digest of the declarations that the library was built from: which 0 this file, 1 omlxc_kernels.h. Empty when the
 * build did not know it. */
const char* omlx_signatures(int which);
/* 1 when the CPU kernels are part of this library. */
int omlx_has_kernels(void);

/* From now on the system kills this process when its parent ends. */
int omlx_die_with_parent(void);

/* ---- lifetime ---- */

/* Gives a handle back; NULL is allowed. */
void omlx_free(void* array);
void omlx_free_many(const double* handles, int count);
/* Handles given out and not freed. */
double omlx_live_arrays(void);

/* ---- making arrays ---- */

/* Copies data, row-major. */
void* omlx_array(const void* data, const int* shape, int ndim, int dtype);
void* omlx_zeros(const int* shape, int ndim, int dtype);
void* omlx_full(double value, const int* shape, int ndim, int dtype);
/* Zero-dimensional. */
void* omlx_scalar(double value, int dtype);
/* int32 start, start + 1, … below stop; filled here, not by a graph node. */
void* omlx_arange(int start, int stop);

/* ---- running and reading ---- */

/* Returns when the arrays can be read. */
int omlx_eval(const double* handles, int count);
/* Starts the work and returns. */
int omlx_async_eval(const double* handles, int count);
/* Waits for everything queued. */
int omlx_synchronize(void);
/* Evaluates, casts to dtype, makes row-major and copies; bytes must be the exact size of the result. */
int omlx_read(void* array, int dtype, void* out, double bytes);
/* Address of the elements of an evaluated, row-major array; valid while a handle to it lives. */
void* omlx_data(void* array);
/* What MLX says about an array. omlx_shape writes at most 8 sizes and returns their number. */
int omlx_shape(void* array, int* out);
int omlx_dtype(void* array);

/* ---- element by element; operands are broadcast ---- */

void* omlx_abs(void* a);
void* omlx_cos(void* a);
void* omlx_erf(void* a);
void* omlx_exp(void* a);
void* omlx_log(void* a);
void* omlx_negative(void* a);
void* omlx_rsqrt(void* a);
void* omlx_sigmoid(void* a);
void* omlx_sin(void* a);
void* omlx_sqrt(void* a);
void* omlx_square(void* a);
void* omlx_tanh(void* a);
void* omlx_add(void* a, void* b);
void* omlx_subtract(void* a, void* b);
void* omlx_multiply(void* a, void* b);
void* omlx_divide(void* a, void* b);
void* omlx_maximum(void* a, void* b);
void* omlx_minimum(void* a, void* b);
void* omlx_power(void* a, void* b);
void* omlx_logaddexp(void* a, void* b);
/* These five, and the two below them, give bool. */
void* omlx_equal(void* a, void* b);
void* omlx_not_equal(void* a, void* b);
void* omlx_greater(void* a, void* b);
void* omlx_greater_equal(void* a, void* b);
void* omlx_less(void* a, void* b);
void* omlx_less_equal(void* a, void* b);
void* omlx_logical_and(void* a, void* b);
void* omlx_logical_or(void* a, void* b);
/* x where condition, else y. */
void* omlx_where(void* condition, void* x, void* y);
void* omlx_astype(void* a, int dtype);

/* ---- along one axis ---- */

void* omlx_sum(void* a, int axis, int keepdims);
void* omlx_mean(void* a, int axis, int keepdims);
void* omlx_max(void* a, int axis, int keepdims);
void* omlx_min(void* a, int axis, int keepdims);
void* omlx_logsumexp(void* a, int axis, int keepdims);
/* uint32 */
void* omlx_argmax(void* a, int axis, int keepdims);
/* precise: sums of half-precision inputs in float32. */
void* omlx_softmax(void* a, int axis, int precise);
void* omlx_take(void* a, void* indices, int axis);
void* omlx_take_along_axis(void* a, void* indices, int axis);

/* ---- shapes ---- */

void* omlx_reshape(void* a, const int* shape, int ndim);
void* omlx_broadcast_to(void* a, const int* shape, int ndim);
void* omlx_transpose(void* a, const int* axes, int ndim);
void* omlx_swapaxes(void* a, int axis1, int axis2);
void* omlx_expand_dims(void* a, int axis);
void* omlx_squeeze(void* a, int axis);
/* Row-major copy, or a itself when it is row-major. */
void* omlx_contiguous(void* a);
void* omlx_concatenate(const double* handles, int count, int axis);
/* Equal parts; writes `parts` handles. */
int omlx_split(void* a, int parts, int axis, double* out);
/* bounds: ndim starts, ndim stops, ndim strides. */
void* omlx_slice(void* a, const int* bounds, int ndim);
/* src with the slice replaced by update. In place when nothing else holds src at evaluation. */
void* omlx_slice_update(void* src, void* update, const int* bounds, int ndim);

/* ---- matrices ---- */

void* omlx_matmul(void* a, void* b);
/* alpha * (a @ b) + beta * c */
void* omlx_addmm(void* c, void* a, void* b, float alpha, float beta);
/* Affine quantization as MLX stores it: w (N, K * bits / 32) uint32, scales and biases (N, K / group_size).
 * transpose 1: x (…, K) → (…, N). */
void* omlx_quantized_matmul(
    void* x, void* w, void* scales, void* biases, int transpose, int group_size, int bits);
/* dtype of the result; -1: that of scales. */
void* omlx_dequantize(void* w, void* scales, void* biases, int group_size, int bits, int dtype);
/* w (N, K) → writes three handles: packed, scales, biases. */
int omlx_quantize(void* w, int group_size, int bits, double* out);

/* ---- fused ---- */

/* x / rms(x) * weight over the last axis; weight may be NULL. */
void* omlx_rms_norm(void* x, void* weight, float eps);
void* omlx_layer_norm(void* x, void* weight, void* bias, float eps);
/* x (…, T, D): rotates the first dims of D, positions offset, offset + 1, …; base is read when freqs is NULL. */
void* omlx_rope(
    void* x, int dims, int traditional, int offset, void* freqs, float base, float scale);
/* The same with the offset in an int32 array, () or one per batch row. */
void* omlx_rope_dynamic(
    void* x, int dims, int traditional, void* offset, void* freqs, float base, float scale);
/* q (B, H, T, D), k and v (B, K, S, D) → (B, H, T, D). mode 0: no mask, 1: causal (the last query sees the last key),
 * 2: mask, bool (true: seen) or added. */
void* omlx_sdpa(void* q, void* k, void* v, void* mask, int mode, float scale);

/* ---- memory of MLX's allocator, in bytes ---- */

/* which: 0 in use, 1 largest in use since the last reset, 2 kept for reuse. -1 is an error. */
double omlx_memory(int which);
int omlx_reset_peak(void);
int omlx_clear_cache(void);
/* Returns the limit before. */
double omlx_set_cache_limit(double bytes);
double omlx_set_memory_limit(double bytes);

/* ---- weight files ---- */

/* Maps a whole file for reading. The mapping lives until it is closed and every array over it is gone.
 * in_memory 1: reads it into memory with huge pages instead, which file mappings do not get. */
void* omlx_mapping_open(const char* path, int in_memory);
double omlx_mapping_bytes(void* mapping);
/* Address of the file's first byte. */
void* omlx_mapping_data(void* mapping);
/* Takes the pages of a mapped file out of this process's memory; reading them again brings them back. Nothing for a file
 * that was read into memory. */
void omlx_mapping_release_pages(void* mapping);
void omlx_mapping_close(void* mapping);
/* Mappings that are not yet unmapped. */
int omlx_live_mappings(void);
/* Array over the bytes at offset, without a copy; copied when offset is no multiple of the element size, or when the
 * device cannot use file memory. */
void* omlx_mapping_array(void* mapping, double offset, const int* shape, int ndim, int dtype);

/* ---- checks of the bindings themselves ---- */

/* Sum of the list. */
double omlx_probe_read(const int* values, int count);
/* Writes seed, seed + 1, … */
void omlx_probe_write(int* values, int count, int seed);

#ifdef __cplusplus
}
#endif
#pragma GCC visibility pop

#endif
