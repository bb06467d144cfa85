import { type MxArray, wrap } from "../array.ts";
import { type Dtype, dtypeCode, promote } from "../dtype.ts";
import { nativeError } from "../error.ts";
import { native } from "../library.ts";
import * as scratch from "../scratch.ts";
import { broadcast } from "./elementwise.ts";

/** How a matrix was quantized: MLX's affine mode. */
export interface Quantization {
  /** Elements that share a scale and a bias. */
  readonly groupSize: number;
  readonly bits: number;
}

function productShape(a: readonly number[], b: readonly number[]): number[] {
  const rows = a.length > 1 ? [a.at(-2) as number] : [];
  const columns = b.length > 1 ? [b.at(-1) as number] : [];
  if (b.length <= 2) return [...a.slice(0, -2), ...rows, ...columns];
  return [...broadcast(a.slice(0, -2), b.slice(0, -2)), ...rows, ...columns];
}

/** a (…, M, K) @ b (…, K, N) → (…, M, N); floats. */
export function matmul(a: MxArray, b: MxArray): MxArray {
  const handle = native().omlx_matmul(a.ptr, b.ptr);
  if (handle === null) throw nativeError("matmul");
  return wrap("matmul", handle, productShape(a.shape, b.shape), promote(a.dtype, b.dtype));
}

/** alpha * (a @ b) + beta * c */
export function addmm(c: MxArray, a: MxArray, b: MxArray, alpha = 1, beta = 1): MxArray {
  const handle = native().omlx_addmm(c.ptr, a.ptr, b.ptr, alpha, beta);
  if (handle === null) throw nativeError("addmm");
  const dtype = promote(c.dtype, promote(a.dtype, b.dtype));
  return wrap("addmm", handle, broadcast(productShape(a.shape, b.shape), c.shape), dtype);
}

/**
 * x (…, K) with a quantized matrix → (…, N). w (N, K * bits / 32) uint32, scales and biases (N, K / groupSize) when
 * transpose (the default); else w is (K, N * bits / 32) and the product x @ w.
 */
export function quantizedMatmul(
  x: MxArray,
  w: MxArray,
  scales: MxArray,
  biases: MxArray | null,
  options: Quantization & { readonly transpose?: boolean },
): MxArray {
  const transpose = options.transpose ?? true;
  const handle = native().omlx_quantized_matmul(
    x.ptr,
    w.ptr,
    scales.ptr,
    biases === null ? null : biases.ptr,
    transpose ? 1 : 0,
    options.groupSize,
    options.bits,
  );
  if (handle === null) throw nativeError("quantizedMatmul");
  const columns = transpose
    ? (w.shape.at(-2) as number)
    : ((w.shape.at(-1) as number) * 32) / options.bits;
  const dtype = promote(x.dtype, biases ? promote(scales.dtype, biases.dtype) : scales.dtype);
  return wrap("quantizedMatmul", handle, x.shape.with(-1, columns), dtype);
}

/** w (N, K * bits / 32) with its scales and biases → (N, K), in `dtype` or that of scales. */
export function dequantize(
  w: MxArray,
  scales: MxArray,
  biases: MxArray | null,
  options: Quantization & { readonly dtype?: Dtype },
): MxArray {
  const handle = native().omlx_dequantize(
    w.ptr,
    scales.ptr,
    biases === null ? null : biases.ptr,
    options.groupSize,
    options.bits,
    options.dtype === undefined ? -1 : dtypeCode(options.dtype),
  );
  if (handle === null) throw nativeError("dequantize");
  const columns = ((w.shape.at(-1) as number) * 32) / options.bits;
  return wrap("dequantize", handle, w.shape.with(-1, columns), options.dtype ?? scales.dtype);
}

/** w (…, K) float → packed uint32 (…, K * bits / 32), scales and biases (…, K / groupSize). */
export function quantize(
  w: MxArray,
  options: Quantization,
): { packed: MxArray; scales: MxArray; biases: MxArray } {
  scratch.reserveHandles(3);
  const { groupSize, bits } = options;
  if (native().omlx_quantize(w.ptr, groupSize, bits, scratch.handlesPtr) !== 0) {
    throw nativeError("quantize");
  }
  const columns = w.shape.at(-1) as number;
  const [packed, scales, biases] = scratch.handles as unknown as [number, number, number];
  const groups = w.shape.with(-1, columns / groupSize);
  return {
    packed: wrap("quantize", packed, w.shape.with(-1, (columns * bits) / 32), "uint32"),
    scales: wrap("quantize", scales, groups, w.dtype),
    biases: wrap("quantize", biases, groups, w.dtype),
  };
}
