/** The wrappers of the CPU kernels against stock MLX or plain numbers; the kernels have tests of their own. */
import { describe, expect, test } from "bun:test";
import * as mx from "#device/mlx";
import { consistent, expectArray, numbers } from "./expect-array.ts";

const scoped = (name: string, fn: () => void) => test(name, () => mx.scope(fn));
const f32 = (data: readonly number[], shape: readonly number[]) => mx.array(data, shape, "float32");

/** x · wᵀ + bias, with a layer that is bound for this once. */
function linear(x: mx.MxArray, ...weights: Parameters<typeof mx.native.layerNew>): mx.MxArray {
  const layer = mx.native.layerNew(...weights);
  const y = mx.native.linear(x, layer);
  mx.native.layerFree(layer);
  return y;
}

function expectClose(found: mx.MxArray, expected: mx.MxArray, digits = 4): void {
  expect([...consistent(found).shape]).toEqual([...expected.shape]);
  const want = mx.toFloat32(expected);
  mx.toFloat32(found).forEach((v, i) => {
    expect(v).toBeCloseTo(want[i] as number, digits);
  });
}

describe("CPU kernels", () => {
  test("are part of the library", () => {
    mx.init({ device: "cpu" });
    expect(mx.native.available()).toBe(true);
    expect(mx.native.tier()).toMatch(/^(avx512vnni|avx512|avx2vnni|avx2|neon|portable)$/);
    const threads = mx.native.threads();
    expect(threads).toBeGreaterThan(0);
    expect(mx.native.setThreads(1)).toBe(1);
    expect(mx.native.setThreads(threads)).toBe(threads);
  });

  scoped("linear() with dense weights, with and without bias", () => {
    const x = f32(numbers(3 * 64, 1), [3, 64]);
    const w = f32(numbers(5 * 64, 2), [5, 64]);
    const bias = f32(numbers(5, 3), [5]);
    const plain = mx.matmul(x, mx.transpose(w, [1, 0]));
    expectClose(linear(x, w, null, null, null, 0, 0), plain);
    expectClose(linear(x, w, null, null, bias, 0, 0), mx.add(plain, bias));
    const half = mx.astype(w, "bfloat16");
    expectClose(
      linear(x, half, null, null, null, 0, 0),
      mx.matmul(x, mx.transpose(mx.astype(half, "float32"), [1, 0])),
    );
  });

  for (const bits of [2, 3, 4, 5, 6, 8]) {
    scoped(`linear() and embedding() with ${bits} bits`, () => {
      const options = { groupSize: 32, bits };
      const { packed, scales, biases } = mx.quantize(f32(numbers(6 * 64, 2), [6, 64]), options);
      const plain = mx.dequantize(packed, scales, biases, options);
      const x = f32(numbers(2 * 64, 1), [2, 64]);
      const product = mx.matmul(x, mx.transpose(plain, [1, 0]));
      for (const [arithmetic, digits] of [
        ["int8", 0],
        ["int16", 2],
        ["exact", 4],
      ] as const) {
        mx.native.setArithmetic(arithmetic);
        const found = linear(x, packed, scales, biases, null, bits, 32);
        expectClose(found, product, digits);
      }
      mx.native.setArithmetic("int16");
      const ids = mx.array([5, 0, 5], [3], "int32");
      expectClose(
        mx.native.embedding(ids, packed, scales, biases, bits, 32),
        mx.take(plain, ids, 0),
        6,
      );
    });
  }

  scoped("rmsNorm() and swiglu()", () => {
    const x = f32(numbers(2 * 48, 1), [2, 48]);
    const w = f32(numbers(48, 2), [48]);
    expectClose(mx.native.rmsNorm(x, w, 1e-6), mx.fast.rmsNorm(x, w, 1e-6), 5);
    expectClose(mx.native.rmsNorm(x, null, 1e-6), mx.fast.rmsNorm(x, null, 1e-6), 5);
    const up = f32(numbers(2 * 48, 3), [2, 48]);
    expectClose(mx.native.swiglu(x, up), mx.multiply(mx.multiply(x, mx.sigmoid(x)), up), 5);
  });

  for (const traditional of [false, true]) {
    scoped(
      `ropeTable() and rope() rotate ${traditional ? "neighbours" : "halves"} by position`,
      () => {
        const [T, H, D] = [3, 2, 8];
        const inverse = [1, 0.5, 0.25, 0.125];
        const positions = mx.array([7, 0, 3], [T], "int32");
        const table = consistent(mx.native.ropeTable(positions, f32(inverse, [D / 2]), 1));
        expectArray(mx.slice(table, [0, 1, 0], [1, 2, 2]), [1, 1, 2], "float32", [
          Math.cos(3.5),
          Math.sin(3.5),
        ]);
        const x = f32(numbers(T * H * D, 5), [T, H * D]);
        const heads = mx.reshape(x, [T, H, 1, D]);
        const stock = mx.fast.rope(heads, {
          dims: D,
          traditional,
          scale: 1,
          offset: positions,
          freqs: f32(
            inverse.map((v) => 1 / v),
            [D / 2],
          ),
          base: null,
        });
        expectClose(mx.native.rope(x, table, H, traditional), mx.reshape(stock, [T, H * D]), 5);
      },
    );
  }

  test("attention() through block tables is causal attention over what the pool holds", () => {
    const [H, K, D, P] = [4, 2, 16, 16];
    const before = mx.liveArrays();
    const pool = mx.native.poolNew({
      layers: 2,
      numBlocks: 4,
      blockTokens: P,
      kvHeads: K,
      headDim: D,
    });
    expect(mx.native.poolBytes(pool)).toBe(2 * 4 * K * (P * D * 2 * 2 + P * 2 * 4));
    const total = 20;
    const q = numbers(total * H * D, 1);
    const k = numbers(total * K * D, 2);
    const v = numbers(total * K * D, 3);
    const rows = (data: number[], from: number, to: number, width: number) =>
      f32(data.slice(from * width, to * width), [to - from, width]);
    const found: number[] = [];
    // two chunks, the second over a block border
    for (const [from, to] of [
      [0, 13],
      [13, total],
    ] as const) {
      mx.scope(() => {
        const batch = mx.native.batchNew(Int32Array.of(0, to - from, from, 0), Int32Array.of(3, 1));
        const out = mx.native.attention(
          rows(q, from, to, H * D),
          rows(k, from, to, K * D),
          rows(v, from, to, K * D),
          null,
          pool,
          batch,
          1,
          0.25,
        );
        mx.native.batchFree(batch);
        found.push(...mx.toFloat32(consistent(out)));
      });
    }
    mx.scope(() => {
      const heads = (data: number[], n: number) =>
        mx.transpose(f32(data, [1, total, n, D]), [0, 2, 1, 3]);
      const stock = mx.fast.scaledDotProductAttention(heads(q, H), heads(k, K), heads(v, K), {
        scale: 0.25,
        mask: "causal",
      });
      const want = mx.toFloat32(mx.transpose(stock, [0, 2, 1, 3]));
      expect(found.length).toBe(want.length);
      found.forEach((value, i) => {
        expect(value).toBeCloseTo(want[i] as number, 3);
      });
    });
    mx.native.poolFree(pool);
    expect(mx.liveArrays()).toBe(before);
  });

  scoped("candidates() are the largest logits, with what normalizes them", () => {
    const [rows, vocab, k] = [2, 300, 8];
    const data = numbers(rows * vocab, 9).map((v) => v * 10);
    const logits = f32(data, [rows, vocab]);
    const { ids, values, maxLse } = mx.native.candidates(logits, Float32Array.of(1, 0.5), k);
    for (let r = 0; r < rows; r++) {
      const row = data.slice(r * vocab, (r + 1) * vocab).map(Math.fround);
      const order = row
        .map((_, i) => i)
        .sort((a, b) => (row[b] as number) - (row[a] as number) || a - b);
      expect(Array.from(ids.subarray(r * k, (r + 1) * k))).toEqual(order.slice(0, k));
      expect(values[r * k]).toBe(row[order[0] as number] as number);
      const lse = (t: number) => Math.log(row.reduce((s, v) => s + Math.exp(v * t), 0));
      expect(maxLse[r * 3]).toBe(Math.max(...row));
      expect(maxLse[r * 3 + 1] as number).toBeCloseTo(lse(1), 4);
      expect(maxLse[r * 3 + 2] as number).toBeCloseTo(lse(r === 0 ? 1 : 0.5), 4);
    }
  });

  scoped("errors name the operation", () => {
    const x = mx.zeros([2, 64], "float32");
    expect(() => linear(x, mx.zeros([2, 32], "float32"), null, null, null, 0, 0)).toThrow(
      /^native: linear: /,
    );
    const bad = mx.native.embedding(mx.array([9], [1], "int32"), x, null, null, 0, 0);
    expect(() => mx.evaluate(bad)).toThrow();
    const nan = f32([Number.NaN, 1], [1, 2]);
    expect(() => mx.native.candidates(nan, Float32Array.of(1), 2)).toThrow("row 0");
    expect(() => mx.native.candidates(mx.zeros([2], "float32"), Float32Array.of(1), 2)).toThrow(
      "shape [2]",
    );
  });
});
