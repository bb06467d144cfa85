import { ptr } from "bun:ffi";

/*
 * Memory that C reads and writes during a call, reused by every call of the thread.
 *
 * Both arrays are made over an explicit ArrayBuffer. NOTE(bun 1.4.5): the storage of a small typed array made without
 * one is moved when the JIT compiles a function that uses it, and an address taken before then points at foreign
 * memory. Addresses of other typed arrays are therefore never kept: the array itself is passed.
 */

const INT_COUNT = 64;

/** Shapes, axes and slice bounds. */
export const ints = new Int32Array(new ArrayBuffer(INT_COUNT * 4));
/** Address of `ints`. */
export const intsPtr: number = ptr(ints);

/** Lists of handles; `handlesPtr` is its address. Both change when the list grows. */
export let handles = new Float64Array(new ArrayBuffer(1024 * 8));
export let handlesPtr: number = ptr(handles);

/** Makes room for `count` handles. */
export function reserveHandles(count: number): void {
  if (count <= handles.length) return;
  handles = new Float64Array(new ArrayBuffer(2 ** Math.ceil(Math.log2(count)) * 8));
  handlesPtr = ptr(handles);
}

/** Writes a shape or axes into `ints` and returns their number. */
export function putInts(values: readonly number[]): number {
  const count = values.length;
  if (count > INT_COUNT) throw new RangeError(`${count} sizes; at most ${INT_COUNT} fit`);
  for (let i = 0; i < count; i++) ints[i] = values[i] as number;
  return count;
}
