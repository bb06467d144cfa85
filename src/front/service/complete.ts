import { type AnswerOptions, invalidRequest, type TokenRequest } from "#core/contract";
import type { Pool } from "#front/pool";
import type { Continuation } from "./chat.ts";
import { type ChoiceEvent, choiceOf, streamAll } from "./choices.ts";

/** Raw prompts to continue; no template is involved. */
export interface CompleteRequest extends AnswerOptions {
  /** As the client wrote it. */
  readonly model: string;
  readonly prompts: readonly RawPrompt[];
  /** Continuations of each prompt. */
  readonly n: number;
  /** "first": the text of a choice begins with its prompt; "only": nothing comes after it. */
  readonly echo: "first" | "only" | null;
}

export interface RawPrompt {
  /** Where it stands in the request, for errors: "prompt[2]". */
  readonly path: string;
  /** Token ids are taken as they are. */
  readonly content: string | readonly number[];
}

/**
 * Continues every prompt `n` times; choice p * n + i is the i-th of prompt p. Control tokens in a prompt's text are read
 * as tokens.
 *
 * @throws {OmlxError} as streamChat()
 */
export async function* streamCompletions(
  pool: Pool,
  request: CompleteRequest,
  signal: AbortSignal,
): AsyncGenerator<ChoiceEvent> {
  using lease = await pool.lease(request.model, signal);
  const { text, engine } = lease;
  const { prompts, n, echo } = request;
  const choices: Continuation[] = [];
  for (const { path, content } of prompts) {
    if (typeof content !== "string") checkIds(content, engine.info.vocabSize, path);
    const encoded = await text.encodeRaw(content, request, engine.info, path);
    const prompt: TokenRequest = {
      ...encoded,
      scoresPrompt: echo !== null && request.topLogprobs !== null,
    };
    const echoed = {
      text: typeof content === "string" ? content : text.textOf(content),
      isAll: echo === "only",
    };
    for (let i = 0; i < n; i++) {
      const own = choiceOf(prompt, i);
      const reader = text.rawReader(request, own, echo === null ? null : echoed);
      choices.push({ prompt: own, reader });
    }
  }
  yield* streamAll(lease, request.model, choices, signal);
}

function checkIds(ids: readonly number[], vocabSize: number, path: string): void {
  const at = ids.findIndex((id) => id >= vocabSize);
  if (at < 0) return;
  throw invalidRequest(
    `Cannot read token ${ids[at]}: the model has ${vocabSize} tokens`,
    `${path}[${at}]`,
  );
}
