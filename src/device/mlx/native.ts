/*
 * The CPU kernels as operations. Call them only when `available()`. Results are float32. A row of a result never
 * depends on the other rows of the call, on their number or on the number of threads.
 */
import { OmlxError } from "#core/contract";
import { array, type MxArray, wrap } from "./array.ts";
import { nativeError, textAt } from "./error.ts";
import { evaluate, putHandles, readFloat32 } from "./eval.ts";
import { currentDevice, kernelSymbols } from "./library.ts";
import * as scratch from "./scratch.ts";
import type { KernelSymbols } from "./symbols.gen.ts";

/** Whether the library has the kernels and the device is the CPU. */
export function available(): boolean {
  return kernelSymbols() !== null && currentDevice() === "cpu";
}

let symbols: KernelSymbols | null = null;

function kernels(): KernelSymbols {
  if (symbols !== null) return symbols;
  symbols = kernelSymbols();
  if (symbols === null) {
    throw new OmlxError({ code: "native", message: "The native library has no CPU kernels." });
  }
  return symbols;
}

/** The message of the kernels names the operation itself. */
function made(handle: number | null, shape: readonly number[]): MxArray {
  return wrap("native", handle, shape, "float32");
}

/** Frees what an object holds, once. */
function release(owner: { ptr: number }, free: (handle: number) => void): void {
  const handle = owner.ptr;
  owner.ptr = 0;
  if (handle !== 0) free(handle);
}

const address = (a: MxArray | null) => (a === null ? null : a.ptr);

/** Rows ids (T) int32 of w → (T, E); the weight forms of `layerNew`. An id outside of w fails at evaluation. */
export function embedding(
  ids: MxArray,
  w: MxArray,
  scales: MxArray | null,
  biases: MxArray | null,
  bits: number,
  groupSize: number,
): MxArray {
  const handle = kernels().omlx_x_embedding(
    ids.ptr,
    w.ptr,
    address(scales),
    address(biases),
    bits,
    groupSize,
  );
  const columns = w.shape[1] as number;
  return made(handle, [ids.shape[0] as number, bits === 0 ? columns : (columns * 32) / bits]);
}

/** x / sqrt(mean(x²) + eps) · w over the last axis; w (E) of any float type, null: ones. */
export function rmsNorm(x: MxArray, w: MxArray | null, eps: number): MxArray {
  return made(kernels().omlx_x_rms_norm(x.ptr, address(w), eps), x.shape);
}

/** positions (T) int32, inverseFrequencies (D/2) float32 → (T, D/2, 2): cos and sin of position · frequency, times scale. */
export function ropeTable(positions: MxArray, inverseFrequencies: MxArray, scale: number): MxArray {
  const handle = kernels().omlx_x_rope_table(positions.ptr, inverseFrequencies.ptr, scale);
  return made(handle, [positions.shape[0] as number, inverseFrequencies.shape[0] as number, 2]);
}

/**
 * Rotates the first d elements of every head by a table (T, d/2, 2); the rest is copied. x (T, H·D) → (T, H·D).
 *
 * @param traditional  pairs (2i, 2i+1) instead of (i, i + d/2)
 */
export function rope(x: MxArray, table: MxArray, heads: number, traditional: boolean): MxArray {
  return made(kernels().omlx_x_rope(x.ptr, table.ptr, heads, traditional ? 1 : 0), x.shape);
}

/** A linear layer that was bound once, for the operations of several layers. */
export class Layer {
  /** 0 after `layerFree`. */
  ptr: number;
  /** Outputs. */
  readonly rows: number;
  constructor(ptr: number, rows: number) {
    this.ptr = ptr;
    this.rows = rows;
  }
}

/**
 * Binds x · wᵀ + bias.
 *
 * bits 0: w (N, K) float32, float16 or bfloat16, scales and biases null. Else w (N, K·bits/32) uint32 in MLX's affine
 * layout, scales and biases (N, K/groupSize) of one float type; bits 2, 3, 4, 5, 6 or 8. bias (N) of any float type.
 * Quantized weights in groups of 32, 64 or 128 are packed, that is copied, unless the arithmetic is "exact" now; then it
 * stays so for this layer. The arrays may be freed afterwards.
 */
export function layerNew(
  w: MxArray,
  scales: MxArray | null,
  biases: MxArray | null,
  bias: MxArray | null,
  bits: number,
  groupSize: number,
): Layer {
  const handle = kernels().omlx_layer_new(
    w.ptr,
    address(scales),
    address(biases),
    address(bias),
    bits,
    groupSize,
  );
  if (handle === null) throw nativeError("native");
  return new Layer(handle, w.shape[0] as number);
}

/** Graphs that were built with the layer keep what they need. */
export function layerFree(layer: Layer): void {
  release(layer, kernels().omlx_layer_free);
}

/** x (…, K) → (…, N) */
export function linear(x: MxArray, layer: Layer): MxArray {
  const handle = kernels().omlx_x_linear(x.ptr, layer.ptr);
  return made(handle, x.shape.with(-1, layer.rows));
}

/** The layers of a decoder, bound once; one operation sends a step through all of them. */
export class Stack {
  /** 0 after `stackFree`. */
  ptr: number;
  constructor(ptr: number) {
    this.ptr = ptr;
  }
}

export function stackNew(): Stack {
  const handle = kernels().omlx_stack_new();
  if (handle === null) throw nativeError("native");
  return new Stack(handle);
}

/** Graphs that were built with the stack keep what they need. */
export function stackFree(stack: Stack): void {
  release(stack, kernels().omlx_stack_free);
}

export interface AttentionPart {
  /** RMS norm of the input (E). */
  readonly norm: MxArray;
  readonly eps: number;
  /** H·D, K·D and K·D rows of E columns. */
  readonly q: Layer;
  readonly k: Layer;
  readonly v: Layer;
  /** E rows of H·D columns. */
  readonly o: Layer;
  /** RMS norms of each head's query and key (D), with the same eps; null: none. */
  readonly qNorm: MxArray | null;
  readonly kNorm: MxArray | null;
  /** Which of the step's tables rotates queries and keys, and whether it takes pairs (2i, 2i+1) instead of (i, i + d/2). */
  readonly table: number;
  readonly traditional: boolean;
  /** Of the pool. */
  readonly layer: number;
  /** Multiplies q·k. */
  readonly scale: number;
}

/** Adds x + o(attention(q(n), k(n), v(n))), n = rmsNorm(x), to what the stack does. The layers may be freed afterwards. */
export function stackAttention(stack: Stack, part: AttentionPart): void {
  scratch.reserveHandles(4);
  for (const [i, layer] of [part.q, part.k, part.v, part.o].entries()) {
    scratch.handles[i] = layer.ptr;
  }
  const status = kernels().omlx_stack_attention(
    stack.ptr,
    part.norm.ptr,
    address(part.qNorm),
    address(part.kNorm),
    scratch.handlesPtr,
    part.layer,
    part.table,
    part.traditional ? 1 : 0,
    part.eps,
    part.scale,
  );
  if (status !== 0) throw nativeError("native");
}

export interface MlpPart {
  /** RMS norm of the input (E). */
  readonly norm: MxArray;
  readonly eps: number;
  readonly gate: Layer;
  readonly up: Layer;
  readonly down: Layer;
}

/** Adds x + down(silu(gate(n)) · up(n)), n = rmsNorm(x), to what the stack does. The layers may be freed afterwards. */
export function stackMlp(stack: Stack, { norm, eps, gate, up, down }: MlpPart): void {
  const call = kernels().omlx_stack_mlp;
  const status = call(stack.ptr, norm.ptr, gate.ptr, up.ptr, down.ptr, eps);
  if (status !== 0) throw nativeError("native");
}

/**
 * x (T, E) through all parts → (T, E). Keys and values of the rows are written into the pool at evaluation; each row then
 * attends causally through its sequence's block table.
 *
 * @param tables  of `ropeTable` for the step's rows
 */
export function stack(
  x: MxArray,
  parts: Stack,
  tables: readonly MxArray[],
  pool: Pool,
  batch: BatchHandle,
): MxArray {
  const count = putHandles(tables);
  const call = kernels().omlx_x_stack;
  return made(call(x.ptr, parts.ptr, scratch.handlesPtr, count, pool.ptr, batch.ptr), x.shape);
}

/** (x + residual - mean) / sqrt(variance + eps) · w + b over the last axis; w and b (E) of any float type, null: none. */
export function layerNorm(
  x: MxArray,
  residual: MxArray | null,
  w: MxArray | null,
  b: MxArray | null,
  eps: number,
): MxArray {
  const call = kernels().omlx_x_layer_norm;
  return made(call(x.ptr, address(residual), address(w), address(b), eps), x.shape);
}

const ACTIVATIONS = { gelu: 0, geluTanh: 1, silu: 2, relu: 3 } as const;

/** activation(x) · up, elementwise; up null: ones. */
export function activate(
  activation: keyof typeof ACTIVATIONS,
  x: MxArray,
  up: MxArray | null,
): MxArray {
  return made(kernels().omlx_x_activate(ACTIVATIONS[activation], x.ptr, address(up)), x.shape);
}

/**
 * Attention within texts: q (T, H·D), k and v (S, K·D) → (T, H·D).
 *
 * @param spans  (n, 5) int32: first row of q, rows, position of the first row in its text, first row of k, keys of the text
 * @param before  keys seen before the row's own position; null: all
 * @param after   the same behind it
 */
export function encode(
  q: MxArray,
  k: MxArray,
  v: MxArray,
  spans: MxArray,
  kvHeads: number,
  before: number | null,
  after: number | null,
  scale: number,
): MxArray {
  const call = kernels().omlx_x_encode;
  const handle = call(q.ptr, k.ptr, v.ptr, spans.ptr, kvHeads, before ?? -1, after ?? -1, scale);
  return made(handle, q.shape);
}

/** Keys and values of all layers in blocks. Memory is taken as blocks are first written. */
export class Pool {
  /** 0 after `poolFree`. */
  ptr: number;
  constructor(ptr: number) {
    this.ptr = ptr;
  }
}

export interface PoolShape {
  readonly layers: number;
  readonly numBlocks: number;
  /** A multiple of 16. */
  readonly blockTokens: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

/** @throws {OmlxError} native: the address space cannot be reserved */
export function poolNew(shape: PoolShape): Pool {
  const { layers, numBlocks, blockTokens, kvHeads, headDim } = shape;
  const handle = kernels().omlx_pool_new(layers, numBlocks, blockTokens, kvHeads, headDim);
  if (handle === null) throw nativeError("native");
  return new Pool(handle);
}

/** The memory goes when the last graph over the pool has run. */
export function poolFree(pool: Pool): void {
  release(pool, kernels().omlx_pool_free);
}

/** Reserved bytes; those in use are at most so many. */
export function poolBytes(pool: Pool): number {
  return kernels().omlx_pool_bytes(pool.ptr);
}

/** Which rows of a step belong to which sequence, for `stack`. */
export class BatchHandle {
  /** 0 after `batchFree`. */
  ptr: number;
  constructor(ptr: number) {
    this.ptr = ptr;
  }
}

/**
 * @param spans   four numbers for each sequence: first row, rows, tokens already in the cache, first index into blocks
 * @param blocks  the block tables one after another, each covering its cached tokens and its rows
 */
export function batchNew(spans: Int32Array, blocks: Int32Array): BatchHandle {
  const handle = kernels().omlx_batch_new(
    spans.length === 0 ? null : spans,
    spans.length / 4,
    blocks.length === 0 ? null : blocks,
    blocks.length,
  );
  if (handle === null) throw nativeError("native");
  return new BatchHandle(handle);
}

/** Graphs that were built with the batch keep what they need. */
export function batchFree(batch: BatchHandle): void {
  release(batch, kernels().omlx_batch_free);
}

/** The largest logits of some rows: k ids and logits each, with what normalizes them. */
export interface Candidates {
  /** Token ids, largest logit first, equal ones by lower id; -1 past the vocabulary. */
  readonly ids: Int32Array;
  /** Raw logits of the ids. */
  readonly values: Float32Array;
  /** Largest logit. NaN here and below: the row has NaN, +inf or nothing finite. */
  readonly max: number;
  readonly lse: number;
  /** Log-sum-exp of logits · inverseTemperature. */
  readonly lseAtTemperature: number;
}

/**
 * Evaluates logits (R, V) and the top k (1 … 1024) of each row in one go.
 *
 * @param inverseTemperatures  one for each row
 */
export function candidates(
  logits: MxArray,
  inverseTemperatures: Float32Array,
  k: number,
): Candidates[] {
  const inverse = array(inverseTemperatures, [inverseTemperatures.length], "float32");
  const width = 3 + 2 * k;
  const heads = made(kernels().omlx_x_candidates(logits.ptr, inverse.ptr, k), [
    inverseTemperatures.length,
    width,
  ]);
  evaluate(heads);
  const { BYTES_PER_ELEMENT: size } = Float32Array;
  const memory = new ArrayBuffer(inverseTemperatures.length * width * size);
  const numbers = new Float32Array(memory);
  readFloat32(heads, numbers);
  return Array.from(inverseTemperatures, (_, r) => {
    const at = r * width;
    return {
      max: numbers[at] as number,
      lse: numbers[at + 1] as number,
      lseAtTemperature: numbers[at + 2] as number,
      values: new Float32Array(memory, (at + 3) * size, k),
      ids: new Int32Array(memory, (at + 3 + k) * size, k),
    };
  });
}

/** Sets the number of kernel threads (0: one for each usable core) and returns it. Not while work is running. */
export function setThreads(count: number): number {
  const set = kernels().omlx_x_threads(Math.max(0, count));
  if (set < 0) throw nativeError("native");
  return set;
}

/** Number of kernel threads. */
export function threads(): number {
  return kernels().omlx_x_threads(-1);
}

/** How activations meet quantized weights: as float32, or rounded to 16 or 8 bits and summed as integers. */
export type Arithmetic = (typeof ARITHMETICS)[number];

const ARITHMETICS = ["exact", "int16", "int8"] as const;

/** Sets the arithmetic of the kernels in this process. Not while work is running. */
export function setArithmetic(arithmetic: Arithmetic): void {
  const code = ARITHMETICS.indexOf(arithmetic);
  if (kernels().omlx_x_arithmetic(code) < 0) throw nativeError("native");
}

export function arithmetic(): Arithmetic {
  return ARITHMETICS[kernels().omlx_x_arithmetic(-1)] as Arithmetic;
}

/** Instruction set in use, as "avx512vnni" or "portable". */
export function tier(): string {
  const name = kernels().omlx_x_tier();
  if (name === null) throw nativeError("native");
  return textAt(name);
}
