/** Long runs through the JIT: what one side writes is what the other side reads, every time. */
import { describe, expect, test } from "bun:test";
import * as mx from "#device/mlx";
import { native } from "../../../src/device/mlx/library.ts";
import * as scratch from "../../../src/device/mlx/scratch.ts";
import { sized } from "../../helpers/long.ts";

const CALLS = sized(250_000, 10_000_000);
const OPERATIONS = sized(15_000, 400_000);
const TIMEOUT_MS = sized(1, 15) * 60_000;
const WORDS = 16;

// constants of the module, as in the wrappers: the JIT compiles them into the code
const { ints, intsPtr } = scratch;
// small and without an ArrayBuffer of its own: the kind whose storage the JIT moves
const small = new Int32Array(4);

/** Writes WORDS numbers into the scratch memory and returns their sum. */
function fill(seed: number): number {
  let sum = 0;
  for (let k = 0; k < WORDS; k++) {
    ints[k] = seed * 31 + k;
    sum += seed * 31 + k;
  }
  return sum;
}

/** How many of the WORDS numbers are not seed, seed + 1, … */
function wrongWords(seed: number): number {
  let wrong = 0;
  for (let k = 0; k < WORDS; k++) if (ints[k] !== seed + k) wrong++;
  return wrong;
}

describe("bun:ffi under the JIT", () => {
  test(
    "C reads what JavaScript wrote into the shared scratch memory",
    () => {
      const { omlx_probe_read } = native();
      let wrong = 0;
      for (let i = 0; i < CALLS; i++) {
        const sum = fill(i);
        if (omlx_probe_read(intsPtr, WORDS) !== sum) wrong++;
      }
      expect(wrong).toBe(0);
    },
    TIMEOUT_MS,
  );

  test(
    "JavaScript reads what C wrote into the shared scratch memory",
    () => {
      const { omlx_probe_write } = native();
      let wrong = 0;
      for (let i = 0; i < CALLS; i++) {
        omlx_probe_write(intsPtr, WORDS, i);
        wrong += wrongWords(i);
      }
      expect(wrong).toBe(0);
    },
    TIMEOUT_MS,
  );

  test(
    "a small typed array that is passed itself works in both directions",
    () => {
      const { omlx_probe_read, omlx_probe_write } = native();
      let wrong = 0;
      for (let i = 0; i < CALLS; i++) {
        small[0] = i;
        small[3] = 1;
        small[1] = small[2] = 0;
        if (omlx_probe_read(small, 4) !== i + 1) wrong++;
        omlx_probe_write(small, 4, i);
        if (small[0] !== i || small[3] !== i + 3) wrong++;
      }
      expect(wrong).toBe(0);
    },
    TIMEOUT_MS,
  );

  test(
    "shapes, handle lists and results of operations stay right",
    () => {
      const before = mx.liveArrays();
      let wrong = 0;
      for (let i = 0; i < OPERATIONS; i++) {
        mx.scope(() => {
          const rows = 1 + (i % 3);
          const a = mx.arange(i, i + rows * 4);
          const b = mx.reshape(a, [rows, 4]);
          const c = mx.slice(b, [rows - 1, 1], [rows, 3]);
          const joined = mx.concatenate([c, c], 1);
          if (i % 10 !== 0) return;
          const values = mx.toInt32(joined);
          const first = i + (rows - 1) * 4 + 1;
          if (values[0] !== first || values[1] !== first + 1 || values[3] !== first + 1) wrong++;
        });
      }
      expect(wrong).toBe(0);
      expect(mx.liveArrays()).toBe(before);
    },
    TIMEOUT_MS,
  );

  test("fractions and large integers arrive exactly", () => {
    mx.scope(() => {
      for (const value of [0.1, -1.5, 2 ** 31 - 1, -(2 ** 31), 2 ** 53 - 1]) {
        const found = mx.scalar(value, "float64");
        const expected =
          Number.isInteger(value) && Math.abs(value) < 2 ** 31 ? value : Math.fround(value);
        expect(new Float64Array(mx.toBytes(found).buffer)[0]).toBe(expected);
      }
    });
  });
});
