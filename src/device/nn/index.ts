/**
 * @module The blocks that models are made of: weights by name, linear, norm, rotary embedding, attention, MLP, and the
 * one decoder loop over a family's record.
 *
 * - A family is data (DecoderSpec); only the loop knows spans and the cache.
 * - Nothing here frees an array of a step: the runner's scope does.
 */
export * from "./decoder.ts";
export { buildEncoder, type EncodePass, type Encoder } from "./encoder.ts";
export {
  type EncoderKernels,
  nativeEncoderKernels,
  stockEncoderKernels,
} from "./encoder-kernels.ts";
export type * from "./encoder-spec.ts";
export * from "./kernels.ts";
export * from "./rope.ts";
export * from "./spec.ts";
export * from "./weights.ts";
