import {
  type AnswerOptions,
  type ChatRequest,
  GREEDY,
  invalidRequest,
  OmlxError,
  type SamplingParams,
  type TokenRequest,
} from "#core/contract";
import type { GenerationDefaults } from "#core/formats";
import type { Conversation } from "./template/conversation.ts";

/** What a model says about its answers. */
export interface ModelFacts {
  readonly eosIds: readonly number[];
  readonly generation: GenerationDefaults;
  /** Ids of control tokens, by their text. */
  readonly controlIds: ReadonlyMap<string, number>;
  /** What a line break alone is made of. */
  readonly newlineIds: readonly number[];
}

/** Sampling where neither request nor model says anything. */
const DEFAULT_SAMPLING: SamplingParams = { ...GREEDY, temperature: 1, topP: 0.95 };

/** Stop strings are looked for at every character. */
const MAX_STOP_CHARS = 65_536;

/**
 * The token request that continues a prompt. The answer is clamped to what the window leaves.
 *
 * @param param the request field that the prompt came from
 * @throws {OmlxError} context_length with numTokens and maxTokens; invalid_request
 */
export function toTokenRequest(
  request: AnswerOptions,
  promptIds: readonly number[],
  facts: ModelFacts,
  limits: { readonly contextWindow: number },
  param: string,
): TokenRequest {
  const numTokens = promptIds.length;
  const maxTokens = limits.contextWindow;
  if (numTokens === 0) throw invalidRequest("Cannot answer: the prompt is empty", param);
  if (numTokens >= maxTokens) {
    const relation = numTokens > maxTokens ? ">" : "fill the";
    throw new OmlxError({
      code: "context_length",
      message: `prompt is too long: ${numTokens} tokens ${relation} ${maxTokens} maximum`,
      param,
      data: { numTokens, maxTokens },
    });
  }
  if (request.stop.reduce((sum, stop) => sum + stop.length, 0) > MAX_STOP_CHARS) {
    throw invalidRequest(`Cannot stop at more than ${MAX_STOP_CHARS} characters`, "stop");
  }
  const room = maxTokens - numTokens;
  return {
    id: crypto.randomUUID(),
    promptIds,
    maxTokens: Math.min(request.maxTokens ?? room, room),
    minTokens: request.minTokens,
    stopIds: [
      ...new Set([
        ...(request.ignoreEos ? [] : facts.eosIds),
        ...stopTextsOf(request, facts).keys(),
      ]),
    ],
    sampling: samplingOf(request.sampling, facts),
    lane: request.lane,
    topLogprobs: request.topLogprobs,
    constraint: null,
    thinkingBudget: null,
  };
}

/**
 * The part of a request that is rendered. Where no tool may be called, the model is shown none; what the request says
 * about thinking goes to the template under the names that templates use.
 */
export function conversationOf(request: ChatRequest): Conversation {
  const { messages, tools, toolChoice, thinking, templateKwargs } = request;
  const { effort, budget } = thinking;
  const isOff = effort === "none" || budget === 0;
  const isEnabled = thinking.enabled ?? (isOff ? false : budget === undefined ? undefined : true);
  const isShaped =
    request.format !== null || toolChoice.kind === "required" || toolChoice.kind === "named";
  return {
    messages,
    tools: toolChoice.kind === "none" ? [] : tools,
    templateKwargs: {
      ...(isEnabled === undefined ? {} : { enable_thinking: isEnabled, thinking: isEnabled }),
      ...(effort === undefined ? {} : { reasoning_effort: effort }),
      ...templateKwargs,
    },
    // a budget and a grammar can only be kept where it is known when thoughts begin
    opensThoughts: isEnabled === true && (budget !== undefined || isShaped),
  };
}

/** Stop strings that are control tokens: these are not part of the text, so their ids stop. */
export function stopTextsOf(
  request: Pick<AnswerOptions, "stop">,
  facts: ModelFacts,
): ReadonlyMap<number, string> {
  const out = new Map<number, string>();
  for (const stop of request.stop) {
    const id = facts.controlIds.get(stop);
    if (id !== undefined) out.set(id, stop);
  }
  return out;
}

/** The request's own values, else the model's, else ours. */
function samplingOf(
  asked: Partial<SamplingParams>,
  { generation, eosIds, newlineIds }: ModelFacts,
): SamplingParams {
  const { temperature, topP, topK, minP, repetitionPenalty } = generation;
  const given = Object.entries({ temperature, topP, topK, minP, repetitionPenalty });
  const fromModel = Object.fromEntries(given.filter(([, value]) => value !== undefined));
  const fromClient = Object.fromEntries(
    Object.entries(asked).filter(([, value]) => value !== undefined),
  );
  const xtcSpared = (asked.xtcProbability ?? 0) > 0 ? [...eosIds, ...newlineIds] : [];
  return { ...DEFAULT_SAMPLING, ...fromModel, ...fromClient, xtcSpared };
}
