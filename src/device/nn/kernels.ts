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
  /** What the attention kernel rotates by, where it does so itself. */
  readonly table: mx.MxArray | null;
}

/**
 * The fused operations, in two forms: own CPU kernels (native) and stock MLX (any device, the definition of correct).
 * Weights are bound once, at load; what a form keeps beyond them it adds to `owned`.
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
  /**
   * Norms of the heads of queries and keys, and their rotation, as a part of attention; null where attention has no such
   * part: then they are operations of their own.
   */
  rowNorms(
    qNorm: mx.MxArray | null,
    kNorm: mx.MxArray | null,
    eps: number,
    traditional: boolean,
  ): mx.native.RowNorms | null;
  /** Linear layers of the normed input. */
  project(
    norm: NormWeights,
    layers: readonly LinearWeights[],
  ): (x: mx.MxArray) => readonly mx.MxArray[];
  /** residual + linear(x) */
  projectOnto(layer: LinearWeights): (x: mx.MxArray, residual: mx.MxArray) => mx.MxArray;
  /** x + down(silu(gate(n)) * up(n)), n = norm(x) */
  mlp(
    norm: NormWeights,
    gate: LinearWeights,
    up: LinearWeights,
    down: LinearWeights,
  ): (x: mx.MxArray) => mx.MxArray;
  /** silu(gate) * up */
  swiglu(gate: mx.MxArray, up: mx.MxArray): mx.MxArray;
  /** Frees what the bound weights needed beyond the file's own tensors. */
  dispose(): void;
}

/**
 * Own CPU kernels. Quantized weights are packed as they are bound, unless the arithmetic of the process is "exact": that
 * reads them as they are.
 */
export function nativeKernels(): Kernels {
  const owned: mx.MxArray[] = [];
  const norms: mx.native.RowNorms[] = [];
  const layers: mx.native.Layer[] = [];
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
    rowNorms(qNorm, kNorm, eps, traditional) {
      const made = mx.native.rowNormsNew(qNorm, kNorm, eps, traditional);
      norms.push(made);
      return made;
    },
    project(norm, all) {
      const bound = all.map(bind);
      return (x) => mx.native.project(x, norm.weight, norm.eps, bound);
    },
    projectOnto(layer) {
      const bound = bind(layer);
      return (x, residual) => mx.native.projectOnto(x, bound, residual);
    },
    mlp(norm, gate, up, down) {
      const [g, u, d] = [bind(gate), bind(up), bind(down)];
      if (gate.bias || up.bias) {
        return (x) => {
          const [a, b] = mx.native.project(x, norm.weight, norm.eps, [g, u]);
          return mx.native.projectOnto(mx.native.swiglu(a as mx.MxArray, b as mx.MxArray), d, x);
        };
      }
      return (x) => mx.native.mlp(x, norm.weight, norm.eps, g, u, d);
    },
    swiglu: (gate, up) => mx.native.swiglu(gate, up),
    dispose() {
      freeAll(owned);
      for (const made of norms.splice(0)) mx.native.rowNormsFree(made);
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
    rowNorms: () => null,
    project(norm, layers) {
      const normed = kernels.rmsNorm(norm.weight, norm.eps);
      const linears = layers.map(({ matrix, bias }) => kernels.linear(matrix, bias));
      return (x) => {
        const n = normed(x);
        return linears.map((linear) => linear(n));
      };
    },
    projectOnto({ matrix, bias }) {
      const linear = kernels.linear(matrix, bias);
      return (x, residual) => mx.add(residual, linear(x));
    },
    mlp(norm, gate, up, down) {
      const inner = kernels.project(norm, [gate, up]);
      const outer = kernels.projectOnto(down);
      return (x) => {
        const [g, u] = inner(x);
        return outer(kernels.swiglu(g as mx.MxArray, u as mx.MxArray), x);
      };
    },
    swiglu: (gate, up) => mx.multiply(mx.multiply(gate, mx.sigmoid(gate)), up),
    dispose: () => freeAll(owned),
  };
  return kernels;
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
