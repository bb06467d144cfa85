import { type Dtype, dtypeCode, itemSize } from "./dtype.ts";
import { nativeError } from "./error.ts";
import { native } from "./library.ts";
import { register, type Scope } from "./scope.ts";
import { intsPtr, putInts } from "./scratch.ts";

/**
 * A handle to a lazy MLX array. Shape and dtype are known here without asking MLX.
 *
 * Made by the functions of this room only. An array made inside a scope belongs to it; one made outside, or kept,
 * belongs to whoever holds it and is freed with `free`.
 */
export class MxArray {
  /** Address of the native array; 0 after it was freed. */
  ptr: number;
  /** The scope that frees it; null: its owner does. */
  home: Scope | null = null;
  readonly shape: readonly number[];
  readonly dtype: Dtype;

  constructor(ptr: number, shape: readonly number[], dtype: Dtype) {
    this.ptr = ptr;
    this.shape = shape;
    this.dtype = dtype;
  }

  get ndim(): number {
    return this.shape.length;
  }

  /** Number of elements. */
  get size(): number {
    return sizeOf(this.shape);
  }

  /** Bytes of the elements, row-major. */
  get nbytes(): number {
    return this.size * itemSize(this.dtype);
  }
}

/** Elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  let size = 1;
  for (const n of shape) size *= n;
  return size;
}

/** The array behind a handle that C gave; `op` names the call in the error when there is none. */
export function wrap(
  op: string,
  handle: number | null,
  shape: readonly number[],
  dtype: Dtype,
): MxArray {
  if (handle === null) throw nativeError(op);
  const made = new MxArray(handle, shape, dtype);
  register(made);
  return made;
}

type Numbers = readonly number[] | NodeJS.TypedArray;

/**
 * A copy of data, row-major.
 *
 * @param data  numbers, or a typed array whose elements have the bytes of dtype (float16 and bfloat16: a Uint16Array of
 *              their bits); a typed array of another kind is converted number by number
 * @throws {RangeError} when data does not fill the shape
 */
export function array(data: Numbers, shape: readonly number[], dtype: Dtype): MxArray {
  const size = sizeOf(shape);
  if (data.length !== size) {
    throw new RangeError(`array: ${data.length} elements for the shape [${shape}] of ${size}`);
  }
  if (size === 0) return zeros(shape, dtype);
  const bytes = toBytes(data, dtype);
  return wrap(
    "array",
    native().omlx_array(bytes, intsPtr, putInts(shape), dtypeCode(dtype)),
    shape,
    dtype,
  );
}

/** The constructor whose elements are those of a dtype. */
const CONTAINERS = {
  bool: Uint8Array,
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  float16: Uint16Array,
  float32: Float32Array,
  float64: Float64Array,
  bfloat16: Uint16Array,
  complex64: Float32Array,
} as const satisfies Record<Dtype, unknown>;

function toBytes(data: Numbers, dtype: Dtype): NodeJS.TypedArray {
  const Container = CONTAINERS[dtype];
  if (data instanceof Container && dtype !== "complex64") return data;
  if (dtype === "float16" || dtype === "bfloat16" || dtype === "complex64") {
    throw new TypeError(`array: ${dtype} takes the bits in a Uint16Array; convert with astype`);
  }
  if (Container === BigInt64Array || Container === BigUint64Array) {
    return Container.from(Array.from(data as ArrayLike<number>, BigInt));
  }
  return (Container as typeof Float32Array).from(data as ArrayLike<number>);
}

export function zeros(shape: readonly number[], dtype: Dtype): MxArray {
  return wrap(
    "zeros",
    native().omlx_zeros(intsPtr, putInts(shape), dtypeCode(dtype)),
    shape,
    dtype,
  );
}

/** Every element is `value`. */
export function full(shape: readonly number[], value: number, dtype: Dtype): MxArray {
  const handle = native().omlx_full(value, intsPtr, putInts(shape), dtypeCode(dtype));
  return wrap("full", handle, shape, dtype);
}

/** A zero-dimensional array. */
export function scalar(value: number, dtype: Dtype): MxArray {
  return wrap("scalar", native().omlx_scalar(value, dtypeCode(dtype)), [], dtype);
}

/** int32 0, 1, … n - 1; or start … stop - 1 with two arguments. */
export function arange(start: number, stop?: number): MxArray {
  const from = stop === undefined ? 0 : start;
  const to = stop ?? start;
  return wrap("arange", native().omlx_arange(from, to), [Math.max(0, to - from)], "int32");
}
