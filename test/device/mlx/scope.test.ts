import { beforeEach, describe, expect, test } from "bun:test";
import * as mx from "#device/mlx";

let before = 0;
beforeEach(() => {
  mx.init();
  before = mx.liveArrays();
});
const made = () => mx.liveArrays() - before;

describe("scope()", () => {
  test("frees everything made inside, results of every kind included", () => {
    const sum = mx.scope(() => {
      const a = mx.arange(8);
      const parts = mx.split(a, 4, 0);
      const { packed } = mx.quantize(mx.zeros([2, 64], "float32"), { groupSize: 32, bits: 4 });
      mx.evaluate(packed);
      expect(made()).toBeGreaterThanOrEqual(8);
      return parts.reduce((total, part) => total + mx.itemInt(mx.sum(part, 0)), 0);
    });
    expect(sum).toBe(28);
    expect(made()).toBe(0);
  });

  test("frees also when fn throws", () => {
    expect(() =>
      mx.scope(() => {
        mx.arange(3);
        throw new Error("broken");
      }),
    ).toThrow("broken");
    expect(made()).toBe(0);
  });

  test("leaves a kept array to its owner", () => {
    const a = mx.scope(() => mx.keep(mx.add(mx.arange(3), 1)));
    expect(made()).toBe(1);
    expect(Array.from(mx.toInt32(a))).toEqual([1, 2, 3]);
    mx.free(a);
    expect(made()).toBe(0);
  });

  test("keep() inside an inner scope is out of the outer one as well", () => {
    const a = mx.scope(() => mx.scope(() => mx.keep(mx.arange(2))));
    expect(made()).toBe(1);
    mx.free(a);
  });

  test("handUp() gives an array to the scope around, one level for each call", () => {
    mx.scope(() => {
      const a = mx.scope(() => {
        const inner = mx.scope(() => mx.handUp(mx.arange(2)));
        expect(inner.ptr).not.toBe(0);
        return mx.handUp(inner);
      });
      expect(Array.from(mx.toInt32(a))).toEqual([0, 1]);
      expect(made()).toBe(1);
    });
    expect(made()).toBe(0);
  });

  test("an array freed inside is not freed again", () => {
    mx.scope(() => {
      const a = mx.arange(2);
      const b = mx.add(a, 1);
      mx.free(a);
      expect(Array.from(mx.toInt32(b))).toEqual([1, 2]);
    });
    expect(made()).toBe(0);
  });

  test("an array made outside of scopes belongs to the caller", () => {
    const a = mx.arange(2);
    mx.scope(() => mx.add(a, 1));
    expect(made()).toBe(1);
    mx.free(a);
  });

  test("refuses an async function", () => {
    expect(() => mx.scope(async () => {})).toThrow("synchronous");
  });

  test("gives the memory back", () => {
    mx.memory.clearCache();
    const active = mx.memory.active();
    mx.memory.resetPeak();
    mx.scope(() => mx.evaluate(mx.add(mx.zeros([1 << 20], "float32"), 1)));
    expect(mx.memory.peak()).toBeGreaterThanOrEqual(active + (4 << 20));
    expect(mx.memory.active()).toBe(active);
  });
});

describe("memory", () => {
  test("setCacheLimit() returns the limit before", () => {
    const first = mx.memory.setCacheLimit(1 << 20);
    const second = mx.memory.setCacheLimit(first);
    expect(mx.memory.setCacheLimit(first)).toBe(first);
    // an allocator that keeps nothing has no limit to remember
    expect([1 << 20, first]).toContain(second);
    expect(mx.memory.cached()).toBeGreaterThanOrEqual(0);
  });
});
