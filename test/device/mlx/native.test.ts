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

  scoped("rmsNorm() and activate()", () => {
    const x = f32(numbers(2 * 48, 1), [2, 48]);
    const w = f32(numbers(48, 2), [48]);
    expectClose(mx.native.rmsNorm(x, w, 1e-6), mx.fast.rmsNorm(x, w, 1e-6), 5);
    expectClose(mx.native.rmsNorm(x, null, 1e-6), mx.fast.rmsNorm(x, null, 1e-6), 5);
    const up = f32(numbers(2 * 48, 3), [2, 48]);
    const silu = mx.multiply(mx.multiply(x, mx.sigmoid(x)), up);
    expectClose(mx.native.activate("silu", x, up), silu, 5);
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

  test("stack() through block tables is a decoder's layers over what the pool holds", () => {
    const [E, H, K, D, P, F] = [32, 4, 2, 16, 16, 48];
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
    const stack = mx.native.stackNew();
    const eps = 1e-5;
    const inverse = [1, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02];
    const found: number[] = [];
    const data = numbers(total * E, 1);
    mx.scope(() => {
      const matrix = (seed: number, rows: number, columns: number) =>
        f32(
          numbers(rows * columns, seed).map((v) => v / 4),
          [rows, columns],
        );
      const [wq, wk, wv] = [matrix(2, H * D, E), matrix(3, K * D, E), matrix(4, K * D, E)];
      const [wo, wg, wu, wd] = [
        matrix(5, E, H * D),
        matrix(6, F, E),
        matrix(7, F, E),
        matrix(8, E, F),
      ];
      const [norm, qNorm] = [f32(numbers(E, 9), [E]), f32(numbers(D, 10), [D])];
      const bound = [wq, wk, wv, wo, wg, wu, wd].map((w) =>
        mx.native.layerNew(w, null, null, null, 0, 0),
      );
      const [q, k, v, o, gate, up, down] = bound as [
        ...[mx.native.Layer, mx.native.Layer, mx.native.Layer, mx.native.Layer],
        ...[mx.native.Layer, mx.native.Layer, mx.native.Layer],
      ];
      const rest = { table: 0, traditional: false, layer: 1, scale: 0.25 };
      mx.native.stackAttention(stack, { norm, eps, q, k, v, o, qNorm, kNorm: null, ...rest });
      mx.native.stackMlp(stack, { norm, eps, gate, up, down });
      for (const layer of bound) mx.native.layerFree(layer);

      const x = f32(data, [total, E]);
      const times = (a: mx.MxArray, w: mx.MxArray) => mx.matmul(a, mx.transpose(w, [1, 0]));
      const n = mx.fast.rmsNorm(x, norm, eps);
      const heads = (a: mx.MxArray, count: number) =>
        mx.transpose(mx.reshape(a, [1, total, count, D]), [0, 2, 1, 3]);
      const rotated = (a: mx.MxArray) =>
        mx.fast.rope(a, {
          dims: D,
          traditional: false,
          scale: 1,
          offset: mx.array([0], [1], "int32"),
          freqs: f32(
            inverse.map((value) => 1 / value),
            [D / 2],
          ),
          base: null,
        });
      const mixed = mx.fast.scaledDotProductAttention(
        rotated(mx.fast.rmsNorm(heads(times(n, wq), H), qNorm, eps)),
        rotated(heads(times(n, wk), K)),
        heads(times(n, wv), K),
        { scale: 0.25, mask: "causal" },
      );
      const rows = mx.reshape(mx.transpose(mixed, [0, 2, 1, 3]), [total, H * D]);
      const y = mx.add(x, times(rows, wo));
      const m = mx.fast.rmsNorm(y, norm, eps);
      const g = times(m, wg);
      const inner = mx.multiply(mx.multiply(g, mx.sigmoid(g)), times(m, wu));
      found.push(...mx.toFloat32(mx.add(y, times(inner, wd))));
    });
    // two chunks, the second over a block border
    const chunks = [
      [0, 13],
      [13, total],
    ] as const;
    for (const [from, to] of chunks) {
      mx.scope(() => {
        const batch = mx.native.batchNew(Int32Array.of(0, to - from, from, 0), Int32Array.of(3, 1));
        const positions = Int32Array.from({ length: to - from }, (_, i) => from + i);
        const table = mx.native.ropeTable(
          mx.array(positions, [to - from], "int32"),
          f32(inverse, [D / 2]),
          1,
        );
        const x = f32(data.slice(from * E, to * E), [to - from, E]);
        const out = mx.native.stack(x, stack, [table], pool, batch);
        mx.native.batchFree(batch);
        const want = found.slice(from * E, to * E);
        mx.toFloat32(consistent(out)).forEach((value, i) => {
          expect(value).toBeCloseTo(want[i] as number, 3);
        });
      });
    }
    mx.native.stackFree(stack);
    mx.native.poolFree(pool);
    expect(mx.liveArrays()).toBe(before);
  });

  scoped("candidates() are the largest logits, with what normalizes them", () => {
    const [rows, vocab, k] = [2, 300, 8];
    const data = numbers(rows * vocab, 9).map((v) => v * 10);
    const logits = f32(data, [rows, vocab]);
    const found = mx.native.candidates(logits, Float32Array.of(1, 0.5), k);
    expect(found.length).toBe(rows);
    for (const [r, { ids, values, max, lse, lseAtTemperature }] of found.entries()) {
      const row = data.slice(r * vocab, (r + 1) * vocab).map(Math.fround);
      const order = row
        .map((_, i) => i)
        .sort((a, b) => (row[b] as number) - (row[a] as number) || a - b);
      expect([...ids]).toEqual(order.slice(0, k));
      expect([...values]).toEqual(order.slice(0, k).map((id) => row[id] as number));
      const sum = (t: number) => Math.log(row.reduce((s, v) => s + Math.exp(v * t), 0));
      expect(max).toBe(Math.max(...row));
      expect(lse).toBeCloseTo(sum(1), 4);
      expect(lseAtTemperature).toBeCloseTo(sum(r === 0 ? 1 : 0.5), 4);
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
    expect(mx.native.candidates(nan, Float32Array.of(1), 2)[0]?.lse).toBeNaN();
    const flat = mx.zeros([2], "float32");
    expect(() => mx.native.candidates(flat, Float32Array.of(1), 2)).toThrow("got shape (2)");
  });
});
