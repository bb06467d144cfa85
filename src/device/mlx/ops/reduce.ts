import { type MxArray, wrap } from "../array.ts";
import { type Dtype, fractional } from "../dtype.ts";
import { nativeError } from "../error.ts";
import { native } from "../library.ts";

/** A negative axis counts from the end. */
export const fromEnd = (axis: number, ndim: number) => (axis < 0 ? axis + ndim : axis);

type Reduction = (a: number, axis: number, keepdims: number) => number | null;

function reduce(
  op: string,
  call: Reduction,
  a: MxArray,
  axis: number,
  keepdims: boolean,
  dtype: Dtype,
): MxArray {
  const handle = call(a.ptr, axis, keepdims ? 1 : 0);
  if (handle === null) throw nativeError(op);
  const at = fromEnd(axis, a.shape.length);
  const shape = keepdims ? a.shape.with(at, 1) : a.shape.toSpliced(at, 1);
  return wrap(op, handle, shape, dtype);
}

/** MLX sums small integers in 32 bits, and counts bools. */
function summed(dtype: Dtype): Dtype {
  if (dtype === "bool" || dtype === "int8" || dtype === "int16") return "int32";
  return dtype === "uint8" || dtype === "uint16" ? "uint32" : dtype;
}

export const sum = (a: MxArray, axis: number, keepdims = false) =>
  reduce("sum", native().omlx_sum, a, axis, keepdims, summed(a.dtype));

export const mean = (a: MxArray, axis: number, keepdims = false) =>
  reduce("mean", native().omlx_mean, a, axis, keepdims, fractional(a.dtype));

export const max = (a: MxArray, axis: number, keepdims = false) =>
  reduce("max", native().omlx_max, a, axis, keepdims, a.dtype);

export const min = (a: MxArray, axis: number, keepdims = false) =>
  reduce("min", native().omlx_min, a, axis, keepdims, a.dtype);

/** log(sum(exp(a))) */
export const logsumexp = (a: MxArray, axis: number, keepdims = false) =>
  reduce("logsumexp", native().omlx_logsumexp, a, axis, keepdims, fractional(a.dtype));

/** Index of the largest element, the first of equal ones; uint32. */
export const argmax = (a: MxArray, axis: number, keepdims = false) =>
  reduce("argmax", native().omlx_argmax, a, axis, keepdims, "uint32");

/** exp(a) / sum(exp(a)) along the axis. precise: half-precision inputs are summed in float32. */
export function softmax(a: MxArray, axis: number, precise = false): MxArray {
  const handle = native().omlx_softmax(a.ptr, axis, precise ? 1 : 0);
  return wrap("softmax", handle, a.shape, fractional(a.dtype));
}
