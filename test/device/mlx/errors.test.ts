import { describe, expect, test } from "bun:test";
import { OmlxError } from "#core/contract";
import * as mx from "#device/mlx";

const caught = (fn: () => unknown): OmlxError => {
  try {
    mx.scope(fn);
  } catch (error) {
    if (error instanceof OmlxError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
};

describe("errors of MLX", () => {
  const zeros = (...shape: number[]) => mx.zeros(shape, "float32");

  test("come back as OmlxError native with the operation and MLX's text", () => {
    const error = caught(() => mx.matmul(zeros(2, 2), zeros(3, 3)));
    expect(error.code).toBe("native");
    expect(error.message).toMatch(/^matmul: \[matmul\] .*\(2,2\).*\(3,3\)/);
    // the place in our own sources is of no use to a reader
    expect(error.message).not.toMatch(/\.(cpp|h):\d+/);
  });

  const BAD: [name: string, fn: () => unknown][] = [
    ["add", () => mx.add(zeros(2), zeros(3))],
    ["reshape", () => mx.reshape(zeros(4), [3])],
    ["transpose", () => mx.transpose(zeros(2, 2), [0, 0])],
    ["concatenate", () => mx.concatenate([zeros(2, 2), zeros(3, 3)], 0)],
    ["concatenate", () => mx.concatenate([], 0)],
    ["split", () => mx.split(zeros(5), 2, 0)],
    ["take", () => mx.take(zeros(5), zeros(1), 0)],
    ["take", () => mx.take(zeros(5), mx.arange(1), 3)],
    ["sum", () => mx.sum(zeros(2), 4)],
    ["squeeze", () => mx.squeeze(zeros(2), 0)],
    ["broadcastTo", () => mx.broadcastTo(zeros(2), [3])],
    ["slice", () => mx.slice(zeros(2, 2), [0], [1])],
    ["sliceUpdate", () => mx.sliceUpdate(zeros(4), zeros(3), [0], [2])],
    ["matmul", () => mx.matmul(mx.arange(3), mx.arange(3))],
    ["quantize", () => mx.quantize(zeros(4, 64), { groupSize: 17, bits: 4 })],
    [
      "quantizedMatmul",
      () =>
        mx.quantizedMatmul(zeros(2, 2), zeros(2, 2), zeros(1), null, { groupSize: 32, bits: 4 }),
    ],
    ["dequantize", () => mx.dequantize(zeros(2, 2), zeros(2, 2), null, { groupSize: 32, bits: 4 })],
    ["fast.rmsNorm", () => mx.fast.rmsNorm(zeros(2, 4), zeros(3), 1e-5)],
    [
      "fast.scaledDotProductAttention",
      () =>
        mx.fast.scaledDotProductAttention(zeros(1, 3, 2, 8), zeros(1, 2, 2, 8), zeros(1, 2, 2, 8), {
          scale: 1,
          mask: "none",
        }),
    ],
  ];
  for (const [name, fn] of BAD) {
    test(`${name}() with a bad shape, axis or dtype throws and leaves no array behind`, () => {
      mx.init();
      const before = mx.liveArrays();
      const error = caught(fn);
      expect(error.message.startsWith(`${name}: `)).toBe(true);
      expect(error.message.length).toBeGreaterThan(name.length + 5);
      expect(mx.liveArrays()).toBe(before);
    });
  }

  test("a freed array is refused", () => {
    const a = zeros(2);
    mx.free(a);
    mx.free(a);
    expect(caught(() => mx.add(a, 1)).message).toBe("add: expected a non-empty mlx_array");
    expect(caught(() => mx.evaluate(a)).message).toContain("non-empty");
  });

  test("a GPU that is not there is told, and the CPU goes on", () => {
    mx.init({ device: "cpu" });
    const hasGpu = process.platform === "darwin";
    if (!hasGpu) expect(() => mx.init({ device: "gpu" })).toThrow("no GPU device");
    mx.init({ device: "cpu" });
    expect(mx.scope(() => mx.itemFloat(mx.add(zeros(1), 1)))).toBe(1);
  });
});
