import { OmlxError, type SamplingParams, type TokenLogprob } from "#core/contract";
import {
  type Candidates,
  inverseTemperature,
  isGreedy,
  NUM_CANDIDATES,
  type Rank,
} from "./candidates.ts";
import { logprobOf } from "./logprobs.ts";
import { drawFromHead, type Mask, maskedRow } from "./mask.ts";
import { adjustLogits, hasAdjustments, type TextState } from "./penalties.ts";
import { uniformAt } from "./random.ts";

/** One row of logits: its head at once, the whole only when asked for. */
export interface LogitRow extends Candidates {
  readonly vocabSize: number;
  /** All logits (V); not to be written to. */
  full(): Float32Array;
  /** Finds the head of a changed copy of the row. */
  readonly rank: Rank;
}

export interface SampleState extends TextState {
  readonly seed: number;
  /** How many alternatives to report; null: no log-probabilities. */
  readonly topLogprobs: number | null;
  /** Only these tokens may be drawn. */
  readonly mask?: Mask | undefined;
}

export interface SampledToken {
  readonly id: number;
  readonly logprob?: TokenLogprob | undefined;
}

/** A tail lighter than this share of the mass before it is never drawn from. */
const NEGLIGIBLE_TAIL = 1e-9;
const TAIL_BUCKETS = 1024;
/** Tail weights below exp of this are ignored. */
const TAIL_DEPTH = 40;

/**
 * Draws the next token of one request. The answer depends on the row, the text, the parameters and the seed only.
 *
 * Order: penalties, bias and bans, then temperature, top_k, top_p and min_p on the distribution that the step before left
 * (as vLLM does), then XTC on what these left, then one uniform number that is a function of seed and position.
 * Temperature 0 takes the largest logit, of equal ones the lowest id.
 *
 * @throws {OmlxError} native if the row holds NaN or infinity, or nothing that may be drawn
 */
export function sampleRow(row: LogitRow, params: SamplingParams, state: SampleState): SampledToken {
  checkRow(row);
  const id = drawId(row, params, state);
  return state.topLogprobs === null
    ? { id }
    : { id, logprob: logprobOf(row, id, state.topLogprobs) };
}

function drawId(row: LogitRow, params: SamplingParams, state: SampleState): number {
  const { mask, seed } = state;
  const position = state.ids.length - state.promptTokens;
  if (mask && params.xtcProbability === 0 && !hasAdjustments(params, state)) {
    const id = drawFromHead(row, mask, params, uniformAt(seed, position));
    if (id !== null) return id;
  }
  const adjusted = mask
    ? maskedRow(row, mask, params, state, NUM_CANDIDATES)
    : adjust(row, params, state);
  checkRow(adjusted);
  return isGreedy(params.temperature)
    ? (adjusted.ids[0] as number)
    : draw(adjusted, params, seed, position);
}

function checkRow(row: Candidates): void {
  if (Number.isFinite(row.lse)) return;
  throw new OmlxError({
    code: "native",
    message: "Cannot draw a token: the logits hold NaN or infinity, or every token is ruled out",
  });
}

function adjust(row: LogitRow, params: SamplingParams, text: TextState): LogitRow {
  if (!hasAdjustments(params, text)) return row;
  const logits = row.full().slice();
  adjustLogits(logits, params, text);
  const head = row.rank(logits, inverseTemperature(params.temperature), NUM_CANDIDATES);
  return { ...head, vocabSize: row.vocabSize, full: () => logits, rank: row.rank };
}

/** The head's weights relative to the largest one, at the row's temperature, and the mass of the whole row. */
interface Weights {
  readonly row: LogitRow;
  readonly weights: Float64Array;
  /** Mass of the tokens that the filters have not ruled out yet. */
  readonly mass: number;
  /** Nothing worth drawing lies beyond `weights`. */
  readonly isWhole: boolean;
}

/**
 * All filters but XTC keep a beginning of the tokens in order of probability, so the kept tokens are the first n of the
 * head. Only when they reach beyond the head, the number is drawn first; the whole row is read if it falls beyond.
 */
function draw(row: LogitRow, params: SamplingParams, seed: number, position: number): number {
  const uniform = uniformAt(seed, position);
  const { xtcProbability } = params;
  const isXtc = xtcProbability > 0 && uniformAt(seed, position, "xtc") < xtcProbability;
  const head = weigh(row, params, isXtc);
  const { weights } = head;
  const threshold = params.topP < 1 ? params.topP * head.mass : Number.POSITIVE_INFINITY;
  let kept = 0;
  let sum = 0;
  while (kept < weights.length && sum < threshold) {
    const weight = weights[kept] as number;
    if (kept > 0 && weight < params.minP) break;
    sum += weight;
    kept++;
  }
  const endsInside = head.isWhole || sum >= threshold || kept < weights.length;
  // A nucleus that is larger than the head is cut at exactly topP of the mass.
  const keptMass = endsInside ? sum : Math.min(threshold, head.mass);
  const cut = isXtc ? cutTopChoices(head, kept, keptMass, params) : 0;
  const target = uniform * (keptMass - cut);
  if (endsInside || target < sum - cut) {
    return head.row.ids[walk(weights, kept, target)] as number;
  }
  return drawFromTail(
    head.row,
    inverseTemperature(params.temperature),
    (target - (sum - cut)) / (head.mass - sum),
  );
}

/**
 * XTC, "exclude top choices": of the tokens above the threshold all but the least probable one get weight 0.
 *
 * @returns the mass that is gone
 * @see mlx-lm sample_utils.py apply_xtc
 */
function cutTopChoices(
  { row, weights }: Weights,
  kept: number,
  mass: number,
  { xtcThreshold, xtcSpared }: SamplingParams,
): number {
  let above = 0;
  while (above < kept && (weights[above] as number) > xtcThreshold * mass) above++;
  let cut = 0;
  for (let i = 0; i < above - 1; i++) {
    if (xtcSpared.includes(row.ids[i] as number)) continue;
    cut += weights[i] as number;
    weights[i] = 0;
  }
  return cut;
}

/** Index of the token at `target` on the line of weights. */
function walk(weights: Float64Array, kept: number, target: number): number {
  let sum = 0;
  for (let i = 0; i < kept; i++) {
    sum += weights[i] as number;
    if (sum > target) return i;
  }
  return kept - 1;
}

function weigh(given: LogitRow, params: SamplingParams, isXtc: boolean): Weights {
  const inverse = inverseTemperature(params.temperature);
  const count = headSize(given, params, inverse, isXtc);
  const row =
    count > given.ids.length ? { ...given, ...given.rank(given.full(), inverse, count) } : given;
  const weights = new Float64Array(params.topK > 0 ? Math.min(params.topK, count) : count);
  const reach = row.vocabSize;
  let sum = 0;
  for (let i = 0; i < weights.length; i++) {
    const weight = Math.exp(((row.values[i] as number) - row.max) * inverse);
    if (weight * (reach - i) <= NEGLIGIBLE_TAIL * sum)
      return { row, weights: weights.subarray(0, i), mass: sum, isWhole: true };
    weights[i] = weight;
    sum += weight;
  }
  if (params.topK > 0 || weights.length === reach)
    return { row, weights, mass: sum, isWhole: true };
  const mass = Math.max(sum, Math.exp(row.lseAtTemperature - row.max * inverse));
  return { row, weights, mass, isWhole: mass === sum };
}

/** How many tokens have to be in order before top_k, min_p and XTC can be applied. */
function headSize(row: LogitRow, params: SamplingParams, inverse: number, isXtc: boolean): number {
  const { topK, topP, minP, xtcThreshold } = params;
  const { max, vocabSize } = row;
  if (topK > 0) return Math.max(row.ids.length, Math.min(topK, vocabSize));
  if (minP === 0 && !isXtc) return row.ids.length;
  const mass = Math.exp(row.lseAtTemperature - max * inverse);
  const limit = minP > 0 ? minP : xtcThreshold * topP * mass;
  const lowest = row.values[row.values.length - 1] as number;
  if (row.ids.length === vocabSize || weightOf(lowest, max, inverse) < limit) {
    return row.ids.length;
  }
  let count = 0;
  for (const value of row.full()) if (weightOf(value, max, inverse) >= limit) count++;
  // One more, so that the limit is seen.
  return Math.min(vocabSize, count + 1);
}

const weightOf = (value: number, max: number, inverse: number): number =>
  Math.exp((value - max) * inverse);

/**
 * The token at `share` of the mass that lies beyond the head, in order of probability. Sorting a whole vocabulary takes
 * long, so the tail goes into buckets by value and only one bucket is sorted.
 */
function drawFromTail(row: LogitRow, inverse: number, share: number): number {
  const logits = row.full();
  const last = row.ids.length - 1;
  const lastId = row.ids[last] as number;
  const top = row.values[last] as number;
  const scale = (TAIL_BUCKETS * inverse) / TAIL_DEPTH;
  /** -1: in the head, or too light. */
  const bucketOf = (id: number): number => {
    const value = logits[id] as number;
    if (value > top || (value === top && id <= lastId)) return -1;
    const bucket = Math.floor((top - value) * scale);
    return bucket < TAIL_BUCKETS ? bucket : -1;
  };
  const masses = new Float64Array(TAIL_BUCKETS);
  let total = 0;
  for (let id = 0; id < logits.length; id++) {
    const bucket = bucketOf(id);
    if (bucket < 0) continue;
    const weight = weightOf(logits[id] as number, top, inverse);
    masses[bucket] = (masses[bucket] as number) + weight;
    total += weight;
  }
  let target = share * total;
  let chosen = -1;
  for (let bucket = 0; bucket < TAIL_BUCKETS; bucket++) {
    const mass = masses[bucket] as number;
    if (mass === 0) continue;
    chosen = bucket;
    if (target < mass) break;
    target -= mass;
  }
  if (chosen < 0) return lastId;
  const members: number[] = [];
  for (let id = 0; id < logits.length; id++) if (bucketOf(id) === chosen) members.push(id);
  members.sort((a, b) => (logits[b] as number) - (logits[a] as number) || a - b);
  const weights = Float64Array.from(members, (id) => weightOf(logits[id] as number, top, inverse));
  return members[walk(weights, members.length, target)] as number;
}
