import {
  type ErrorData,
  OmlxError,
  type StepEvent,
  type TokenLogprob,
  toErrorData,
} from "#core/contract";
import type { KvCache } from "#device/cache";
import * as mx from "#device/mlx";
import { inverseTemperature, type LogitRow, logprobOf, readRows, sampleRow } from "#device/sample";
import type { Model } from "#device/zoo";
import type { Guide } from "./guide.ts";
import type { CacheEffect, Plan, PromptScores, Sampled, Scheduler } from "./scheduler.ts";

export interface StepParts {
  readonly model: Pick<Model, "forward">;
  readonly cache: KvCache;
  readonly scheduler: Scheduler;
  /** Whether candidates are found by the CPU kernels. */
  readonly isNative: boolean;
  /** Called when it is known what the step holds, before it runs: the rows of each request. */
  readonly onPlan?: (work: Plan["work"]) => void;
}

export interface StepResult {
  readonly events: readonly StepEvent[];
  readonly failed: readonly { readonly id: string; readonly error: ErrorData }[];
}

/**
 * One engine step: plan, compute, settle. A step that fails ends its requests and no others.
 *
 * @returns null if there was nothing to do
 */
export function step(parts: StepParts): StepResult | null {
  const { scheduler, cache } = parts;
  const startMs = performance.now();
  const plan = scheduler.next(startMs);
  applyEffects(cache, scheduler.takeEffects());
  if (!plan) return null;
  parts.onPlan?.(plan.work);
  let result: StepResult;
  try {
    const { sampled, scores } = mx.scope(() => forwardAndSample(parts, plan));
    const endMs = performance.now();
    result = scheduler.settle(plan, sampled, endMs - startMs, endMs, scores);
  } catch (error) {
    if (!(error instanceof OmlxError)) throw error;
    const data = toErrorData(error);
    result = { events: [], failed: scheduler.abandon(plan).map((id) => ({ id, error: data })) };
  }
  applyEffects(cache, scheduler.takeEffects());
  return result;
}

/** Tells the storage what the scheduler decided. */
export function applyEffects(cache: KvCache, effects: readonly CacheEffect[]): void {
  for (const effect of effects) {
    switch (effect.kind) {
      case "open":
        cache.open(effect.seq, effect.blocks, effect.numTokens);
        break;
      case "seal":
        cache.seal(effect.seq, effect.index, effect.block);
        break;
      case "close":
        cache.close(effect.seq);
        break;
      case "drop":
        cache.drop(effect.blocks);
        break;
    }
  }
}

interface Drawn {
  /** One per plan.sampled. */
  readonly sampled: Sampled[];
  readonly scores: PromptScores;
}

function forwardAndSample({ model, cache, isNative }: StepParts, plan: Plan): Drawn {
  try {
    const logits = model.forward(plan.batch, cache); // (R, V)
    const sampled: Sampled[] = [];
    const scores = new Map<Plan["sampled"][number], TokenLogprob[]>();
    if (!logits) return { sampled, scores };
    const inverse = plan.uses.map(({ sequence }) =>
      inverseTemperature(sequence.request.sampling.temperature),
    );
    for (const [r, row] of readRows(logits, inverse, isNative).entries()) {
      const { sequence, position, isScored, isSampled } = plan.uses[r] as Plan["uses"][number];
      if (isScored) {
        const { ids, request } = sequence;
        const score = logprobOf(row, ids[position + 1] as number, request.topLogprobs ?? 0);
        const known = scores.get(sequence);
        if (known) known.push(score);
        else scores.set(sequence, [score]);
      }
      if (isSampled) sampled.push(sampleOne(row, sequence));
    }
    return { sampled, scores };
  } finally {
    cache.end();
  }
}

/** A row that cannot be drawn from is the error of its own request. */
function sampleOne(row: LogitRow, sequence: Plan["sampled"][number]): Sampled {
  try {
    return sequence.guide === null
      ? drawn(row, sequence, sequence.bannedIds)
      : guided(row, sequence, sequence.guide);
  } catch (error) {
    if (!(error instanceof OmlxError)) throw error;
    return { error: toErrorData(error) };
  }
}

function drawn(
  row: LogitRow,
  { request, ids, promptTokens }: Plan["sampled"][number],
  bannedIds: readonly number[],
  mask?: Int32Array,
): Extract<Sampled, { ids: readonly number[] }> {
  const { sampling, topLogprobs } = request;
  const { seed } = sampling;
  if (seed === null) throw new Error(`request "${request.id}" has no seed`);
  const state = { ids, promptTokens, bannedIds, seed, topLogprobs, mask };
  const { id, logprob } = sampleRow(row, sampling, state);
  return { ids: [id], logprobs: logprob && [logprob] };
}

function guided(row: LogitRow, sequence: Plan["sampled"][number], guide: Guide): Sampled {
  const { request, bannedIds } = sequence;
  const guidance = guide.next();
  if (guidance.kind === "forced") {
    const { topLogprobs } = request;
    // A row tells the probabilities of one token.
    const ids = topLogprobs === null ? guidance.ids : guidance.ids.slice(0, 1);
    for (const id of ids) guide.take(id);
    return {
      ids,
      logprobs: topLogprobs === null ? undefined : ids.map((id) => logprobOf(row, id, topLogprobs)),
      isEnd: guidance.isEnd && ids.length === guidance.ids.length,
    };
  }
  const sampled =
    guidance.kind === "masked"
      ? drawn(row, sequence, bannedIds, guidance.mask)
      : drawn(row, sequence, [...bannedIds, ...guidance.bannedIds]);
  const [id] = sampled.ids;
  if (id !== undefined && !request.stopIds.includes(id)) guide.take(id);
  return sampled;
}
