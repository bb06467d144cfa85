import { describe, expect, test } from "bun:test";
import fc from "fast-check";
// The pool itself, not the room's door: the door also opens the native library.
import { BlockPool } from "../../../src/device/cache/block-pool.ts";

describe("BlockPool", () => {
  test("take() gives every id once, then undefined", () => {
    const pool = new BlockPool(3);
    expect([pool.take(), pool.take(), pool.take()].sort()).toEqual([0, 1, 2]);
    expect(pool.take()).toBeUndefined();
    expect(pool.numFree).toBe(0);
  });

  test("release() frees a block only when its last owner lets go", () => {
    const pool = new BlockPool(1);
    const block = pool.take() as number;
    pool.retain(block);
    expect(pool.release(block)).toBe(false);
    expect(pool.take()).toBeUndefined();
    expect(pool.release(block)).toBe(true);
    expect(pool.take()).toBe(block);
  });

  test("retain() and release() refuse a block that nobody holds", () => {
    const pool = new BlockPool(2);
    expect(() => pool.retain(0)).toThrow("block 0 is not held");
    expect(() => pool.release(7)).toThrow("block 7 is not held");
  });

  test("check() names a block whose count is wrong", () => {
    const pool = new BlockPool(2);
    const block = pool.take() as number;
    pool.check([block]);
    expect(() => pool.check([])).toThrow(`block ${block} is counted 1 times but held 0 times`);
    expect(() => pool.check([block, block])).toThrow("held 2 times");
  });

  test("BlockPool refuses a size that is not a positive integer", () => {
    expect(() => new BlockPool(0)).toThrow(RangeError);
    expect(() => new BlockPool(1.5)).toThrow(RangeError);
  });

  test("BlockPool keeps its books under any order of take, retain and release", () => {
    const steps = fc.array(fc.tuple(fc.constantFrom("take", "retain", "release"), fc.nat()));
    fc.assert(
      fc.property(steps, (list) => {
        const pool = new BlockPool(4);
        const owned: number[] = [];
        for (const [what, pick] of list) {
          const at = owned.length ? pick % owned.length : -1;
          if (what === "take") {
            const block = pool.take();
            expect(block === undefined).toBe(new Set(owned).size === 4);
            if (block !== undefined) {
              expect(owned).not.toContain(block);
              owned.push(block);
            }
          } else if (at >= 0 && what === "retain") {
            pool.retain(owned[at] as number);
            owned.push(owned[at] as number);
          } else if (at >= 0) {
            const [block] = owned.splice(at, 1) as [number];
            expect(pool.release(block)).toBe(!owned.includes(block));
          }
          pool.check(owned);
        }
      }),
    );
  });
});
