import type { ChatEvent, ChatRequest, TokenRequest, Usage } from "#core/contract";
import { AsyncQueue } from "#core/util";
import type { Lease, Pool } from "#front/pool";
import { AnswerFold, type ChatResult, type Continuation, continuePrompt } from "./chat.ts";
import { type McpTools, streamWithTools, withMcpTools } from "./tool-loop.ts";

/** An event of one of the answers that a request asks for; choices are numbered from 0. */
export type ChoiceEvent = ChatEvent & { readonly choice: number };

/** Choices that the engine has at a time: a request for many must not fill the queue for all others. */
const MAX_OPEN = 16;

/**
 * Answers a conversation `n` times. The prompt is encoded once and computed once: its tokens are shared. Calls are run here
 * for a single choice only.
 *
 * @throws {OmlxError} as streamChat()
 */
export async function* streamChoices(
  pool: Pool,
  mcp: McpTools | null,
  asked: ChatRequest,
  n: number,
  signal: AbortSignal,
): AsyncGenerator<ChoiceEvent> {
  if (n === 1) {
    const events = streamWithTools(pool, mcp, asked, signal);
    for await (const event of events) yield { ...event, choice: 0 };
    return;
  }
  const request = withMcpTools(mcp, asked);
  using lease = await pool.lease(request.model, signal);
  const { text, engine } = lease;
  const prompt = await text.encode(request, engine.info);
  const prompts = Array.from({ length: n }, (_, i) => choiceOf(prompt, i));
  const choices = prompts.map((prompt) => ({ prompt, reader: text.reader(request, prompt) }));
  yield* streamAll(lease, request.model, choices, signal);
}

/** The same prompt for choice `index`: a seed of its own, so that choices differ and can be had again one by one. */
export function choiceOf(prompt: TokenRequest, index: number): TokenRequest {
  if (index === 0) return prompt;
  const { seed } = prompt.sampling;
  return {
    ...prompt,
    id: crypto.randomUUID(),
    sampling: { ...prompt.sampling, seed: seed === null ? null : seed + index },
  };
}

/**
 * The events of all choices as they come. The first failure ends them all, and so does leaving.
 *
 * @param model the model's name as the client wrote it
 * @throws {OmlxError} of the choice that failed first
 */
export async function* streamAll(
  lease: Lease,
  model: string,
  choices: readonly Continuation[],
  signal: AbortSignal,
): AsyncGenerator<ChoiceEvent> {
  const own = new AbortController();
  const all = AbortSignal.any([signal, own.signal]);
  const queue = new AsyncQueue<ChoiceEvent>();
  let next = 0;
  const work = async () => {
    while (next < choices.length) {
      const choice = next++;
      const events = continuePrompt(lease, model, choices[choice] as Continuation, all);
      for await (const event of events) queue.push({ ...event, choice });
    }
  };
  Promise.all(Array.from({ length: MAX_OPEN }, work)).then(
    () => queue.end(),
    (error: unknown) => queue.fail(error),
  );
  try {
    yield* queue;
  } finally {
    own.abort();
  }
}

/** Whole answers of all choices. */
export interface ChoicesResult {
  readonly choices: readonly ChatResult[];
  readonly usage: Usage;
}

/**
 * Folds the events of all choices.
 *
 * @param perPrompt choices that share a prompt, which is counted once
 */
export async function collectChoices(
  events: AsyncIterable<ChoiceEvent>,
  perPrompt: number,
): Promise<ChoicesResult> {
  const folds: AnswerFold[] = [];
  for await (const event of events) {
    let fold = folds[event.choice];
    if (fold === undefined) {
      fold = new AnswerFold();
      folds[event.choice] = fold;
    }
    fold.add(event);
  }
  const choices = Array.from(folds, (fold) => (fold ?? new AnswerFold()).result());
  const usage = totalUsage(
    choices.map((choice) => choice.usage),
    perPrompt,
  );
  return { choices, usage };
}

/** What all choices used together. */
export function totalUsage(usages: readonly Usage[], perPrompt: number): Usage {
  const sum = (of: (usage: Usage) => number, step = 1) =>
    usages.reduce((total, usage, i) => (i % step === 0 ? total + of(usage) : total), 0);
  return {
    promptTokens: sum((usage) => usage.promptTokens, perPrompt),
    cachedTokens: sum((usage) => usage.cachedTokens, perPrompt),
    completionTokens: sum((usage) => usage.completionTokens),
    reasoningTokens: sum((usage) => usage.reasoningTokens),
  };
}
