import { type MxArray, sizeOf } from "./array.ts";
import { dtypeCode } from "./dtype.ts";
import { nativeError } from "./error.ts";
import { native } from "./library.ts";
import * as scratch from "./scratch.ts";

/** Writes the arrays' handles into the shared list and returns their number. */
export function putHandles(arrays: readonly MxArray[]): number {
  const count = arrays.length;
  scratch.reserveHandles(count);
  for (let i = 0; i < count; i++) scratch.handles[i] = (arrays[i] as MxArray).ptr;
  return count;
}

/** Computes the arrays and returns when they can be read. Errors of the computation surface here. */
export function evaluate(...arrays: readonly MxArray[]): void {
  const count = putHandles(arrays);
  if (native().omlx_eval(scratch.handlesPtr, count) !== 0) throw nativeError("evaluate");
}

/** Starts computing the arrays and returns at once. */
export function asyncEval(...arrays: readonly MxArray[]): void {
  const count = putHandles(arrays);
  if (native().omlx_async_eval(scratch.handlesPtr, count) !== 0) throw nativeError("asyncEval");
}

/** Waits for everything that was started. */
export function synchronize(): void {
  if (native().omlx_synchronize() !== 0) throw nativeError("synchronize");
}

/** The elements, row-major, as float32 numbers; evaluates. The copy belongs to the caller. */
export function toFloat32(a: MxArray): Float32Array {
  const out = new Float32Array(sizeOf(a.shape));
  read("toFloat32", a, dtypeCode("float32"), out);
  return out;
}

/** The elements, row-major, as int32; evaluates. */
export function toInt32(a: MxArray): Int32Array {
  const out = new Int32Array(sizeOf(a.shape));
  read("toInt32", a, dtypeCode("int32"), out);
  return out;
}

/** The bytes of the elements in their own dtype, row-major; evaluates. */
export function toBytes(a: MxArray): Uint8Array {
  const out = new Uint8Array(a.nbytes);
  read("toBytes", a, dtypeCode(a.dtype), out);
  return out;
}

/** As toFloat32 into memory of the caller; `out` must have as many elements as the array. */
export function readFloat32(a: MxArray, out: Float32Array): void {
  read("readFloat32", a, dtypeCode("float32"), out);
}

function read(op: string, a: MxArray, code: number, out: NodeJS.TypedArray): void {
  // an empty typed array has no address
  const target = out.byteLength === 0 ? null : out;
  if (native().omlx_read(a.ptr, code, target, out.byteLength) !== 0) throw nativeError(op);
}

/** The one element of an array of size 1. */
export function itemFloat(a: MxArray): number {
  return toFloat32(a)[0] as number;
}

/** The one element of an array of size 1, as an integer. */
export function itemInt(a: MxArray): number {
  return toInt32(a)[0] as number;
}

/** Address of the elements of an evaluated, row-major array; valid while the array lives. */
export function dataPointer(a: MxArray): number {
  const address = native().omlx_data(a.ptr);
  if (address === null) throw nativeError("dataPointer");
  return address;
}
