import { expect } from "bun:test";
import * as mx from "#device/mlx";
import { DTYPES } from "../../../src/device/mlx/dtype.ts";
import { native } from "../../../src/device/mlx/library.ts";

/** What MLX itself says about an array. */
export function told(a: mx.MxArray): { shape: number[]; dtype: mx.Dtype } {
  const out = new Int32Array(8);
  const ndim = native().omlx_shape(a.ptr, out);
  return {
    shape: Array.from(out.subarray(0, ndim)),
    dtype: DTYPES[native().omlx_dtype(a.ptr)] as mx.Dtype,
  };
}

/** Shape and dtype as computed here are those MLX has; returns the array. */
export function consistent(a: mx.MxArray): mx.MxArray {
  expect({ shape: [...a.shape], dtype: a.dtype }).toEqual(told(a));
  return a;
}

/** Shape, dtype and values; values within a relative and absolute 1e-6. */
export function expectArray(
  a: mx.MxArray,
  shape: readonly number[],
  dtype: mx.Dtype,
  values: readonly number[],
): void {
  consistent(a);
  expect([...a.shape]).toEqual([...shape]);
  expect(a.dtype).toBe(dtype);
  const found = mx.toFloat32(a);
  expect(found.length).toBe(values.length);
  values.forEach((value, i) => {
    const got = found[i] as number;
    if (Number.isFinite(value)) {
      expect(Math.abs(got - value)).toBeLessThanOrEqual(1e-6 + 1e-6 * Math.abs(value));
    } else {
      expect(got).toBe(value);
    }
  });
}

/** Numbers that look random but are the same in every run, in (-1, 1). */
export function numbers(count: number, seed = 1): number[] {
  let state = seed >>> 0;
  return Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state / 2 ** 32) * 2 - 1;
  });
}
