import * as mx from "#device/mlx";
import type { Activation } from "./encoder-spec.ts";

/** A text, or some rows of one, in a pass: rows [start, start + rows) are its positions offset, offset + 1, … */
export interface TextSpan {
  readonly start: number;
  readonly rows: number;
  readonly offset: number;
  /** First row of the text's keys, and how many it has. */
  readonly firstKey: number;
  readonly keys: number;
}

export interface AttendOptions {
  readonly kvHeads: number;
  readonly headDim: number;
  readonly scale: number;
  /** Keys seen before and after the token itself; null: all. */
  readonly before: number | null;
  readonly after: number | null;
}

/** norm(x), or norm(x + residual) */
export type SumNorm = (x: mx.MxArray, residual?: mx.MxArray) => mx.MxArray;

/** The fused operations that only encoders need, in the same two forms as Kernels. */
export interface EncoderKernels {
  layerNorm(weight: mx.MxArray | null, bias: mx.MxArray | null, eps: number): SumNorm;
  /** activation(x), or activation(x) · up */
  activate(kind: Activation, x: mx.MxArray, up?: mx.MxArray): mx.MxArray;
  /** q (T, H·D), k and v (S, K·D) of all texts → (T, H·D) */
  attend(
    q: mx.MxArray,
    k: mx.MxArray,
    v: mx.MxArray,
    spans: readonly TextSpan[],
    options: AttendOptions,
  ): mx.MxArray;
}

/** Own CPU kernels. */
export const nativeEncoderKernels: EncoderKernels = {
  layerNorm: (weight, bias, eps) => (x, residual) =>
    mx.native.layerNorm(x, residual ?? null, weight, bias, eps),
  activate: (kind, x, up) =>
    kind === "tanh" || kind === "sigmoid" || kind === "identity"
      ? stockActivate(kind, x, up)
      : mx.native.activate(kind, x, up ?? null),
  attend(q, k, v, spans, { kvHeads, scale, before, after }) {
    const rows = spans.flatMap((s) => [s.start, s.rows, s.offset, s.firstKey, s.keys]);
    const table = mx.array(Int32Array.from(rows), [spans.length, 5], "int32");
    return mx.native.encode(q, k, v, table, kvHeads, before, after, scale);
  },
};

/** Stock MLX operations. */
export const stockEncoderKernels: EncoderKernels = {
  layerNorm: (weight, bias, eps) => (x, residual) =>
    mx.fast.layerNorm(residual ? mx.add(x, residual) : x, weight, bias, eps),
  activate: stockActivate,
  attend(q, k, v, spans, options) {
    const parts = spans.map((span) => attendOne(q, k, v, span, options));
    return parts.length === 1 ? (parts[0] as mx.MxArray) : mx.concatenate(parts, 0);
  },
};

/** gelu: x Φ(x); its tanh form: arXiv:1606.08415. */
function stockActivate(kind: Activation, x: mx.MxArray, up?: mx.MxArray): mx.MxArray {
  const y = activation(kind, x);
  return up ? mx.multiply(y, up) : y;
}

function activation(kind: Activation, x: mx.MxArray): mx.MxArray {
  switch (kind) {
    case "gelu":
      return mx.multiply(mx.multiply(x, 0.5), mx.add(mx.erf(mx.multiply(x, Math.SQRT1_2)), 1));
    case "geluTanh": {
      const cubic = mx.multiply(mx.add(mx.multiply(mx.square(x), 0.044715), 1), x);
      const u = mx.multiply(cubic, Math.sqrt(2 / Math.PI));
      return mx.multiply(mx.multiply(x, 0.5), mx.add(mx.tanh(u), 1));
    }
    case "silu":
      return mx.multiply(x, mx.sigmoid(x));
    case "relu":
      return mx.maximum(x, 0);
    case "tanh":
      return mx.tanh(x);
    case "sigmoid":
      return mx.sigmoid(x);
    case "identity":
      return x;
  }
}

function attendOne(
  q: mx.MxArray,
  k: mx.MxArray,
  v: mx.MxArray,
  span: TextSpan,
  { kvHeads, headDim, scale, before, after }: AttendOptions,
): mx.MxArray {
  const { start, rows, firstKey, keys } = span;
  const heads = (q.shape[1] as number) / headDim;
  const split = (x: mx.MxArray, from: number, count: number, numHeads: number) => {
    const part = mx.slice(x, [from, 0], [from + count, numHeads * headDim]);
    return mx.swapaxes(mx.reshape(part, [1, count, numHeads, headDim]), 1, 2); // (1, H, T, D)
  };
  const out = mx.fast.scaledDotProductAttention(
    split(q, start, rows, heads),
    split(k, firstKey, keys, kvHeads),
    split(v, firstKey, keys, kvHeads),
    {
      scale,
      mask: before === null && after === null ? "none" : mask(span, before, after, q.dtype),
    },
  );
  return mx.reshape(mx.swapaxes(out, 1, 2), [rows, heads * headDim]);
}

/** (T, S) to be added to the scores. */
function mask(
  { rows, offset, keys }: TextSpan,
  before: number | null,
  after: number | null,
  dtype: mx.Dtype,
): mx.MxArray {
  const values = new Float32Array(rows * keys);
  for (let r = 0; r < rows; r++) {
    const first = before === null ? 0 : Math.max(0, offset + r - before);
    const end = after === null ? keys : Math.min(keys, offset + r + after + 1);
    values.fill(Number.NEGATIVE_INFINITY, r * keys, r * keys + first);
    values.fill(Number.NEGATIVE_INFINITY, r * keys + end, (r + 1) * keys);
  }
  return mx.astype(mx.array(values, [rows, keys], "float32"), dtype);
}
