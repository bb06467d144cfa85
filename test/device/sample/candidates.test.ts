import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { candidatesOf, inverseTemperature } from "../../../src/device/sample/candidates.ts";

describe("candidatesOf()", () => {
  test("candidatesOf() gives the largest logits first, of equal ones the lower id first", () => {
    const head = candidatesOf(Float32Array.from([1, 3, 2, 3, 0, 2]), 1, 4);
    expect([...head.ids]).toEqual([1, 3, 2, 5]);
    expect([...head.values]).toEqual([3, 3, 2, 2]);
    expect(head.max).toBe(3);
  });

  test("candidatesOf() gives both log-sum-exps in float32", () => {
    const head = candidatesOf(Float32Array.from([0, Math.log(3)]), inverseTemperature(0.5), 2);
    expect(head.lse).toBeCloseTo(Math.log(4), 6);
    expect(head.lseAtTemperature).toBeCloseTo(Math.log(1 + 9), 6);
    expect(Math.fround(head.lse)).toBe(head.lse);
  });

  test("candidatesOf() is not thrown off by large logits", () => {
    const head = candidatesOf(Float32Array.from([1e4, 1e4]), 2, 2);
    expect(head.lse).toBeCloseTo(1e4 + Math.log(2), 2);
    expect(head.lseAtTemperature).toBeCloseTo(2e4 + Math.log(2), 2);
  });

  test("candidatesOf() marks rows that cannot be drawn from by a NaN or infinite lse", () => {
    const low = Number.NEGATIVE_INFINITY;
    for (const row of [
      [0, Number.NaN],
      [Number.NaN, 0],
      [0, Number.POSITIVE_INFINITY],
      [low, low],
    ])
      expect(Number.isFinite(candidatesOf(Float32Array.from(row), 1, 2).lse)).toBe(false);
    expect(Number.isFinite(candidatesOf(Float32Array.from([0, low]), 1, 2).lse)).toBe(true);
  });

  test("candidatesOf() agrees with a full sort", () => {
    // Few distinct values, so that ties are common.
    const row = fc.array(fc.oneof(fc.integer({ min: -3, max: 3 }), fc.float({ noNaN: true })), {
      minLength: 1,
      maxLength: 80,
    });
    fc.assert(
      fc.property(row, fc.integer({ min: 1, max: 90 }), (values, count) => {
        const logits = Float32Array.from(values);
        const sorted = [...logits.keys()].sort(
          (a, b) => (logits[b] as number) - (logits[a] as number) || a - b,
        );
        expect([...candidatesOf(logits, 1, count).ids]).toEqual(sorted.slice(0, count));
      }),
      { numRuns: 500 },
    );
  });
});
