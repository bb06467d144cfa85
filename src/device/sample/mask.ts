import type { SamplingParams } from "#core/contract";
import { type Candidates, inverseTemperature, isGreedy } from "./candidates.ts";
import { adjustLogits, hasAdjustments, type TextState } from "./penalties.ts";
import type { LogitRow } from "./sampler.ts";

/** So few allowed tokens are sorted here; more are ranked like a whole row. */
const FEW = 512;
/** A tail lighter than this share of the mass before it changes no draw. */
const NEGLIGIBLE_TAIL = 1e-9;

/** Tokens that may be drawn: one bit per id. */
export type Mask = Int32Array;

export const isAllowed = (mask: Mask, id: number): boolean =>
  (((mask[id >> 5] ?? 0) >>> (id & 31)) & 1) === 1;

/**
 * The row with nothing but the allowed tokens in it.
 *
 * @returns a row whose `lse` is NaN if nothing is allowed
 */
export function maskedRow(
  row: LogitRow,
  mask: Mask,
  params: SamplingParams,
  text: TextState,
  count: number,
): LogitRow {
  const isAdjusted = hasAdjustments(params, text);
  const logits = isAdjusted ? row.full().slice() : row.full();
  if (isAdjusted) adjustLogits(logits, params, text);
  const ids = allowedIds(mask, row.vocabSize, FEW);
  const inverse = inverseTemperature(params.temperature);
  if (ids !== null) return rowOf(ids, logits, inverse, row);
  const masked = isAdjusted ? logits : logits.slice();
  for (let id = 0; id < masked.length; id++)
    if (!isAllowed(mask, id)) masked[id] = Number.NEGATIVE_INFINITY;
  const head = row.rank(masked, inverse, count);
  return { ...head, vocabSize: row.vocabSize, full: () => masked, rank: row.rank };
}

/**
 * The token to draw, where the head of the row is enough to know it: what is beyond the head cannot change the answer.
 *
 * @param uniform the number in [0, 1) that draws
 * @returns null: the whole row has to be read
 */
export function drawFromHead(
  row: LogitRow,
  mask: Mask,
  params: SamplingParams,
  uniform: number,
): number | null {
  const ids: number[] = [];
  const values: number[] = [];
  for (let i = 0; i < row.ids.length; i++) {
    const id = row.ids[i] as number;
    if (!isAllowed(mask, id)) continue;
    ids.push(id);
    values.push(row.values[i] as number);
  }
  const [max] = values;
  if (max === undefined) return null;
  if (isGreedy(params.temperature)) return ids[0] as number;
  const isShort = params.topK === 0 || ids.length < params.topK;
  const inverse = inverseTemperature(params.temperature);
  const weights = (isShort ? values : values.slice(0, params.topK)).map((value) =>
    Math.exp((value - max) * inverse),
  );
  const sum = weights.reduce((total, weight) => total + weight, 0);
  // What is beyond the head may be allowed or not: the draw must be the same for all of it and for none.
  const tail = isShort ? tailOf(row, max, inverse) : 0;
  const least = pick(weights, sum, sum, params, uniform);
  if (tail <= NEGLIGIBLE_TAIL * sum) return ids[least as number] as number;
  if (params.topK > 0) return null;
  const most = pick(weights, sum, sum + tail, params, uniform);
  return most === least ? (ids[least as number] as number) : null;
}

/** Weight of all tokens beyond the head, allowed or not, relative to a token of logit `max`. */
function tailOf(row: Candidates, max: number, inverse: number): number {
  let head = 0;
  for (const value of row.values) head += Math.exp((value - max) * inverse);
  const all = Math.exp(row.lseAtTemperature - max * inverse);
  // Both are sums of float32 numbers: a difference below their resolution may be nothing or not.
  return Math.max(all - head, all * 1e-6);
}

/** Index of the token drawn if the whole row weighs `mass`; null: it lies beyond these. */
function pick(
  weights: readonly number[],
  sum: number,
  mass: number,
  { topP, minP }: SamplingParams,
  uniform: number,
): number | null {
  const threshold = topP < 1 ? topP * mass : Number.POSITIVE_INFINITY;
  let kept = 0;
  let inside = 0;
  while (kept < weights.length && inside < threshold) {
    const weight = weights[kept] as number;
    if (kept > 0 && weight < minP) break;
    inside += weight;
    kept++;
  }
  const endsInside = mass === sum || inside >= threshold || kept < weights.length;
  const target = uniform * (endsInside ? inside : Math.min(threshold, mass));
  let passed = 0;
  for (let i = 0; i < kept; i++) {
    passed += weights[i] as number;
    if (passed > target) return i;
  }
  return endsInside ? kept - 1 : null;
}

/** The allowed ids, ascending; null: there are more than `limit`. */
function allowedIds(mask: Mask, vocabSize: number, limit: number): number[] | null {
  const ids: number[] = [];
  for (let word = 0; word << 5 < vocabSize; word++) {
    let bits = mask[word] ?? 0;
    while (bits !== 0) {
      const id = (word << 5) + (31 - Math.clz32(bits & -bits));
      if (id < vocabSize) ids.push(id);
      if (ids.length > limit) return null;
      bits &= bits - 1;
    }
  }
  return ids;
}

/** A row of these tokens alone. */
function rowOf(
  found: readonly number[],
  logits: Float32Array,
  inverse: number,
  { rank }: LogitRow,
): LogitRow {
  const ids = Int32Array.from(
    found
      .filter((id) => (logits[id] as number) > Number.NEGATIVE_INFINITY)
      .sort((a, b) => (logits[b] as number) - (logits[a] as number) || a - b),
  );
  const values = Float32Array.from(ids, (id) => logits[id] as number);
  const max = values[0] ?? Number.NEGATIVE_INFINITY;
  let sum = 0;
  let sumAtTemperature = 0;
  for (const value of values) {
    sum += Math.exp(value - max);
    sumAtTemperature += Math.exp((value - max) * inverse);
  }
  return {
    ids,
    values,
    max,
    lse: max + Math.log(sum),
    lseAtTemperature: max * inverse + Math.log(sumAtTemperature),
    vocabSize: ids.length,
    full: () => logits,
    rank,
  };
}
