import { type MxArray, sizeOf, wrap } from "../array.ts";
import { promote } from "../dtype.ts";
import { nativeError } from "../error.ts";
import { putHandles } from "../eval.ts";
import { native } from "../library.ts";
import * as scratch from "../scratch.ts";
import { fromEnd } from "./reduce.ts";

const { ints, intsPtr, putInts } = scratch;

/** The same elements, row-major, in another shape; one size may be -1: what is left. */
export function reshape(a: MxArray, shape: readonly number[]): MxArray {
  const handle = native().omlx_reshape(a.ptr, intsPtr, putInts(shape));
  if (handle === null) throw nativeError("reshape");
  const open = shape.indexOf(-1);
  const rest = open < 0 ? 0 : sizeOf(a.shape) / -sizeOf(shape);
  return wrap("reshape", handle, open < 0 ? shape : shape.with(open, rest), a.dtype);
}

export function broadcastTo(a: MxArray, shape: readonly number[]): MxArray {
  const handle = native().omlx_broadcast_to(a.ptr, intsPtr, putInts(shape));
  return wrap("broadcastTo", handle, shape, a.dtype);
}

/** Axis i of the result is axis axes[i] of a. */
export function transpose(a: MxArray, axes: readonly number[]): MxArray {
  const handle = native().omlx_transpose(a.ptr, intsPtr, putInts(axes));
  if (handle === null) throw nativeError("transpose");
  const shape = axes.map((axis) => a.shape[fromEnd(axis, a.shape.length)] as number);
  return wrap("transpose", handle, shape, a.dtype);
}

export function swapaxes(a: MxArray, axis1: number, axis2: number): MxArray {
  const handle = native().omlx_swapaxes(a.ptr, axis1, axis2);
  if (handle === null) throw nativeError("swapaxes");
  const shape = a.shape.slice();
  const i = fromEnd(axis1, shape.length);
  const j = fromEnd(axis2, shape.length);
  shape[i] = a.shape[j] as number;
  shape[j] = a.shape[i] as number;
  return wrap("swapaxes", handle, shape, a.dtype);
}

/** A new axis of size 1; axis is its place in the result. */
export function expandDims(a: MxArray, axis: number): MxArray {
  const handle = native().omlx_expand_dims(a.ptr, axis);
  if (handle === null) throw nativeError("expandDims");
  const shape = a.shape.toSpliced(fromEnd(axis, a.shape.length + 1), 0, 1);
  return wrap("expandDims", handle, shape, a.dtype);
}

/** Without an axis of size 1. */
export function squeeze(a: MxArray, axis: number): MxArray {
  const handle = native().omlx_squeeze(a.ptr, axis);
  if (handle === null) throw nativeError("squeeze");
  return wrap("squeeze", handle, a.shape.toSpliced(fromEnd(axis, a.shape.length), 1), a.dtype);
}

/** Row-major in memory; no copy when it is already. */
export function contiguous(a: MxArray): MxArray {
  return wrap("contiguous", native().omlx_contiguous(a.ptr), a.shape, a.dtype);
}

/** The arrays one after another along an axis. */
export function concatenate(arrays: readonly MxArray[], axis: number): MxArray {
  const count = putHandles(arrays);
  const handle = native().omlx_concatenate(scratch.handlesPtr, count, axis);
  if (handle === null) throw nativeError("concatenate");
  const first = arrays[0] as MxArray;
  const at = fromEnd(axis, first.shape.length);
  let size = 0;
  let dtype = first.dtype;
  for (const a of arrays) {
    size += a.shape[at] as number;
    dtype = promote(dtype, a.dtype);
  }
  return wrap("concatenate", handle, first.shape.with(at, size), dtype);
}

/** Equal parts along an axis. */
export function split(a: MxArray, parts: number, axis: number): MxArray[] {
  scratch.reserveHandles(parts);
  if (native().omlx_split(a.ptr, parts, axis, scratch.handlesPtr) !== 0) throw nativeError("split");
  const at = fromEnd(axis, a.shape.length);
  const shape = a.shape.with(at, (a.shape[at] as number) / parts);
  return Array.from(scratch.handles.subarray(0, parts), (handle) =>
    wrap("split", handle, shape, a.dtype),
  );
}

function putBounds(
  start: readonly number[],
  stop: readonly number[],
  strides: readonly number[] | undefined,
): number {
  const n = start.length;
  if (stop.length !== n || n > 8) throw new RangeError(`slice: bounds of ${n} and ${stop.length}`);
  for (let i = 0; i < n; i++) {
    ints[i] = start[i] as number;
    ints[n + i] = stop[i] as number;
    ints[2 * n + i] = strides === undefined ? 1 : (strides[i] as number);
  }
  return n;
}

/**
 * The part [start, stop) of every axis, one bound for each. Negative bounds count from the end, bounds beyond it are
 * cut, as in Python.
 */
export function slice(
  a: MxArray,
  start: readonly number[],
  stop: readonly number[],
  strides?: readonly number[],
): MxArray {
  const n = putBounds(start, stop, strides);
  const handle = native().omlx_slice(a.ptr, intsPtr, n);
  if (handle === null) throw nativeError("slice");
  const shape = a.shape.map((size, i) =>
    sliceSize(size, start[i] as number, stop[i] as number, strides?.[i] ?? 1),
  );
  return wrap("slice", handle, shape, a.dtype);
}

function sliceSize(size: number, start: number, stop: number, stride: number): number {
  if (stride === 1 && start >= 0 && stop >= start && stop <= size) return stop - start;
  const low = stride < 0 ? -1 : 0;
  const high = stride < 0 ? size - 1 : size;
  const clamp = (value: number) => Math.min(Math.max(value < 0 ? value + size : value, low), high);
  const from = clamp(start);
  // a negative stop below the first element means "up to and with the first one"
  const to = stride < 0 && stop < -size ? -1 : clamp(stop);
  return Math.max(0, Math.ceil((to - from) / stride));
}

/**
 * src with [start, stop) replaced by update (broadcast to it).
 *
 * Done in place when nothing else holds src at evaluation: the owner frees src after this call and before evaluating.
 */
export function sliceUpdate(
  src: MxArray,
  update: MxArray,
  start: readonly number[],
  stop: readonly number[],
  strides?: readonly number[],
): MxArray {
  const n = putBounds(start, stop, strides);
  const handle = native().omlx_slice_update(src.ptr, update.ptr, intsPtr, n);
  return wrap("sliceUpdate", handle, src.shape, src.dtype);
}

/** Slices of a at integer indices along an axis: the axis is replaced by the shape of indices. */
export function take(a: MxArray, indices: MxArray, axis: number): MxArray {
  const handle = native().omlx_take(a.ptr, indices.ptr, axis);
  if (handle === null) throw nativeError("take");
  const at = fromEnd(axis, a.shape.length);
  return wrap("take", handle, a.shape.toSpliced(at, 1, ...indices.shape), a.dtype);
}

/** Elements of a at indices along an axis; indices has the shape of a but for that axis. */
export function takeAlongAxis(a: MxArray, indices: MxArray, axis: number): MxArray {
  const handle = native().omlx_take_along_axis(a.ptr, indices.ptr, axis);
  if (handle === null) throw nativeError("takeAlongAxis");
  const at = fromEnd(axis, a.shape.length);
  return wrap("takeAlongAxis", handle, a.shape.with(at, indices.shape[at] as number), a.dtype);
}
