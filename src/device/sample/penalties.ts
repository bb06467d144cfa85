import type { SamplingParams } from "#core/contract";

/** What of a text changes its next logits. */
export interface TextState {
  /** The prompt, then what was generated. */
  readonly ids: readonly number[];
  readonly promptTokens: number;
  /** Ids that must not be drawn now. */
  readonly bannedIds: readonly number[];
}

/** Whether adjustLogits() would change anything. */
export function hasAdjustments(params: SamplingParams, text: TextState): boolean {
  const { repetitionPenalty, presencePenalty, frequencyPenalty, logitBias } = params;
  return (
    repetitionPenalty !== 1 ||
    ((presencePenalty !== 0 || frequencyPenalty !== 0) && text.ids.length > text.promptTokens) ||
    logitBias.length > 0 ||
    text.bannedIds.length > 0
  );
}

/**
 * Applies penalties, bias and bans to a row in place, in this order; before temperature.
 *
 * - repetition (arXiv:1909.05858), for every token among the last repetitionContext ones: positive logits are divided,
 *   negative ones multiplied
 * - presence and frequency (OpenAI), over generated tokens: minus presence once, minus frequency per occurrence
 * - bias: added; banned ids: minus infinity
 *
 * @param logits (V)
 */
export function adjustLogits(logits: Float32Array, params: SamplingParams, text: TextState): void {
  const { repetitionPenalty, repetitionContext, presencePenalty, frequencyPenalty } = params;
  const { ids, promptTokens } = text;
  if (repetitionPenalty !== 1) {
    for (const id of new Set(ids.slice(Math.max(0, ids.length - repetitionContext)))) {
      const value = logits[id];
      if (value === undefined) continue;
      logits[id] = value > 0 ? value / repetitionPenalty : value * repetitionPenalty;
    }
  }
  if (presencePenalty !== 0 || frequencyPenalty !== 0) {
    for (const [id, count] of countFrom(ids, promptTokens)) {
      const value = logits[id];
      if (value !== undefined) logits[id] = value - presencePenalty - frequencyPenalty * count;
    }
  }
  for (const [id, bias] of params.logitBias) {
    const value = logits[id];
    if (value !== undefined) logits[id] = value + bias;
  }
  for (const id of text.bannedIds) if (id < logits.length) logits[id] = Number.NEGATIVE_INFINITY;
}

const countFrom = (ids: readonly number[], from: number): Map<number, number> => {
  const counts = new Map<number, number>();
  for (let i = from; i < ids.length; i++) {
    const id = ids[i] as number;
    counts.set(id, (counts.get(id) ?? 0) + 1);
  }
  return counts;
};
