import { describe, expect, test } from "bun:test";
import { GREEDY, type SamplingParams } from "#core/contract";
import {
  candidatesOf,
  inverseTemperature,
  type LogitRow,
  NUM_CANDIDATES,
  sampleRow,
} from "#device/sample";
import { uniformAt } from "../../../src/device/sample/random.ts";

const VOCAB = 3000;

/** Uniform noise to the power of `sharpness`: from flat rows to rows of a model that is sure. */
function rowOf(
  seed: number,
  sharpness: number,
  params: SamplingParams,
  mask?: Int32Array,
): LogitRow {
  const logits = Float32Array.from({ length: VOCAB }, (_, id) =>
    mask && !isSet(mask, id) ? Number.NEGATIVE_INFINITY : 12 * uniformAt(seed, id) ** sharpness,
  );
  const head = candidatesOf(logits, inverseTemperature(params.temperature), NUM_CANDIDATES);
  return { ...head, vocabSize: VOCAB, full: () => logits, rank: candidatesOf };
}

const isSet = (mask: Int32Array, id: number): boolean =>
  (((mask[id >> 5] ?? 0) >>> (id & 31)) & 1) === 1;

function maskOf(seed: number, share: number): Int32Array {
  const mask = new Int32Array(Math.ceil(VOCAB / 32));
  for (let id = 0; id < VOCAB; id++)
    if (uniformAt(seed + 1000, id) < share) mask[id >> 5] = (mask[id >> 5] ?? 0) | (1 << (id & 31));
  return mask;
}

const PARAMS: Readonly<Record<string, Partial<SamplingParams>>> = {
  greedy: { temperature: 0 },
  plain: { temperature: 1 },
  hot: { temperature: 2 },
  top_p: { temperature: 1, topP: 0.9 },
  top_k: { temperature: 1, topK: 40 },
  min_p: { temperature: 1, minP: 0.1 },
  "all filters": { temperature: 0.8, topP: 0.95, topK: 100, minP: 0.02 },
  xtc: { temperature: 1, xtcProbability: 1, xtcThreshold: 0.05 },
  penalties: { temperature: 1, repetitionPenalty: 1.2, logitBias: [[7, 4]] },
};

describe("a masked draw", () => {
  for (const [name, given] of Object.entries(PARAMS)) {
    test(`is the draw from a row without the other tokens, ${name}`, () => {
      const params = { ...GREEDY, ...given };
      for (let seed = 1; seed <= 60; seed++) {
        const sharpness = [1, 4, 16][seed % 3] ?? 1;
        const mask = maskOf(seed, [0.9, 0.3, 0.02, 0.001][seed % 4] ?? 1);
        mask[0] = (mask[0] ?? 0) | 8; // never empty
        const state = { ids: [1, 2, 7], promptTokens: 2, bannedIds: [], seed, topLogprobs: null };
        const { id } = sampleRow(rowOf(seed, sharpness, params), params, { ...state, mask });
        expect(isSet(mask, id)).toBe(true);
        const expected = sampleRow(rowOf(seed, sharpness, params, mask), params, state).id;
        expect([seed, id]).toEqual([seed, expected]);
      }
    });
  }

  test("fails where nothing may be drawn", () => {
    const params = { ...GREEDY, temperature: 1 };
    const state = { ids: [1], promptTokens: 1, bannedIds: [], seed: 1, topLogprobs: null };
    const mask = new Int32Array(Math.ceil(VOCAB / 32));
    expect(() => sampleRow(rowOf(1, 1, params), params, { ...state, mask })).toThrow(/ruled out/);
  });
});
