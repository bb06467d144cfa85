import { describe, expect, test } from "bun:test";
import { randomSeed, threefry, uniformAt } from "../../../src/device/sample/random.ts";

describe("threefry()", () => {
  // Known answers of Random123, the authors' own code (kat_vectors, threefry2x32, 20 rounds).
  test("threefry() gives the known answers", () => {
    expect(threefry([0, 0], [0, 0])).toEqual([0x6b200159, 0x99ba4efe]);
    expect(threefry([-1, -1], [-1, -1])).toEqual([0x1cb996fc, 0xbb002be7]);
    expect(threefry([0x13198a2e, 0x03707344], [0x243f6a88, 0x85a308d3])).toEqual([
      0xc4923a9c, 0x483df7a0,
    ]);
  });
});

describe("uniformAt()", () => {
  test("uniformAt() is a pure function of seed and position", () => {
    const forward = Array.from({ length: 50 }, (_, n) => uniformAt(42, n));
    const backward = Array.from({ length: 50 }, (_, n) => uniformAt(42, 49 - n)).reverse();
    expect(backward).toEqual(forward);
    expect(new Set(forward).size).toBe(50);
  });

  test("uniformAt() tells apart seeds that differ in the high or low word, or in sign", () => {
    const seeds = [0, 1, -1, 2 ** 32, 2 ** 32 + 1, 2 ** 53 - 1, -(2 ** 40)];
    expect(new Set(seeds.map((seed) => uniformAt(seed, 7))).size).toBe(seeds.length);
  });

  test("uniformAt() fills [0, 1) evenly, over positions and over seeds", () => {
    for (const draw of [(n: number) => uniformAt(1234, n), (n: number) => uniformAt(n, 0)]) {
      const bins = new Array<number>(100).fill(0);
      const count = 100_000;
      for (let n = 0; n < count; n++) {
        const u = draw(n);
        expect(u >= 0 && u < 1).toBe(true);
        bins[Math.floor(u * 100)] = (bins[Math.floor(u * 100)] as number) + 1;
      }
      const chi = bins.reduce((sum, n) => sum + (n - count / 100) ** 2 / (count / 100), 0);
      // 99 degrees of freedom: 99.9 % of fair draws stay below 148.2.
      expect(chi).toBeLessThan(148.2);
    }
  });

  test("randomSeed() gives safe integers that differ", () => {
    const seeds = Array.from({ length: 100 }, randomSeed);
    expect(seeds.every((seed) => Number.isSafeInteger(seed) && seed >= 0)).toBe(true);
    expect(new Set(seeds).size).toBe(100);
  });
});
