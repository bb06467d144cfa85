import { describe, expect, test } from "bun:test";
import * as mx from "#device/mlx";
import { consistent, expectArray, numbers } from "./expect-array.ts";

/** A test whose arrays are freed. */
const scoped = (name: string, fn: () => void) => test(name, () => mx.scope(fn));

const f32 = (data: readonly number[], shape: readonly number[]) => mx.array(data, shape, "float32");

describe("making arrays", () => {
  scoped("array() keeps numbers, typed arrays and bits", () => {
    expectArray(f32([1, 2, 3, 4, 5, 6], [2, 3]), [2, 3], "float32", [1, 2, 3, 4, 5, 6]);
    expectArray(mx.array(Int32Array.of(-1, 7), [2], "int32"), [2], "int32", [-1, 7]);
    expectArray(mx.array(Float64Array.of(1.5, 2), [2], "float32"), [2], "float32", [1.5, 2]);
    expectArray(mx.array([1, 0, 1], [3], "bool"), [3], "bool", [1, 0, 1]);
    expectArray(mx.array([2 ** 31], [1], "int64"), [1], "int64", [2 ** 31]);
    // 0x3f80 is 1.0 in bfloat16, 0x3c00 in float16
    expectArray(mx.array(Uint16Array.of(0x3f80), [1], "bfloat16"), [1], "bfloat16", [1]);
    expectArray(mx.array(Uint16Array.of(0x3c00), [1], "float16"), [1], "float16", [1]);
    expectArray(mx.array([], [0, 4], "float32"), [0, 4], "float32", []);
    expectArray(f32([3], []), [], "float32", [3]);
  });

  scoped("array() refuses data that does not fill the shape", () => {
    expect(() => f32([1, 2, 3], [2, 2])).toThrow("3 elements for the shape [2,2] of 4");
    expect(() => mx.array([1], [1], "float16")).toThrow("Uint16Array");
  });

  scoped("array() takes a part of a larger typed array", () => {
    const part = Float32Array.of(1, 2, 3, 4).subarray(1, 3);
    expectArray(mx.array(part, [2], "float32"), [2], "float32", [2, 3]);
  });

  scoped("array() copies: later changes of the data are not seen", () => {
    const data = Float32Array.of(1, 2);
    const a = mx.array(data, [2], "float32");
    data[0] = 9;
    expect(Array.from(mx.toFloat32(a))).toEqual([1, 2]);
  });

  scoped("zeros(), full(), scalar() and arange()", () => {
    expectArray(mx.zeros([2, 2], "float16"), [2, 2], "float16", [0, 0, 0, 0]);
    expectArray(mx.full([3], 2.5, "float32"), [3], "float32", [2.5, 2.5, 2.5]);
    expectArray(mx.full([1], 2 ** 24 + 1, "int32"), [1], "int32", [2 ** 24 + 1]);
    expectArray(mx.full([1], -Infinity, "float32"), [1], "float32", [-Infinity]);
    expectArray(mx.scalar(0.5, "bfloat16"), [], "bfloat16", [0.5]);
    expectArray(mx.scalar(-7, "int32"), [], "int32", [-7]);
    expect(Object.is(mx.itemFloat(mx.scalar(-0, "float16")), -0)).toBe(true);
    expectArray(mx.arange(4), [4], "int32", [0, 1, 2, 3]);
    expectArray(mx.arange(5, 8), [3], "int32", [5, 6, 7]);
    expectArray(mx.arange(0), [0], "int32", []);
  });
});

describe("reading arrays", () => {
  scoped("toFloat32() and toInt32() give row-major copies of any layout and dtype", () => {
    const a = f32([1, 2, 3, 4, 5, 6], [2, 3]);
    expect(Array.from(mx.toFloat32(mx.transpose(a, [1, 0])))).toEqual([1, 4, 2, 5, 3, 6]);
    expect(Array.from(mx.toInt32(mx.astype(a, "float16")))).toEqual([1, 2, 3, 4, 5, 6]);
    expect(mx.itemFloat(mx.sum(mx.sum(a, 0), 0))).toBe(21);
    expect(mx.itemInt(mx.argmax(f32([1, 9, 2], [3]), 0))).toBe(1);
    const out = new Float32Array(6);
    mx.readFloat32(a, out);
    expect(Array.from(out)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(Array.from(mx.toBytes(mx.array([1, 258], [2], "uint16")))).toEqual([1, 0, 2, 1]);
  });

  scoped("dataPointer() wants an evaluated, row-major array", () => {
    const a = f32([1, 2, 3, 4], [2, 2]);
    const sum = mx.add(a, a);
    expect(() => mx.dataPointer(sum)).toThrow("not evaluated");
    mx.evaluate(sum);
    expect(mx.dataPointer(sum)).toBeGreaterThan(0);
    const turned = mx.transpose(a, [1, 0]);
    mx.evaluate(turned);
    expect(() => mx.dataPointer(turned)).toThrow("not row-major");
  });

  scoped("asyncEval() starts work that synchronize() waits for", () => {
    const a = mx.add(f32([1], [1]), 1);
    mx.asyncEval(a);
    mx.synchronize();
    expect(mx.itemFloat(a)).toBe(2);
  });
});

describe("element by element", () => {
  const x = [0.5, -1.25, 2, 3];
  const y = [2, 0.5, -3, 3];

  const UNARY: [name: string, op: (a: mx.MxArray) => mx.MxArray, f: (v: number) => number][] = [
    ["abs", mx.abs, Math.abs],
    ["cos", mx.cos, Math.cos],
    ["exp", mx.exp, Math.exp],
    ["negative", mx.negative, (v) => -v],
    ["sin", mx.sin, Math.sin],
    ["square", mx.square, (v) => v * v],
    ["tanh", mx.tanh, Math.tanh],
  ];
  for (const [name, op, f] of UNARY) {
    scoped(`${name}()`, () => expectArray(op(f32(x, [4])), [4], "float32", x.map(f)));
  }

  scoped("log(), sqrt(), rsqrt(), sigmoid(), erf()", () => {
    const positive = [0.25, 1, 4, 9];
    const a = f32(positive, [4]);
    expectArray(mx.log(a), [4], "float32", positive.map(Math.log));
    expectArray(mx.sqrt(a), [4], "float32", positive.map(Math.sqrt));
    expectArray(
      mx.rsqrt(a),
      [4],
      "float32",
      positive.map((v) => 1 / Math.sqrt(v)),
    );
    expectArray(
      mx.sigmoid(f32(x, [4])),
      [4],
      "float32",
      x.map((v) => 1 / (1 + Math.exp(-v))),
    );
    expectArray(mx.erf(f32([0, 0.5, -1], [3])), [3], "float32", [0, 0.5204998778, -0.8427007929]);
  });

  type Binary = (a: mx.MxArray | number, b: mx.MxArray | number) => mx.MxArray;
  const BINARY: [name: string, op: Binary, f: (a: number, b: number) => number][] = [
    ["add", mx.add, (a, b) => a + b],
    ["subtract", mx.subtract, (a, b) => a - b],
    ["multiply", mx.multiply, (a, b) => a * b],
    ["divide", mx.divide, (a, b) => a / b],
    ["maximum", mx.maximum, Math.max],
    ["minimum", mx.minimum, Math.min],
    ["logaddexp", mx.logaddexp, (a, b) => Math.log(Math.exp(a) + Math.exp(b))],
  ];
  for (const [name, op, f] of BINARY) {
    scoped(`${name}() of arrays, with broadcasting, and with numbers on either side`, () => {
      const a = f32(x, [4]);
      const b = f32(y, [4]);
      expectArray(
        op(a, b),
        [4],
        "float32",
        x.map((v, i) => f(v, y[i] as number)),
      );
      expectArray(
        op(f32(x, [4, 1]), f32(y.slice(0, 2), [2])),
        [4, 2],
        "float32",
        x.flatMap((v) => y.slice(0, 2).map((w) => f(v, w))),
      );
      expectArray(
        op(a, 0.5),
        [4],
        "float32",
        x.map((v) => f(v, 0.5)),
      );
      expectArray(
        op(0.5, a),
        [4],
        "float32",
        x.map((v) => f(0.5, v)),
      );
    });
  }

  scoped("power()", () => {
    expectArray(mx.power(f32([1, 2, 3], [3]), 2), [3], "float32", [1, 4, 9]);
  });

  scoped("a number takes the dtype of the array beside it", () => {
    expectArray(mx.add(mx.zeros([1], "bfloat16"), 1.5), [1], "bfloat16", [1.5]);
    expectArray(mx.multiply(mx.arange(3), 2), [3], "int32", [0, 2, 4]);
    expectArray(mx.multiply(mx.arange(3), 0.5), [3], "float32", [0, 0.5, 1]);
  });

  scoped("comparisons, logic and where()", () => {
    const a = f32([1, 2, 3], [3]);
    const b = f32([3, 2, 1], [3]);
    expectArray(mx.equal(a, b), [3], "bool", [0, 1, 0]);
    expectArray(mx.notEqual(a, b), [3], "bool", [1, 0, 1]);
    expectArray(mx.greater(a, b), [3], "bool", [0, 0, 1]);
    expectArray(mx.greaterEqual(a, b), [3], "bool", [0, 1, 1]);
    expectArray(mx.less(a, b), [3], "bool", [1, 0, 0]);
    expectArray(mx.lessEqual(a, b), [3], "bool", [1, 1, 0]);
    expectArray(mx.logicalAnd(mx.less(a, 3), mx.less(b, 3)), [3], "bool", [0, 1, 0]);
    expectArray(mx.logicalOr(mx.less(a, 2), mx.less(b, 2)), [3], "bool", [1, 0, 1]);
    expectArray(mx.where(mx.less(a, b), a, -1), [3], "float32", [1, -1, -1]);
    expectArray(
      mx.where(mx.less(a, b), f32([1, 2], [2, 1]), b),
      [2, 3],
      "float32",
      [1, 2, 1, 2, 2, 1],
    );
  });

  scoped("astype() truncates floats to integers", () => {
    expectArray(mx.astype(f32([1.9, -1.9], [2]), "int32"), [2], "int32", [1, -1]);
    expectArray(mx.astype(mx.arange(3), "float16"), [3], "float16", [0, 1, 2]);
  });
});

describe("along an axis", () => {
  const data = [3, 1, 2, 4, 6, 5];
  scoped("sum(), mean(), max(), min(), logsumexp(), argmax()", () => {
    const a = f32(data, [2, 3]);
    expectArray(mx.sum(a, 1), [2], "float32", [6, 15]);
    expectArray(mx.sum(a, 0), [3], "float32", [7, 7, 7]);
    expectArray(mx.mean(a, -1, true), [2, 1], "float32", [2, 5]);
    expectArray(mx.max(a, 0), [3], "float32", [4, 6, 5]);
    expectArray(mx.min(a, -1), [2], "float32", [1, 4]);
    const lse = (...v: number[]) => Math.log(v.reduce((s, x) => s + Math.exp(x), 0));
    expectArray(mx.logsumexp(a, 1), [2], "float32", [lse(3, 1, 2), lse(4, 6, 5)]);
    expectArray(mx.argmax(a, 1), [2], "uint32", [0, 1]);
    expectArray(mx.argmax(f32([1, 7, 7], [3]), 0), [], "uint32", [1]);
    expectArray(mx.sum(mx.less(a, 4), 1), [2], "int32", [3, 0]);
  });

  scoped("softmax()", () => {
    const total = Math.exp(0) + Math.exp(1) + Math.exp(2);
    const soft = [0, 1, 2].map((v) => Math.exp(v) / total);
    expectArray(mx.softmax(f32([0, 1, 2, 10, 11, 12], [2, 3]), -1), [2, 3], "float32", [
      ...soft,
      ...soft,
    ]);
    expect(mx.softmax(mx.zeros([2], "bfloat16"), 0, true).dtype).toBe("bfloat16");
  });

  scoped("take() and takeAlongAxis()", () => {
    const a = f32(data, [2, 3]);
    const at = mx.array([2, 0, 0, 1], [2, 2], "int32");
    expectArray(mx.take(a, at, 1), [2, 2, 2], "float32", [2, 3, 3, 1, 5, 4, 4, 6]);
    expectArray(mx.take(a, mx.array([1], [1], "uint32"), 0), [1, 3], "float32", [4, 6, 5]);
    expectArray(mx.takeAlongAxis(a, at, 1), [2, 2], "float32", [2, 3, 4, 6]);
  });
});

describe("shapes", () => {
  const count = (n: number) => Array.from({ length: n }, (_, i) => i);
  scoped("reshape() and broadcastTo()", () => {
    const a = f32(count(12), [3, 4]);
    expectArray(mx.reshape(a, [2, 6]), [2, 6], "float32", count(12));
    expectArray(mx.reshape(a, [2, -1, 3]), [2, 2, 3], "float32", count(12));
    expectArray(mx.broadcastTo(f32([1, 2], [2, 1]), [2, 2]), [2, 2], "float32", [1, 1, 2, 2]);
  });

  scoped("transpose(), swapaxes(), expandDims(), squeeze(), contiguous()", () => {
    const a = f32(count(6), [1, 2, 3]);
    expectArray(mx.transpose(a, [2, 0, 1]), [3, 1, 2], "float32", [0, 3, 1, 4, 2, 5]);
    expectArray(mx.swapaxes(a, -1, 1), [1, 3, 2], "float32", [0, 3, 1, 4, 2, 5]);
    expectArray(mx.expandDims(a, -1), [1, 2, 3, 1], "float32", count(6));
    expectArray(mx.expandDims(a, 1), [1, 1, 2, 3], "float32", count(6));
    expectArray(mx.squeeze(a, 0), [2, 3], "float32", count(6));
    const dense = mx.contiguous(mx.transpose(a, [2, 0, 1]));
    mx.evaluate(dense);
    expect(mx.dataPointer(dense)).toBeGreaterThan(0);
    expectArray(dense, [3, 1, 2], "float32", [0, 3, 1, 4, 2, 5]);
  });

  scoped("concatenate() and split()", () => {
    const a = f32(count(4), [2, 2]);
    const b = f32([9, 8], [2, 1]);
    expectArray(mx.concatenate([a, b], 1), [2, 3], "float32", [0, 1, 9, 2, 3, 8]);
    expectArray(
      mx.concatenate(
        [a, mx.arange(2), a].map((x) => mx.reshape(x, [-1])),
        0,
      ),
      [10],
      "float32",
      [0, 1, 2, 3, 0, 1, 0, 1, 2, 3],
    );
    const [left, right] = mx.split(f32(count(8), [2, 4]), 2, -1) as [mx.MxArray, mx.MxArray];
    expectArray(left, [2, 2], "float32", [0, 1, 4, 5]);
    expectArray(right, [2, 2], "float32", [2, 3, 6, 7]);
  });

  scoped("concatenate() takes more arrays than the first handle list holds", () => {
    const parts = count(3000).map((i) => f32([i], [1]));
    expectArray(mx.concatenate(parts, 0), [3000], "float32", count(3000));
  });

  scoped("slice() cuts, counts from the end, strides and reverses as Python does", () => {
    const a = f32(count(10), [10]);
    const CASES: [start: number, stop: number, stride: number][] = [
      [2, 5, 1],
      [0, 10, 3],
      [-3, 10, 1],
      [0, -2, 1],
      [5, 100, 1],
      [7, 3, 1],
      [-100, 4, 2],
      [9, -11, -1],
      [8, 2, -2],
      [-1, -5, -1],
    ];
    for (const [start, stop, stride] of CASES) {
      const part = consistent(mx.slice(a, [start], [stop], [stride]));
      expect(part.shape[0]).toBe(mx.toFloat32(part).length);
    }
    expectArray(mx.slice(a, [2], [5]), [3], "float32", [2, 3, 4]);
    expectArray(mx.slice(a, [9], [-11], [-1]), [10], "float32", count(10).reverse());
    expectArray(mx.slice(f32(count(6), [2, 3]), [0, 1], [2, 3]), [2, 2], "float32", [1, 2, 4, 5]);
  });

  scoped("sliceUpdate() replaces a part and leaves the source alone", () => {
    const a = f32(count(6), [2, 3]);
    const b = mx.sliceUpdate(a, f32([9, 8], [2, 1]), [0, 1], [2, 2]);
    expectArray(b, [2, 3], "float32", [0, 9, 2, 3, 8, 5]);
    expectArray(a, [2, 3], "float32", count(6));
  });
});

describe("matrices", () => {
  const product = (a: number[], b: number[], m: number, k: number, n: number) =>
    Array.from({ length: m * n }, (_, at) => {
      let sum = 0;
      for (let i = 0; i < k; i++) {
        sum += (a[Math.floor(at / n) * k + i] as number) * (b[i * n + (at % n)] as number);
      }
      return sum;
    });
  const exact = (count: number, seed: number) => numbers(count, seed).map((v) => Math.round(v * 8));

  scoped("matmul() of matrices, batches and vectors", () => {
    const a = exact(6, 1);
    const b = exact(12, 2);
    expectArray(
      mx.matmul(f32(a, [2, 3]), f32(b, [3, 4])),
      [2, 4],
      "float32",
      product(a, b, 2, 3, 4),
    );
    const ab = product(a, b, 2, 3, 4);
    expectArray(mx.matmul(f32([...a, ...a], [2, 2, 3]), f32(b, [3, 4])), [2, 2, 4], "float32", [
      ...ab,
      ...ab,
    ]);
    consistent(mx.matmul(f32(exact(24, 3), [4, 1, 2, 3]), f32(exact(60, 4), [5, 3, 4])));
    expectArray(mx.matmul(f32(a.slice(0, 3), [3]), f32(b, [3, 4])), [4], "float32", ab.slice(0, 4));
    consistent(mx.matmul(f32(a, [2, 3]), f32(b.slice(0, 3), [3])));
  });

  scoped("addmm()", () => {
    const a = exact(6, 1);
    const b = exact(12, 2);
    const c = exact(4, 3);
    const expected = product(a, b, 2, 3, 4).map((v, i) => 2 * v + 3 * (c[i % 4] as number));
    expectArray(
      mx.addmm(f32(c, [4]), f32(a, [2, 3]), f32(b, [3, 4]), 2, 3),
      [2, 4],
      "float32",
      expected,
    );
  });

  for (const bits of [2, 3, 4, 5, 6, 8]) {
    scoped(
      `quantize(), dequantize() and quantizedMatmul() with ${bits} bits belong together`,
      () => {
        const w = f32(numbers(4 * 64, bits), [4, 64]);
        const x = f32(numbers(2 * 64, 7), [2, 64]);
        const options = { groupSize: 32, bits };
        const { packed, scales, biases } = mx.quantize(w, options);
        for (const part of [packed, scales, biases]) consistent(part);
        const plain = consistent(mx.dequantize(packed, scales, biases, options));
        const largest = mx.itemFloat(mx.max(mx.reshape(mx.abs(mx.subtract(plain, w)), [-1]), 0));
        // at most a step of the widest group
        expect(largest).toBeLessThanOrEqual(2.02 / (2 ** bits - 1));
        const fused = consistent(mx.quantizedMatmul(x, packed, scales, biases, options));
        const split = mx.toFloat32(mx.matmul(x, mx.transpose(plain, [1, 0])));
        mx.toFloat32(fused).forEach((v, i) => {
          expect(v).toBeCloseTo(split[i] as number, 4);
        });
        const flat = consistent(
          mx.quantizedMatmul(f32(numbers(8, 3), [2, 4]), packed, scales, biases, {
            ...options,
            transpose: false,
          }),
        );
        expect(flat.shape).toEqual([2, 64]);
        expect(
          consistent(mx.dequantize(packed, scales, biases, { ...options, dtype: "bfloat16" }))
            .dtype,
        ).toBe("bfloat16");
      },
    );
  }
});

describe("fused operations", () => {
  scoped("fast.rmsNorm() with and without a weight", () => {
    const x = numbers(8);
    const row = (v: number[], w: number[]) => {
      const rms = Math.sqrt(v.reduce((s, n) => s + n * n, 0) / v.length + 1e-5);
      return v.map((n, i) => (n / rms) * (w[i] as number));
    };
    const w = [1, 2, 3, 4];
    expectArray(mx.fast.rmsNorm(f32(x, [2, 4]), f32(w, [4]), 1e-5), [2, 4], "float32", [
      ...row(x.slice(0, 4), w),
      ...row(x.slice(4), w),
    ]);
    expectArray(mx.fast.rmsNorm(f32(x, [2, 4]), null, 1e-5), [2, 4], "float32", [
      ...row(x.slice(0, 4), [1, 1, 1, 1]),
      ...row(x.slice(4), [1, 1, 1, 1]),
    ]);
    consistent(mx.fast.rmsNorm(mx.zeros([2, 4], "bfloat16"), f32(w, [4]), 1e-5));
  });

  scoped("fast.layerNorm()", () => {
    const x = [1, 2, 3, 6];
    const std = Math.sqrt(3.5 + 1e-5);
    const expected = x.map((v) => ((v - 3) / std) * 2 + 1);
    const two = mx.full([4], 2, "float32");
    const one = mx.full([4], 1, "float32");
    expectArray(mx.fast.layerNorm(f32(x, [1, 4]), two, one, 1e-5), [1, 4], "float32", expected);
    consistent(mx.fast.layerNorm(mx.zeros([1, 4], "float16"), null, null, 1e-5));
  });

  for (const traditional of [false, true]) {
    scoped(`fast.rope() rotates ${traditional ? "neighbours" : "halves"}, from any offset`, () => {
      const [T, D, dims, offset] = [3, 6, 4, 5];
      const x = numbers(T * D, 3);
      const expected = x.slice();
      for (let t = 0; t < T; t++) {
        for (let i = 0; i < dims / 2; i++) {
          const angle = (t + offset) / 100 ** ((2 * i) / dims);
          const p = t * D + (traditional ? 2 * i : i);
          const q = t * D + (traditional ? 2 * i + 1 : i + dims / 2);
          const [a, b] = [x[p] as number, x[q] as number];
          expected[p] = a * Math.cos(angle) - b * Math.sin(angle);
          expected[q] = a * Math.sin(angle) + b * Math.cos(angle);
        }
      }
      const a = f32(x, [1, 1, T, D]);
      const common = { dims, traditional, scale: 1 };
      const freqs = f32([1, 10], [2]);
      for (const out of [
        mx.fast.rope(a, { ...common, offset, freqs: null, base: 100 }),
        mx.fast.rope(a, {
          ...common,
          offset: mx.array([offset], [], "int32"),
          freqs: null,
          base: 100,
        }),
        mx.fast.rope(a, { ...common, offset, freqs, base: null }),
      ]) {
        const found = mx.toFloat32(consistent(out));
        expected.forEach((v, i) => {
          expect(found[i] as number).toBeCloseTo(v, 5);
        });
      }
    });
  }

  scoped("fast.scaledDotProductAttention() with no mask, causal, bool and added masks", () => {
    const [H, K, T, S, D] = [4, 2, 2, 3, 8];
    const q = numbers(H * T * D, 1);
    const k = numbers(K * S * D, 2);
    const v = numbers(K * S * D, 3);
    const scale = 0.3;
    const attend = (seen: (t: number, s: number) => boolean) => {
      const out: number[] = [];
      for (let h = 0; h < H; h++) {
        const kv = Math.floor(h / (H / K));
        for (let t = 0; t < T; t++) {
          const weights = Array.from({ length: S }, (_, s) => {
            if (!seen(t, s)) return 0;
            let dot = 0;
            for (let d = 0; d < D; d++) {
              dot += (q[(h * T + t) * D + d] as number) * (k[(kv * S + s) * D + d] as number);
            }
            return Math.exp(dot * scale);
          });
          const total = weights.reduce((a, b) => a + b, 0);
          for (let d = 0; d < D; d++) {
            out.push(
              weights.reduce(
                (sum, w, s) => sum + (w / total) * (v[(kv * S + s) * D + d] as number),
                0,
              ),
            );
          }
        }
      }
      return out;
    };
    const arrays = [f32(q, [1, H, T, D]), f32(k, [1, K, S, D]), f32(v, [1, K, S, D])] as const;
    const run = (mask: "none" | "causal" | mx.MxArray) =>
      mx.fast.scaledDotProductAttention(...arrays, { scale, mask });
    const causal = (t: number, s: number) => s <= t + S - T;
    const bool = mx.array([1, 1, 0, 1, 1, 1], [T, S], "bool");
    const added = f32([0, 0, -Infinity, 0, 0, 0], [T, S]);
    for (const [mask, seen] of [
      ["none", () => true],
      ["causal", causal],
      [bool, causal],
      [added, causal],
    ] as const) {
      const found = mx.toFloat32(consistent(run(mask)));
      attend(seen).forEach((value, i) => {
        expect(found[i] as number).toBeCloseTo(value, 5);
      });
    }
  });
});
