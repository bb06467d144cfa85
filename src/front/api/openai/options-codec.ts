import type { z } from "zod";
import {
  type AnswerOptions,
  invalidRequest,
  type SamplingParams,
  type Usage,
} from "#core/contract";
import type { answerFields } from "./schemas.ts";

/** The fields that chat and completions have in common. */
export type OptionsBody = { [K in keyof typeof answerFields]?: z.output<(typeof answerFields)[K]> };

/** What a body says about how its answer is generated. */
export function decodeOptions(body: OptionsBody): Omit<AnswerOptions, "topLogprobs"> {
  return {
    sampling: decodeSampling(body),
    maxTokens: body.max_tokens ?? undefined,
    minTokens: body.min_tokens ?? 0,
    ignoreEos: body.ignore_eos ?? false,
    stop: decodeStop(body.stop),
    lane: body.service_tier === "flex" ? "background" : "interactive",
  };
}

/** Sampling as the OpenAI routes name it. */
export function decodeSampling(body: Omit<OptionsBody, "stream_options">): Partial<SamplingParams> {
  const sampling: { -readonly [K in keyof SamplingParams]?: SamplingParams[K] } = {};
  if (body.temperature != null) sampling.temperature = body.temperature;
  // A nucleus of mass 0 still holds the most probable token.
  if (body.top_p != null) sampling.topP = Math.max(body.top_p, Number.EPSILON);
  if (body.top_k != null) sampling.topK = Math.max(body.top_k, 0);
  if (body.min_p != null) sampling.minP = body.min_p;
  if (body.xtc_probability != null) sampling.xtcProbability = body.xtc_probability;
  if (body.xtc_threshold != null) sampling.xtcThreshold = body.xtc_threshold;
  if (body.repetition_penalty != null) sampling.repetitionPenalty = body.repetition_penalty;
  if (body.repetition_context_size != null) {
    sampling.repetitionContext = body.repetition_context_size;
  }
  if (body.presence_penalty != null) sampling.presencePenalty = body.presence_penalty;
  if (body.frequency_penalty != null) sampling.frequencyPenalty = body.frequency_penalty;
  if (body.logit_bias != null) {
    sampling.logitBias = Object.entries(body.logit_bias).map(([id, bias]) => [Number(id), bias]);
  }
  if (body.seed != null) sampling.seed = body.seed;
  return sampling;
}

function decodeStop(stop: OptionsBody["stop"]): string[] {
  if (stop == null) return [];
  return [...new Set(typeof stop === "string" ? [stop] : stop)].filter((text) => text !== "");
}

/** Names the fields of a body, and of its stream_options, that no schema knows. */
export function unknownFields(
  body: Readonly<Record<string, unknown>> & Pick<OptionsBody, "stream_options">,
  known: ReadonlySet<string>,
): string[] {
  const options = Object.keys(body.stream_options ?? {}).filter((key) => key !== "include_usage");
  return [
    ...Object.keys(body).filter((key) => !known.has(key)),
    ...options.map((key) => `stream_options.${key}`),
  ];
}

const isNothing = (value: unknown): boolean =>
  value == null || value === false || (Array.isArray(value) && value.length === 0);

/** A test for values of a field that ask for nothing: null, false, an empty list, or one of `values`. */
export const neutral =
  (...values: unknown[]) =>
  (value: unknown): boolean =>
    isNothing(value) || values.includes(value);

/** @throws {OmlxError} invalid_request for a field that is not served and whose value asks for something */
export function refuseUnserved<B extends Readonly<Record<string, unknown>>>(
  body: B,
  unserved: Readonly<Record<string, (value: unknown, body: B) => boolean>>,
): void {
  for (const [field, isNeutral] of Object.entries(unserved)) {
    if (!isNeutral(body[field], body)) throw invalidRequest(`"${field}" is not served`, field);
  }
}

// ---- response ----

export function encodeUsage(usage: Usage) {
  return {
    prompt_tokens: usage.promptTokens,
    completion_tokens: usage.completionTokens,
    total_tokens: usage.promptTokens + usage.completionTokens,
    prompt_tokens_details: { cached_tokens: usage.cachedTokens, audio_tokens: 0 },
    completion_tokens_details: {
      reasoning_tokens: usage.reasoningTokens,
      audio_tokens: 0,
      accepted_prediction_tokens: 0,
      rejected_prediction_tokens: 0,
    },
  };
}

/** JSON has no minus infinity; OpenAI writes this for "next to impossible". */
const LEAST_LOGPROB = -9999;

export const finiteLogprob = (logprob: number): number => Math.max(logprob, LEAST_LOGPROB);
