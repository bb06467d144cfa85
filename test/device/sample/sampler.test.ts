import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { GREEDY, OmlxError, type SamplingParams } from "#core/contract";
import {
  candidatesOf,
  inverseTemperature,
  NUM_CANDIDATES,
} from "../../../src/device/sample/candidates.ts";
import { uniformAt } from "../../../src/device/sample/random.ts";
import { type LogitRow, type SampleState, sampleRow } from "../../../src/device/sample/sampler.ts";

const params = (some: Partial<SamplingParams>): SamplingParams => ({
  ...GREEDY,
  temperature: 1,
  ...some,
});

/** A row as the engine hands it over; `reads` counts how often the whole row was asked for. */
function rowOf(logits: Float32Array, temperature: number) {
  const row = {
    ...candidatesOf(logits, inverseTemperature(temperature), NUM_CANDIDATES),
    vocabSize: logits.length,
    reads: 0,
    full: () => {
      row.reads++;
      return logits;
    },
    rank: candidatesOf,
  };
  return row satisfies LogitRow;
}

const textOf = (some: Partial<SampleState> = {}): SampleState => ({
  ids: [0],
  promptTokens: 1,
  bannedIds: [],
  seed: 1,
  topLogprobs: null,
  ...some,
});

const pick = (
  logits: readonly number[] | Float32Array,
  some: Partial<SamplingParams>,
  state: Partial<SampleState> = {},
): number => {
  const p = params(some);
  return sampleRow(rowOf(Float32Array.from(logits), p.temperature), p, textOf(state)).id;
};

/** How often each id comes in `count` draws at positions 0, 1, 2, … of one seed. */
function frequencies(logits: Float32Array, some: Partial<SamplingParams>, count: number): number[] {
  const p = params(some);
  const row = rowOf(logits, p.temperature);
  const counts = new Array<number>(logits.length).fill(0);
  const ids: number[] = [0];
  for (let n = 0; n < count; n++) {
    const { id } = sampleRow(row, p, textOf({ ids, seed: 77 }));
    counts[id] = (counts[id] as number) + 1;
    ids.push(0); // the text only gives the position here
  }
  return counts;
}

/** Pearson's statistic; expected shares of 0 must have no draws. */
function chiSquare(counts: readonly number[], shares: readonly number[]): number {
  const total = counts.reduce((a, b) => a + b, 0);
  let chi = 0;
  for (const [i, share] of shares.entries()) {
    if (share === 0) expect(counts[i]).toBe(0);
    else chi += ((counts[i] as number) - total * share) ** 2 / (total * share);
  }
  return chi;
}

const logsOf = (...shares: number[]) => Float32Array.from(shares, Math.log);
/** Ids from which a draw at these settings ever comes. */
const support = (logits: Float32Array, some: Partial<SamplingParams>) =>
  frequencies(logits, some, 3000).flatMap((n, id) => (n > 0 ? [id] : []));

const noise = (length: number, scale: number, seed = 5) =>
  Float32Array.from({ length }, (_, i) => scale * (uniformAt(seed, i) - 0.5));

describe("sampleRow(), greedy", () => {
  test("temperature 0 takes the largest logit, of equal ones the lowest id", () => {
    expect(pick([1, 5, 5, 2], { temperature: 0 })).toBe(1);
    expect(pick([5, 5, 5], { temperature: 0, topP: 0.1, topK: 2, minP: 0.5 })).toBe(0);
  });

  test("a temperature next to 0 is greedy and finite", () => {
    for (const temperature of [1e-300, 1e-8, 1e-4])
      expect(pick([1, 5, 4.9, 2], { temperature })).toBe(1);
  });

  test("penalties, bias and bans come before argmax", () => {
    expect(pick([1, 5, 4], { temperature: 0, logitBias: [[0, 10]] })).toBe(0);
    expect(pick([1, 5, 4], { temperature: 0 }, { bannedIds: [1] })).toBe(2);
    const repeat: Partial<SamplingParams> = { temperature: 0, repetitionPenalty: 2 };
    expect(pick([1, 5, 4], repeat, { ids: [1] })).toBe(2);
    expect(pick([1, 5, 4], { temperature: 0, frequencyPenalty: 1.5 }, { ids: [0, 1] })).toBe(2);
  });
});

describe("sampleRow(), filters", () => {
  const row = logsOf(0.5, 0.25, 0.15, 0.1);

  test("top_k keeps exactly k tokens, ties by lowest id", () => {
    expect(support(row, { topK: 2 })).toEqual([0, 1]);
    expect(support(row, { topK: 1 })).toEqual([0]);
    expect(support(row, { topK: 99 })).toEqual([0, 1, 2, 3]);
    expect(support(logsOf(0.25, 0.25, 0.25, 0.25), { topK: 3 })).toEqual([0, 1, 2]);
  });

  test("top_p keeps the fewest tokens that reach the mass, at least one", () => {
    expect(support(row, { topP: 0.74 })).toEqual([0, 1]);
    expect(support(row, { topP: 0.76 })).toEqual([0, 1, 2]);
    expect(support(row, { topP: 0.499 })).toEqual([0]);
    expect(support(row, { topP: 1e-9 })).toEqual([0]);
    expect(support(row, { topP: 1 })).toEqual([0, 1, 2, 3]);
  });

  test("min_p keeps tokens with at least that share of the largest probability", () => {
    expect(support(row, { minP: 0.49 })).toEqual([0, 1]);
    expect(support(row, { minP: 0.51 })).toEqual([0]);
    expect(support(row, { minP: 1 })).toEqual([0]);
    expect(support(logsOf(0.4, 0.4, 0.2), { minP: 1 })).toEqual([0, 1]);
    expect(support(row, { minP: 0.19 })).toEqual([0, 1, 2, 3]);
  });

  test("top_p sees the distribution that top_k left", () => {
    // Of 0.5 and 0.25, the first has 2/3.
    expect(support(row, { topK: 2, topP: 0.66 })).toEqual([0]);
    expect(support(row, { topK: 2, topP: 0.67 })).toEqual([0, 1]);
  });

  test("filters see the distribution at the request's temperature", () => {
    // At temperature 0.5: 0.25, 0.0625, 0.0225, 0.01 of 0.345, so the first has 0.7246.
    expect(support(row, { temperature: 0.5, topP: 0.72 })).toEqual([0]);
    expect(support(row, { temperature: 0.5, topP: 0.73 })).toEqual([0, 1]);
    expect(support(row, { temperature: 2, minP: 0.6 })).toEqual([0, 1]); // √0.5
  });

  test("XTC cuts all tokens above the threshold but the least probable of them", () => {
    const always = { xtcProbability: 1 };
    expect(support(row, { ...always, xtcThreshold: 0.2 })).toEqual([1, 2, 3]);
    expect(support(row, { ...always, xtcThreshold: 0.12 })).toEqual([2, 3]);
    expect(support(row, { ...always, xtcThreshold: 0 })).toEqual([3]);
    expect(support(row, { ...always, xtcThreshold: 0.3 })).toEqual([0, 1, 2, 3]); // one alone stays
    expect(support(row, { ...always, xtcThreshold: 0.51 })).toEqual([0, 1, 2, 3]);
  });

  test("XTC spares newline and end of text, and leaves temperature 0 alone", () => {
    const some = { xtcProbability: 1, xtcThreshold: 0.12 };
    expect(support(row, { ...some, xtcSpared: [0] })).toEqual([0, 2, 3]);
    expect(support(row, { ...some, temperature: 0 })).toEqual([0]);
  });

  test("XTC sees the distribution that the other filters left", () => {
    // Of 0.5 and 0.25 the second has 1/3.
    const some = { xtcProbability: 1, topK: 2 };
    expect(support(row, { ...some, xtcThreshold: 0.33 })).toEqual([1]);
    expect(support(row, { ...some, xtcThreshold: 0.34 })).toEqual([0, 1]);
  });

  test("XTC acts in its share of the steps, independent of the token drawn", () => {
    const counts = frequencies(row, { xtcProbability: 0.4, xtcThreshold: 0.2 }, 50_000);
    const rest = [0, 0.25, 0.15, 0.1].map((share) => share / 0.5);
    const shares = [0.5, 0.25, 0.15, 0.1].map((p, i) => 0.6 * p + 0.4 * (rest[i] as number));
    expect(chiSquare(counts, shares)).toBeLessThan(16.3); // 3 degrees, 99.9 %
  });

  test("a token of probability 0 is never drawn", () => {
    const dead = Float32Array.from([0, Number.NEGATIVE_INFINITY, 0]);
    expect(support(dead, {})).toEqual([0, 2]);
    expect(support(dead, { temperature: 100 })).toEqual([0, 2]);
  });
});

describe("sampleRow(), statistics", () => {
  test("draws follow the distribution at the temperature", () => {
    const shares = [0.4, 0.3, 0.15, 0.1, 0.05];
    for (const temperature of [0.5, 1, 1.7]) {
      const powers = shares.map((p) => p ** (1 / temperature));
      const total = powers.reduce((a, b) => a + b, 0);
      const counts = frequencies(logsOf(...shares), { temperature }, 50_000);
      // 4 degrees of freedom: 99.9 % of fair draws stay below 18.5.
      expect(
        chiSquare(
          counts,
          powers.map((p) => p / total),
        ),
      ).toBeLessThan(18.5);
    }
  });

  test("kept tokens keep their proportions", () => {
    const counts = frequencies(logsOf(0.5, 0.3, 0.15, 0.05), { topP: 0.79 }, 50_000);
    expect(chiSquare(counts, [5 / 8, 3 / 8, 0, 0])).toBeLessThan(10.8); // 1 degree, 99.9 %
  });

  test("tokens beyond the candidates are drawn by their share, too", () => {
    const logits = noise(1000, 2);
    const weights = [...logits].map(Math.exp);
    const total = weights.reduce((a, b) => a + b, 0);
    const counts = frequencies(logits, {}, 20_000);
    // 999 degrees of freedom: mean 999, deviation 44.7.
    expect(
      chiSquare(
        counts,
        weights.map((w) => w / total),
      ),
    ).toBeLessThan(999 + 4 * 44.7);
  });

  test("a nucleus larger than the candidates is cut at its mass", () => {
    const logits = noise(1000, 2);
    const order = [...logits.keys()].sort((a, b) => (logits[b] as number) - (logits[a] as number));
    const weights = order.map((id) => Math.exp(logits[id] as number));
    const total = weights.reduce((a, b) => a + b, 0);
    const limit = 0.6 * total;
    let sum = 0;
    const shares = new Array<number>(1000).fill(0);
    for (const [i, id] of order.entries()) {
      const weight = weights[i] as number;
      shares[id] = Math.max(0, Math.min(weight, limit - sum)) / limit;
      sum += weight;
    }
    const kept = shares.filter((share) => share > 0).length;
    expect(kept).toBeGreaterThan(NUM_CANDIDATES);
    const counts = frequencies(logits, { topP: 0.6 }, 20_000);
    // The token at the cut may have a share close to 0.
    const large = shares.map((share) => (share > 1e-5 ? share : 0));
    const cut = shares.findIndex((share) => share > 0 && share <= 1e-5);
    if (cut >= 0) counts[cut] = 0;
    expect(chiSquare(counts, large)).toBeLessThan(kept + 4 * Math.sqrt(2 * kept));
  });
});

/** The same rules, with everything sorted and nothing clever; null where rounding decides. */
function oracle(logits: Float32Array, p: SamplingParams, u: number, isXtc: boolean): number | null {
  const order = [...logits.keys()].sort(
    (a, b) => (logits[b] as number) - (logits[a] as number) || a - b,
  );
  const max = logits[order[0] as number] as number;
  const weights = order.map((id) => Math.exp(((logits[id] as number) - max) / p.temperature));
  const numK = p.topK > 0 ? Math.min(p.topK, order.length) : order.length;
  const mass = weights.slice(0, numK).reduce((a, b) => a + b, 0);
  const isClose = (a: number, b: number) => Math.abs(a - b) < 1e-5 * mass;
  let numP = 0;
  for (let sum = 0; numP < numK; numP++) {
    if (p.topP < 1 && isClose(sum, p.topP * mass)) return null;
    if (p.topP < 1 && sum >= p.topP * mass) break;
    sum += weights[numP] as number;
  }
  const numM = weights.filter((w, i) => i === 0 || w >= p.minP).length;
  const kept = Math.min(numK, numP, numM);
  const isCut = p.topK === 0 && p.topP < 1 && kept === numP && numP > NUM_CANDIDATES;
  const sum = weights.slice(0, kept).reduce((a, b) => a + b, 0);
  // the head was made larger, so that the nucleus is known to its end
  if (isCut && (isXtc || (numM > NUM_CANDIDATES && p.minP > 0))) return null;
  const keptMass = isCut ? p.topP * mass : sum;
  const limit = p.xtcThreshold * keptMass;
  if (isXtc && weights.some((w) => Math.abs(w - limit) < 1e-5 * limit)) return null;
  const above = isXtc ? weights.slice(0, kept).filter((w) => w > limit).length : 0;
  const isGone = (i: number) => i < above - 1 && !p.xtcSpared.includes(order[i] as number);
  const gone = weights.reduce((total, w, i) => (isGone(i) ? total + w : total), 0);
  const target = u * (keptMass - gone);
  let at = 0;
  for (let i = 0; i < kept; i++) {
    if (isGone(i)) continue;
    at += weights[i] as number;
    if (isClose(at, target)) return null;
    if (at > target) return order[i] as number;
  }
  return null;
}

describe("sampleRow(), paths", () => {
  const settings = fc.record({
    temperature: fc.constantFrom(0.3, 0.7, 1, 1.5, 4),
    topP: fc.constantFrom(1, 0.99, 0.95, 0.9, 0.5, 0.1),
    topK: fc.constantFrom(0, 0, 0, 1, 5, 40, 256, 300, 1000),
    minP: fc.constantFrom(0, 0, 0.02, 0.1, 0.9),
    xtcProbability: fc.constantFrom(0, 0, 0.5, 1),
    xtcThreshold: fc.constantFrom(0.4, 0.1, 0.01, 0.0005),
    xtcSpared: fc.constantFrom([], [3, 4, 5]),
  });

  test("the candidates' path gives the same token as sorting the whole row", () => {
    let compared = 0;
    let beyond = 0;
    fc.assert(
      fc.property(
        settings,
        fc.integer({ min: 2, max: 1200 }),
        fc.constantFrom(0.5, 3, 10, 40),
        fc.nat(1000),
        (some, vocabSize, scale, seed) => {
          // Rounded to halves now and then, so that there are ties.
          const logits = noise(vocabSize, scale, seed);
          if (seed % 3 === 0)
            for (const [id, value] of logits.entries()) logits[id] = Math.round(2 * value) / 2;
          const p = params(some);
          const row = rowOf(logits, p.temperature);
          const ids = [0];
          for (let n = 0; n < 12; n++) {
            const isXtc = uniformAt(seed, n, "xtc") < p.xtcProbability;
            const expected = oracle(logits, p, uniformAt(seed, n), isXtc);
            const { id } = sampleRow(row, p, textOf({ ids, seed }));
            ids.push(0);
            if (expected === null) continue;
            compared++;
            if (!row.ids.includes(expected)) beyond++;
            expect(id).toBe(expected);
          }
        },
      ),
      { numRuns: 400 },
    );
    expect(compared).toBeGreaterThan(3000);
    expect(beyond).toBeGreaterThan(10);
  });

  test("the whole row is left alone for a usual request on a usual row", () => {
    // Zipf's law, steep enough that next to nothing lies beyond the candidates.
    const logits = Float32Array.from(
      { length: 50_000 },
      (_, i) => -3 * Math.log(1 + ((i * 7919) % 50_000)),
    );
    for (const some of [{}, { topP: 0.95 }, { topK: 40 }, { minP: 0.05 }, { temperature: 0 }]) {
      const p = params(some);
      const row = rowOf(logits, p.temperature);
      for (let n = 0; n < 50; n++)
        sampleRow(row, p, textOf({ ids: new Array(n + 1).fill(0), topLogprobs: 5 }));
      expect(row.reads).toBe(0);
    }
  });

  test("a bias of 0 takes the longer path to the same tokens", () => {
    const logits = noise(2000, 12);
    for (let n = 0; n < 200; n++) {
      const state = { ids: new Array(n + 1).fill(0), seed: 3 };
      const plain = pick(logits, { topP: 0.9 }, state);
      expect(pick(logits, { topP: 0.9, logitBias: [[7, 0]] }, state)).toBe(plain);
    }
  });

  test("tokens depend on the seed and the position only", () => {
    const logits = noise(500, 4);
    const draw = (seed: number, order: readonly number[]) =>
      new Map(order.map((n) => [n, pick(logits, {}, { ids: new Array(n + 1).fill(0), seed })]));
    const forward = draw(9, [0, 1, 2, 3, 4, 5, 6, 7]);
    const backward = draw(9, [7, 6, 5, 4, 3, 2, 1, 0]);
    expect([...backward].sort()).toEqual([...forward].sort());
    expect([...draw(10, [0, 1, 2, 3, 4, 5, 6, 7])]).not.toEqual([...forward]);
  });
});

describe("sampleRow(), log-probabilities", () => {
  test("they come from the logits before temperature, penalties and filters", () => {
    const shares = [0.5, 0.3, 0.15, 0.05];
    const p = params({ temperature: 0.1, topK: 1, logitBias: [[3, 50]] });
    const { id, logprob } = sampleRow(
      rowOf(logsOf(...shares), p.temperature),
      p,
      textOf({ topLogprobs: 2 }),
    );
    expect(id).toBe(3);
    expect(logprob?.id).toBe(3);
    expect(logprob?.logprob).toBeCloseTo(Math.log(0.05), 5);
    expect(logprob?.top.map(([top]) => top)).toEqual([0, 1]);
    expect(logprob?.top[1]?.[1]).toBeCloseTo(Math.log(0.3), 5);
  });

  test("a token beyond the candidates has its log-probability, too", () => {
    const logits = noise(1000, 1);
    const last = [...logits.keys()].sort(
      (a, b) => (logits[a] as number) - (logits[b] as number),
    )[0];
    const p = params({ temperature: 0, logitBias: [[last as number, 100]] });
    const row = rowOf(logits, 0);
    const { logprob } = sampleRow(row, p, textOf({ topLogprobs: 0 }));
    expect(row.ids).not.toContain(last as number);
    expect(logprob?.logprob).toBeCloseTo((logits[last as number] as number) - row.lse, 5);
    expect(logprob?.top).toEqual([]);
  });

  test("none are made when nobody asked", () => {
    expect(sampleRow(rowOf(logsOf(1), 1), params({}), textOf())).toEqual({ id: 0 });
  });
});

describe("sampleRow(), errors", () => {
  const failure = (logits: number[], state: Partial<SampleState> = {}) => {
    try {
      pick(logits, {}, state);
    } catch (error) {
      return error instanceof OmlxError ? error.code : "another error";
    }
    return "no error";
  };

  test("NaN, infinity and rows where nothing may be drawn are native errors", () => {
    expect(failure([0, Number.NaN])).toBe("native");
    expect(failure([0, Number.POSITIVE_INFINITY])).toBe("native");
    expect(failure([0, 1], { bannedIds: [0, 1] })).toBe("native");
    expect(failure([0, 1], { bannedIds: [0] })).toBe("no error");
  });
});
