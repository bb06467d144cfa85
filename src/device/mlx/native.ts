/*
 * The CPU kernels as operations. Call them only when `available()`. Results are float32. A row of a result never
 * depends on the other rows of the call, on their number or on the number of threads.
 */
import { OmlxError } from "#core/contract";
import { type MxArray, wrap } from "./array.ts";
import { nativeError, textAt } from "./error.ts";
import { dataPointer } from "./eval.ts";
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
  const handle = layer.ptr;
  layer.ptr = 0;
  if (handle !== 0) kernels().omlx_layer_free(handle);
}

/** x (…, K) → (…, N) */
export function linear(x: MxArray, layer: Layer): MxArray {
  const handle = kernels().omlx_x_linear(x.ptr, layer.ptr);
  return made(handle, x.shape.with(-1, layer.rows));
}

/** Layers of one input, after its RMS norm: x (…, E) → one (…, N) for each layer. */
export function project(
  x: MxArray,
  norm: MxArray | null,
  eps: number,
  layers: readonly Layer[],
): MxArray[] {
  const count = layers.length;
  scratch.reserveHandles(count);
  for (let i = 0; i < count; i++) scratch.handles[i] = (layers[i] as Layer).ptr;
  if (kernels().omlx_x_project(x.ptr, address(norm), eps, scratch.handlesPtr, count) !== 0) {
    throw nativeError("native");
  }
  return layers.map((layer, i) => made(scratch.handles[i] as number, x.shape.with(-1, layer.rows)));
}

/** residual + linear(x) */
export function projectOnto(x: MxArray, layer: Layer, residual: MxArray): MxArray {
  const handle = kernels().omlx_x_project_onto(x.ptr, layer.ptr, residual.ptr);
  return made(handle, residual.shape);
}

/** x + down(swiglu(gate(n), up(n))), n = rmsNorm(x) */
export function mlp(
  x: MxArray,
  norm: MxArray,
  eps: number,
  gate: Layer,
  up: Layer,
  down: Layer,
): MxArray {
  const handle = kernels().omlx_x_mlp(x.ptr, norm.ptr, eps, gate.ptr, up.ptr, down.ptr);
  return made(handle, x.shape);
}

/** gate / (1 + exp(-gate)) · up */
export function swiglu(gate: MxArray, up: MxArray): MxArray {
  return made(kernels().omlx_x_swiglu(gate.ptr, up.ptr), gate.shape);
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
  const handle = pool.ptr;
  pool.ptr = 0;
  if (handle !== 0) kernels().omlx_pool_free(handle);
}

/** Reserved bytes; those in use are at most so many. */
export function poolBytes(pool: Pool): number {
  return kernels().omlx_pool_bytes(pool.ptr);
}

/** Which rows of a step belong to which sequence, for `attention`. */
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
  const handle = batch.ptr;
  batch.ptr = 0;
  if (handle !== 0) kernels().omlx_batch_free(handle);
}

/** What happens to the heads of queries and keys before they are rotated, for `attention`. */
export class RowNorms {
  /** 0 after `rowNormsFree`. */
  ptr: number;
  constructor(ptr: number) {
    this.ptr = ptr;
  }
}

/**
 * @param qNorm        RMS norm of each head's query (D); null: none. Likewise kNorm
 * @param traditional  rotation takes pairs (2i, 2i+1) instead of (i, i + d/2)
 */
export function rowNormsNew(
  qNorm: MxArray | null,
  kNorm: MxArray | null,
  eps: number,
  traditional: boolean,
): RowNorms {
  const handle = kernels().omlx_rows_new(address(qNorm), address(kNorm), eps, traditional ? 1 : 0);
  if (handle === null) throw nativeError("native");
  return new RowNorms(handle);
}

/** Graphs that were built with it keep what they need. */
export function rowNormsFree(norms: RowNorms): void {
  const handle = norms.ptr;
  norms.ptr = 0;
  if (handle !== 0) kernels().omlx_rows_free(handle);
}

/** Norms, and the step's table of `ropeTable`: what `attention` does to queries and keys first. */
export interface RowPreparation {
  readonly norms: RowNorms;
  readonly table: MxArray;
}

/**
 * Writes k and v (T, Hkv·D) of all rows into a layer of the pool at evaluation, then attends causally through the block
 * tables: q (T, H·D) → (T, H·D). Calls on one pool must depend on each other in the order they write.
 *
 * @param prepare  applied to q and k first; null: they are ready
 */
export function attention(
  q: MxArray,
  k: MxArray,
  v: MxArray,
  prepare: RowPreparation | null,
  pool: Pool,
  batch: BatchHandle,
  layer: number,
  scale: number,
): MxArray {
  const handle = kernels().omlx_x_attention(
    q.ptr,
    k.ptr,
    v.ptr,
    prepare ? prepare.table.ptr : null,
    prepare ? prepare.norms.ptr : null,
    pool.ptr,
    batch.ptr,
    layer,
    scale,
  );
  return made(handle, q.shape);
}

/** The largest logits of some rows. Row r has its k entries at [r·k, (r + 1)·k). */
export interface Candidates {
  readonly rows: number;
  readonly k: number;
  /** Token ids, largest logit first, equal ones by lower id; -1 past the vocabulary. */
  readonly ids: Int32Array;
  /** Raw logits of the ids. */
  readonly values: Float32Array;
  /** For each row: the largest logit, the log-sum-exp, the log-sum-exp of logits · inverseTemperature. */
  readonly maxLse: Float32Array;
}

/**
 * Top k (1 … 1024) of each row of evaluated, row-major float32 logits (rows, V), with what normalizes them.
 *
 * @param inverseTemperature  one for each row
 * @throws {OmlxError} native: a row has NaN, +inf or nothing finite
 */
export function candidates(
  logits: MxArray,
  inverseTemperature: Float32Array,
  k: number,
): Candidates {
  const [rows, vocab] = logits.shape as readonly [number, number];
  if (logits.ndim !== 2 || logits.dtype !== "float32" || inverseTemperature.length !== rows) {
    throw new RangeError(`candidates: ${logits.dtype} logits of shape [${logits.shape}]`);
  }
  const maxLse = new Float32Array(rows * 3);
  const ids = new Int32Array(rows * k);
  const values = new Float32Array(rows * k);
  if (rows > 0) {
    const data = dataPointer(logits);
    const call = kernels().omlx_x_candidates;
    const status = call(data, rows, vocab, inverseTemperature, k, maxLse, ids, values);
    if (status !== 0) throw nativeError("native");
  }
  return { rows, k, ids, values, maxLse };
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
