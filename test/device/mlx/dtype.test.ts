import { describe, expect, test } from "bun:test";
import * as mx from "#device/mlx";
import { DTYPES, itemSize } from "../../../src/device/mlx/dtype.ts";
import { native } from "../../../src/device/mlx/library.ts";
import { consistent, told } from "./expect-array.ts";

const REAL = DTYPES.filter((dtype) => dtype !== "complex64");

describe("dtypes", () => {
  test("promote() agrees with MLX for every pair", () => {
    mx.scope(() => {
      for (const a of DTYPES) {
        for (const b of DTYPES) {
          const sum = mx.add(mx.zeros([1], a), mx.zeros([1], b));
          expect(`${a} + ${b} = ${sum.dtype}`).toBe(`${a} + ${b} = ${told(sum).dtype}`);
        }
      }
    });
  });

  test("every operation names the dtype that MLX gives, for every real dtype", () => {
    const unary = [mx.abs, mx.cos, mx.erf, mx.exp, mx.log, mx.rsqrt, mx.sigmoid, mx.sin];
    const more = [mx.sqrt, mx.square, mx.tanh];
    const binary = [mx.divide, mx.logaddexp, mx.maximum, mx.power, mx.equal, mx.logicalAnd];
    const along = [mx.sum, mx.mean, mx.max, mx.min, mx.logsumexp, mx.argmax];
    mx.scope(() => {
      for (const dtype of REAL) {
        const a = mx.full([2, 3], 1, dtype);
        for (const op of [...unary, ...more]) consistent(op(a));
        for (const op of binary) consistent(op(a, a));
        for (const op of along) {
          consistent(op(a, -1));
          consistent(op(a, 0, true));
        }
        consistent(mx.softmax(a, -1));
        if (dtype !== "bool") consistent(mx.negative(a));
        if (dtype !== "bool") consistent(mx.subtract(a, a));
        consistent(mx.add(a, 1));
        consistent(mx.multiply(0.5, a));
      }
    });
  });

  test("itemSize() is the size MLX has", () => {
    mx.scope(() => {
      for (const dtype of DTYPES) {
        const a = mx.zeros([3], dtype);
        expect(itemSize(dtype) * 3).toBe(mx.toBytes(a).byteLength);
        expect(native().omlx_dtype(a.ptr)).toBe(DTYPES.indexOf(dtype));
      }
    });
  });
});
