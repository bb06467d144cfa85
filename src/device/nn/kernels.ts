import { ContiguousCache, type KvCache, PagedCache } from "#device/cache";
import * as mx from "#device/mlx";
import type { RopeFrequencies } from "./rope.ts";

/** A matrix and its bias: what makes a linear layer. */
export interface LinearWeights {
  readonly matrix: Matrix;
  readonly bias: mx.MxArray | null;
}

/** The weights of an RMS norm. */
export interface NormWeights {
  readonly weight: mx.MxArray;
  readonly eps: number;
}

/** A weight matrix as it lies in the file: dense (bits 0), or MLX affine quantized with scales and biases. */
export interface Matrix {
  /** Dense (N, K), or packed uint32 (N, K*bits/32). */
  readonly weight: mx.MxArray;
  /** (N, K/groupSize), quantized only. */
  readonly scales: mx.MxArray | null;
  readonly biases: mx.MxArray | null;
  /** 0: dense. */
  readonly bits: number;
  readonly groupSize: number;
}

/** x (T, K) → (T, N) */
export type Linear = (x: mx.MxArray) => mx.MxArray;
/** ids (T) int32 → (T, E) */
export type Embedding = (ids: mx.MxArray) => mx.MxArray;
/** Any shape, over the last axis. */
export type Norm = (x: mx.MxArray) => mx.MxArray;
/** Rotary embedding of a step's rows. */
export interface Rotation {
  /** x (T, heads*D) → same, rotated by each row's position */
  rotate(x: mx.MxArray, heads: number): mx.MxArray;
  /** What the native stack rotates by; null in the stock form. */
  readonly table: mx.MxArray | null;
}

/** One of the parts that a decoder's layers are made of; each adds to its input x (T, E), n = norm(x). */
export type DecoderPart = AttentionPart | MlpPart;

/** x + o(attention(q(n), k(n), v(n))) */
export interface AttentionPart {
  readonly kind: "attention";
  readonly norm: NormWeights;
  readonly q: LinearWeights;
  readonly k: LinearWeights;
  readonly v: LinearWeights;
  readonly o: LinearWeights;
  /** RMS norms of each head's query and key (D), with the same eps; null: none. */
  readonly qNorm: mx.MxArray | null;
  readonly kNorm: mx.MxArray | null;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Multiplies q·k. */
  readonly scale: number;
  /** Index into the step's rotations, and the pairs that it rotates. */
  readonly rotation: number;
  readonly traditional: boolean;
  /** Of the cache. */
  readonly layer: number;
}

/** x + down(silu(gate(n)) · up(n)) */
export interface MlpPart {
  readonly kind: "mlp";
  readonly norm: NormWeights;
  readonly gate: LinearWeights;
  readonly up: LinearWeights;
  readonly down: LinearWeights;
}

/** A step's rows x (T, E) through all parts → (T, E); their keys and values go into the cache, which has begun the step. */
export type Stack = (x: mx.MxArray, rotations: readonly Rotation[], cache: KvCache) => mx.MxArray;

/**
 * The fused operations, in two forms: own CPU kernels (native, on a PagedCache) and stock MLX (any device, on a
 * ContiguousCache; the definition of correct). Weights are bound once, at load; what a form keeps beyond them it frees
 * in `dispose`.
 */
export interface Kernels {
  /**
   * Where weights should lie: in memory with huge pages when every step walks through them there; else the mapped file
   * will do, since they are copied as they are bound, or the device decides.
   */
  placement(isQuantized: boolean): "memory" | "file";
  linear(matrix: Matrix, bias: mx.MxArray | null): Linear;
  embedding(matrix: Matrix): Embedding;
  rmsNorm(weight: mx.MxArray, eps: number): Norm;
  /** Called once per step with the rows' positions (T) int32. */
  rotation(
    frequencies: RopeFrequencies,
    headDim: number,
    traditional: boolean,
  ): (positions: mx.MxArray) => Rotation;
  stack(parts: readonly DecoderPart[]): Stack;
  /** Frees what the bound weights needed beyond the file's own tensors. */
  dispose(): void;
}

/**
 * Own CPU kernels. Quantized weights are packed as they are bound, unless the arithmetic of the process is "exact": that
 * reads them as they are.
 */
export function nativeKernels(): Kernels {
  const owned: mx.MxArray[] = [];
  const layers: mx.native.Layer[] = [];
  const stacks: mx.native.Stack[] = [];
  const bind = ({ matrix: m, bias }: LinearWeights): mx.native.Layer => {
    const { weight, scales, biases, bits, groupSize } = m;
    const layer = mx.native.layerNew(weight, scales, biases, bias, bits, groupSize);
    layers.push(layer);
    return layer;
  };
  return {
    placement: (isQuantized) =>
      isQuantized && mx.native.arithmetic() !== "exact" ? "file" : "memory",
    linear(matrix, bias) {
      const bound = bind({ matrix, bias });
      return (x) => mx.native.linear(x, bound);
    },
    embedding: (m) => (ids) =>
      mx.native.embedding(ids, m.weight, m.scales, m.biases, m.bits, m.groupSize),
    rmsNorm: (weight, eps) => (x) => mx.native.rmsNorm(x, weight, eps),
    rotation(frequencies, _headDim, traditional) {
      const inverse = mx.keep(
        mx.array(frequencies.inverse, [frequencies.inverse.length], "float32"),
      );
      owned.push(inverse);
      return (positions) => {
        const table = mx.native.ropeTable(positions, inverse, frequencies.scale);
        const rotate = (x: mx.MxArray, heads: number) =>
          mx.native.rope(x, table, heads, traditional);
        return { rotate, table };
      };
    },
    stack(parts) {
      const stack = mx.native.stackNew();
      stacks.push(stack);
      for (const part of parts) {
        const norm = part.norm.weight;
        const { eps } = part.norm;
        if (part.kind === "mlp") {
          const { gate, up, down } = part;
          const bound = { gate: bind(gate), up: bind(up), down: bind(down) };
          mx.native.stackMlp(stack, { norm, eps, ...bound });
        } else {
          const { q, k, v, o, rotation: table } = part;
          const bound = { q: bind(q), k: bind(k), v: bind(v), o: bind(o) };
          mx.native.stackAttention(stack, { ...part, norm, eps, ...bound, table });
        }
      }
      return (x, rotations, cache) => {
        if (!(cache instanceof PagedCache)) throw new Error("the CPU kernels need a PagedCache");
        const tables = rotations.map(({ table }) => table as mx.MxArray);
        return cache.through(stack, x, tables);
      };
    },
    dispose() {
      freeAll(owned);
      for (const stack of stacks.splice(0)) mx.native.stackFree(stack);
      for (const layer of layers.splice(0)) mx.native.layerFree(layer);
    },
  };
}

/**
 * Stock MLX operations.
 *
 * @param dtype activations and residual stream; on the CPU float32, where MLX would else convert weights on every call
 *   and accumulate in 16 bits
 */
export function stockKernels(dtype: mx.Dtype): Kernels {
  const owned: mx.MxArray[] = [];
  const cast = (x: mx.MxArray): mx.MxArray => {
    if (x.dtype === dtype) return x;
    const converted = mx.scope(() => {
      const y = mx.keep(mx.astype(x, dtype));
      mx.evaluate(y);
      return y;
    });
    owned.push(converted);
    return converted;
  };
  const kept = (make: () => mx.MxArray): mx.MxArray => {
    const made = mx.scope(() => {
      const y = mx.keep(make());
      mx.evaluate(y);
      return y;
    });
    owned.push(made);
    return made;
  };
  const kernels: Kernels = {
    placement: () => "file",
    linear(m, bias) {
      const b = bias ? cast(bias) : null;
      const plus = (y: mx.MxArray) => (b ? mx.add(y, b) : y);
      if (m.bits === 0) {
        const weight = cast(m.weight);
        return (x) => plus(mx.matmul(x, mx.transpose(weight, [1, 0])));
      }
      const scales = cast(m.scales as mx.MxArray);
      const biases = cast(m.biases as mx.MxArray);
      const options = { groupSize: m.groupSize, bits: m.bits, transpose: true } as const;
      return (x) => plus(mx.quantizedMatmul(x, m.weight, scales, biases, options));
    },
    embedding(m) {
      if (m.bits === 0) {
        const weight = m.weight; // rows are cast after the look-up: no second copy of the table
        return (ids) => mx.astype(mx.take(weight, ids, 0), dtype);
      }
      const scales = cast(m.scales as mx.MxArray);
      const biases = cast(m.biases as mx.MxArray);
      const options = { groupSize: m.groupSize, bits: m.bits } as const;
      return (ids) =>
        mx.dequantize(
          mx.take(m.weight, ids, 0),
          mx.take(scales, ids, 0),
          mx.take(biases, ids, 0),
          options,
        );
    },
    rmsNorm(weight, eps) {
      const w = cast(weight);
      return (x) => mx.fast.rmsNorm(x, w, eps);
    },
    rotation(frequencies, headDim, traditional) {
      const dims = frequencies.inverse.length * 2;
      const wavelengths = kept(() =>
        mx.array(
          frequencies.inverse.map((f) => 1 / f),
          [dims / 2],
          "float32",
        ),
      );
      const factor = frequencies.scale;
      const rotate = (positions: mx.MxArray, x: mx.MxArray, heads: number) => {
        const rows = x.shape[0] as number;
        const scaled = factor === 1 ? x : scaleRotated(x, factor, dims, heads, headDim);
        const rotated = mx.fast.rope(mx.reshape(scaled, [rows, heads, 1, headDim]), {
          dims,
          traditional,
          scale: 1,
          offset: positions,
          freqs: wavelengths,
          base: null,
        });
        return mx.reshape(rotated, [rows, heads * headDim]);
      };
      return (positions) => ({
        rotate: (x, heads) => rotate(positions, x, heads),
        table: null,
      });
    },
    stack(parts) {
      const made = parts.map((part) =>
        part.kind === "mlp" ? stockMlp(part, kernels) : stockAttention(part, kernels),
      );
      return (x, rotations, cache) => {
        if (!(cache instanceof ContiguousCache))
          throw new Error("stock MLX needs a ContiguousCache");
        return made.reduce((y, part) => part(y, rotations, cache), x);
      };
    },
    dispose: () => freeAll(owned),
  };
  return kernels;
}

type StockPart = (
  x: mx.MxArray,
  rotations: readonly Rotation[],
  cache: ContiguousCache,
) => mx.MxArray;

function stockAttention(part: AttentionPart, kernels: Kernels): StockPart {
  const { heads, kvHeads, headDim, layer, scale } = part;
  const { eps } = part.norm;
  const normalize = kernels.rmsNorm(part.norm.weight, eps);
  const [toQ, toK, toV, toOut] = [part.q, part.k, part.v, part.o].map(({ matrix, bias }) =>
    kernels.linear(matrix, bias),
  ) as [Linear, Linear, Linear, Linear];
  const perHead = (weight: mx.MxArray | null): Norm => {
    if (!weight) return (x) => x;
    const norm = kernels.rmsNorm(weight, eps);
    return (x) => {
      const [rows = 0, width = 0] = x.shape;
      return mx.reshape(norm(mx.reshape(x, [rows, width / headDim, headDim])), [rows, width]);
    };
  };
  const qNorm = perHead(part.qNorm);
  const kNorm = perHead(part.kNorm);
  return (x, rotations, cache) => {
    const { rotate } = rotations[part.rotation] as Rotation;
    const n = normalize(x);
    const q = rotate(qNorm(toQ(n)), heads); // (T, H*D)
    const k = rotate(kNorm(toK(n)), kvHeads); // (T, K*D)
    return mx.add(x, toOut(cache.attend(layer, q, k, toV(n), scale)));
  };
}

function stockMlp({ norm, gate, up, down }: MlpPart, kernels: Kernels): StockPart {
  const normalize = kernels.rmsNorm(norm.weight, norm.eps);
  const [toGate, toUp, toDown] = [gate, up, down].map(({ matrix, bias }) =>
    kernels.linear(matrix, bias),
  ) as [Linear, Linear, Linear];
  return (x) => {
    const n = normalize(x);
    const g = toGate(n);
    return mx.add(x, toDown(mx.multiply(mx.multiply(g, mx.sigmoid(g)), toUp(n))));
  };
}

/** Multiplies the rotated dimensions alone, as mlx-lm does for yarn. */
function scaleRotated(
  x: mx.MxArray,
  factor: number,
  dims: number,
  heads: number,
  headDim: number,
): mx.MxArray {
  const mask = Float32Array.from({ length: headDim }, (_, i) => (i < dims ? factor : 1));
  const rows = x.shape[0] as number;
  const scale = mx.astype(mx.array(mask, [headDim], "float32"), x.dtype);
  return mx.reshape(mx.multiply(mx.reshape(x, [rows, heads, headDim]), scale), [
    rows,
    heads * headDim,
  ]);
}

function freeAll(arrays: mx.MxArray[]): void {
  for (const array of arrays.splice(0)) mx.free(array);
}
