import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { GREEDY } from "#core/contract";
import * as mx from "#device/mlx";
import { inverseTemperature, type LogitRow, readRows, sampleRow } from "#device/sample";
import { uniformAt } from "../../../src/device/sample/random.ts";

const state = { ids: [0], promptTokens: 1, bannedIds: [], seed: 3, topLogprobs: 2 };

/** Both ways of reading the same logits, inside one scope. */
function withBoth(
  logits: Float32Array,
  temperatures: readonly number[],
  check: (native: LogitRow[], plain: LogitRow[]) => void,
): void {
  const shape = [temperatures.length, logits.length / temperatures.length];
  const inverse = temperatures.map(inverseTemperature);
  mx.scope(() => {
    const rows = mx.array(logits, shape, "float32");
    check(readRows(rows, inverse, true), readRows(rows, inverse, false));
  });
}

const noise = (length: number, scale: number, seed: number) =>
  Float32Array.from({ length }, (_, i) => scale * (uniformAt(seed, i) - 0.5));

describe("readRows()", () => {
  test("the kernels find the same heads as plain TypeScript", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 2000 }),
        fc.constantFrom(0.5, 5, 50),
        fc.array(fc.constantFrom(0, 0.2, 0.7, 1, 3), { minLength: 1, maxLength: 4 }),
        fc.nat(1000),
        (vocabSize, scale, temperatures, seed) => {
          const logits = noise(vocabSize * temperatures.length, scale, seed);
          // Ties in every other case.
          if (seed % 2) for (const [i, x] of logits.entries()) logits[i] = Math.round(x) + 0; // never -0
          withBoth(logits, temperatures, (native, plain) => {
            for (const [r, row] of native.entries()) {
              const other = plain[r] as LogitRow;
              expect([...row.ids]).toEqual([...other.ids]);
              expect([...row.values]).toEqual([...other.values]);
              expect(row.max).toBe(other.max);
              const close = 1e-6 * (1 + Math.abs(other.lse));
              expect(Math.abs(row.lse - other.lse)).toBeLessThan(close);
              const wide = 1e-6 * (1 + Math.abs(other.lseAtTemperature));
              expect(Math.abs(row.lseAtTemperature - other.lseAtTemperature)).toBeLessThan(wide);
              expect(row.full()).toEqual(other.full());
            }
          });
        },
      ),
      { numRuns: 100 },
    );
  });

  test("both ways draw the same tokens, also with penalties and beyond the candidates", () => {
    const logits = noise(3 * 5000, 9, 1);
    const params = [
      { ...GREEDY, temperature: 1, topP: 0.95 },
      { ...GREEDY, temperature: 1.5 },
      { ...GREEDY, temperature: 0.8, repetitionPenalty: 1.3, topK: 2000 },
    ];
    withBoth(
      logits,
      params.map((p) => p.temperature),
      (native, plain) => {
        for (const [r, p] of params.entries()) {
          for (let n = 1; n < 200; n++) {
            const text = { ...state, ids: Array.from({ length: n }, (_, i) => i) };
            expect(sampleRow(native[r] as LogitRow, p, text).id).toBe(
              sampleRow(plain[r] as LogitRow, p, text).id,
            );
          }
        }
      },
    );
  });

  test("a row with NaN does not spoil its neighbours", () => {
    const logits = Float32Array.from([1, 3, 2, 0, Number.NaN, 0, 4, 1, 0]);
    withBoth(logits, [0, 0, 0], (native, plain) => {
      for (const rows of [native, plain]) {
        const [first, second, third] = rows as [LogitRow, LogitRow, LogitRow];
        expect(sampleRow(first, GREEDY, state).id).toBe(1);
        expect(() => sampleRow(second, GREEDY, state)).toThrow("NaN");
        expect(sampleRow(third, GREEDY, state).id).toBe(0);
      }
    });
  });

  test("a row that bans leave nothing of is an error on both ways", () => {
    withBoth(Float32Array.from([1, 2]), [1], (native, plain) => {
      for (const [row] of [native, plain])
        expect(() => sampleRow(row as LogitRow, GREEDY, { ...state, bannedIds: [0, 1] })).toThrow(
          /Cannot draw|candidates/,
        );
    });
  });
});
