import { type MxArray, wrap } from "./array.ts";
import { promote } from "./dtype.ts";
import { nativeError } from "./error.ts";
import { native } from "./library.ts";

/** x / sqrt(mean(x²) + eps) * weight over the last axis. */
export function rmsNorm(x: MxArray, weight: MxArray | null, eps: number): MxArray {
  const handle = native().omlx_rms_norm(x.ptr, weight === null ? null : weight.ptr, eps);
  return wrap("fast.rmsNorm", handle, x.shape, weight ? promote(x.dtype, weight.dtype) : x.dtype);
}

/** (x - mean) / sqrt(var + eps) * weight + bias over the last axis. */
export function layerNorm(
  x: MxArray,
  weight: MxArray | null,
  bias: MxArray | null,
  eps: number,
): MxArray {
  const handle = native().omlx_layer_norm(x.ptr, weight?.ptr ?? null, bias?.ptr ?? null, eps);
  let dtype = x.dtype;
  for (const other of [weight, bias]) if (other) dtype = promote(dtype, other.dtype);
  return wrap("fast.layerNorm", handle, x.shape, dtype);
}

export interface RopeOptions {
  /** How many of the last axis are rotated. */
  readonly dims: number;
  /** Pairs (2i, 2i+1) instead of (i, i + dims/2). */
  readonly traditional: boolean;
  /** Multiplies positions. */
  readonly scale: number;
  /** Position of the first token: one for all, or an int32 array, () or (B). */
  readonly offset: number | MxArray;
  /** Wavelengths (dims/2); null: base^(2i/dims). */
  readonly freqs: MxArray | null;
  readonly base: number | null;
}

/** Rotary positions. x (…, T, D), token t has the position offset + t. */
export function rope(x: MxArray, options: RopeOptions): MxArray {
  const { dims, offset, scale } = options;
  const traditional = options.traditional ? 1 : 0;
  const freqs = options.freqs === null ? null : options.freqs.ptr;
  if (freqs === null && options.base === null) throw new TypeError("fast.rope: base or freqs");
  const base = options.base ?? 0;
  const handle =
    typeof offset === "number"
      ? native().omlx_rope(x.ptr, dims, traditional, offset, freqs, base, scale)
      : native().omlx_rope_dynamic(x.ptr, dims, traditional, offset.ptr, freqs, base, scale);
  return wrap("fast.rope", handle, x.shape, x.dtype);
}

export interface AttentionOptions {
  /** Multiplies q·k. */
  readonly scale: number;
  /** "causal": the last query sees the last key. An array is bool (true: seen) or added to the scores. */
  readonly mask: "none" | "causal" | MxArray;
}

/** softmax(q kᵀ · scale + mask) v. q (B, H, T, D), k and v (B, K, S, D), H a multiple of K → (B, H, T, D of v). */
export function scaledDotProductAttention(
  q: MxArray,
  k: MxArray,
  v: MxArray,
  options: AttentionOptions,
): MxArray {
  const { mask, scale } = options;
  const array = typeof mask === "string" ? null : mask.ptr;
  const mode = mask === "none" ? 0 : mask === "causal" ? 1 : 2;
  const handle = native().omlx_sdpa(q.ptr, k.ptr, v.ptr, array, mode, scale);
  if (handle === null) throw nativeError("fast.scaledDotProductAttention");
  const shape = q.shape.with(-1, v.shape.at(-1) as number);
  const dtype = promote(q.dtype, promote(k.dtype, v.dtype));
  return wrap("fast.scaledDotProductAttention", handle, shape, dtype);
}
