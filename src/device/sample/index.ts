/**
 * @module Draws tokens from rows of logits.
 *
 * - A draw is a pure function of the row, the text so far, the request's parameters and its seed: the same request gives
 *   the same tokens alone, in a batch and after a preemption.
 * - It works on the most probable tokens of a row; the whole row is read only when these are not enough.
 */
export * from "./candidates.ts";
export { logprobOf } from "./logprobs.ts";
export { randomSeed } from "./random.ts";
export * from "./rows.ts";
export * from "./sampler.ts";
