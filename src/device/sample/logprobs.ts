import type { TokenLogprob } from "#core/contract";
import type { LogitRow } from "./sampler.ts";

/**
 * Log-probabilities of the chosen token and of the most probable ones, from the logits as the model gave them: before
 * penalties, temperature and filters.
 */
export function logprobOf(row: LogitRow, id: number, numTop: number): TokenLogprob {
  const at = row.ids.indexOf(id);
  const value = at >= 0 ? row.values[at] : row.full()[id];
  const top = Array.from(row.ids.subarray(0, numTop), (topId, i): [number, number] => [
    topId,
    (row.values[i] as number) - row.lse,
  ]);
  return { id, logprob: (value as number) - row.lse, top };
}
