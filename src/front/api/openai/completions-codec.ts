import { type ChosenLogprob, invalidRequest, type TextLogprob, type Usage } from "#core/contract";
import {
  type ChoiceEvent,
  type ChoicesResult,
  type CompleteRequest,
  totalUsage,
} from "#front/service";
import type { AnswerHead } from "./head.ts";
import {
  decodeOptions,
  encodeUsage,
  finiteLogprob,
  neutral,
  refuseUnserved,
  unknownFields,
} from "./options-codec.ts";
import { COMPLETION_FIELDS, type CompletionBody } from "./schemas.ts";

// ---- request ----

/** A request in our words, and what of it was left aside. */
export interface DecodedCompletion {
  readonly request: CompleteRequest;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  /** Paths of fields that were not understood. */
  readonly ignored: readonly string[];
}

/** OpenAI's own default for this route. */
const DEFAULT_MAX_TOKENS = 16;

/** Of all prompts together; every one takes memory before the first is told. */
const MAX_CHOICES = 4096;

/** A field that is not served, and a test for values of it that ask for nothing. */
const UNSERVED: Readonly<Record<string, (value: unknown) => boolean>> = { suffix: neutral("") };

/** @throws {OmlxError} invalid_request with `param` */
export function decodeCompletion(body: CompletionBody): DecodedCompletion {
  refuseUnserved(body, UNSERVED);
  const n = body.n ?? 1;
  if (body.best_of != null && body.best_of !== n) {
    throw invalidRequest(
      `"best_of" must equal "n", which is ${n}: choices are not ranked`,
      "best_of",
    );
  }
  if (body.max_tokens === 0 && body.echo !== true) {
    throw invalidRequest('"max_tokens" may be 0 only with "echo"', "max_tokens");
  }
  const prompts = decodePrompts(body.prompt);
  if (prompts.length * n > MAX_CHOICES) {
    throw invalidRequest(
      `Cannot make ${prompts.length * n} choices: ${MAX_CHOICES} is the most for all prompts together`,
      "n",
    );
  }
  const options = decodeOptions(body);
  return {
    request: {
      ...options,
      maxTokens: Math.max(options.maxTokens ?? DEFAULT_MAX_TOKENS, 1), // of 0, the reader tells none
      topLogprobs: body.logprobs ?? null,
      model: body.model ?? "",
      prompts,
      n,
      echo: body.echo !== true ? null : body.max_tokens === 0 ? "only" : "first",
    },
    stream: body.stream ?? false,
    includeUsage: body.stream_options?.include_usage ?? false,
    ignored: unknownFields(body, COMPLETION_FIELDS),
  };
}

function decodePrompts(prompt: CompletionBody["prompt"]): CompleteRequest["prompts"] {
  if (typeof prompt === "string") return [{ path: "prompt", content: prompt }];
  if (typeof prompt[0] === "number") return [{ path: "prompt", content: prompt as number[] }];
  const list = prompt as readonly (string | number[])[];
  return list.map((content, i) => ({ path: `prompt[${i}]`, content }));
}

// ---- response ----

/** A whole answer as a text_completion object. */
export function encodeTextCompletion(head: AnswerHead, { choices, usage }: ChoicesResult) {
  return {
    ...envelope(head),
    choices: choices.map(({ text, logprobs, reason }, index) => ({
      index,
      text,
      logprobs: encodeLogprobs(logprobs),
      finish_reason: reason,
    })),
    usage: encodeUsage(usage),
  };
}

const envelope = (head: AnswerHead) => ({
  id: head.id,
  object: "text_completion",
  created: head.created,
  model: head.model,
  system_fingerprint: head.fingerprint,
});

/** null when none were asked for. */
function encodeLogprobs(logprobs: readonly ChosenLogprob[]) {
  if (logprobs.length === 0) return null;
  return {
    tokens: logprobs.map(spell),
    token_logprobs: logprobs.map((token) => (isFirst(token) ? null : finiteLogprob(token.logprob))),
    top_logprobs: logprobs.map((chosen) =>
      isFirst(chosen)
        ? null
        : Object.fromEntries(
            [...chosen.top, chosen].map((token) => [spell(token), finiteLogprob(token.logprob)]),
          ),
    ),
    text_offset: logprobs.map(({ offset }) => offset),
  };
}

/** The first token of an echoed prompt has no probability. */
const isFirst = ({ logprob }: TextLogprob): boolean => Number.isNaN(logprob);

/** A token that is part of a character has no text of its own; OpenAI spells its bytes. */
function spell({ text, bytes }: TextLogprob): string {
  if (!text.includes("\uFFFD")) return text;
  return `bytes:${bytes.map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("")}`;
}

export interface PieceOptions {
  readonly includeUsage: boolean;
  readonly numChoices: number;
  /** Choices that share a prompt. */
  readonly perPrompt: number;
}

/** Writes a stream's text_completion objects as JSON text. */
export class PieceEncoder {
  readonly #head: AnswerHead;
  readonly #options: PieceOptions;
  readonly #usages: Usage[] = [];

  constructor(head: AnswerHead, options: PieceOptions) {
    this.#head = head;
    this.#options = options;
  }

  /** The objects of one event, in order. */
  *encode(event: ChoiceEvent): Iterable<string> {
    const { choice: index } = event;
    switch (event.kind) {
      case "text": {
        const logprobs = encodeLogprobs(event.logprobs ?? []);
        yield this.#piece([{ index, text: event.text, logprobs, finish_reason: null }]);
        return;
      }
      case "end": {
        yield this.#piece([{ index, text: "", logprobs: null, finish_reason: event.reason }]);
        this.#usages[index] = event.usage;
        const { includeUsage, numChoices, perPrompt } = this.#options;
        if (!includeUsage || Object.keys(this.#usages).length < numChoices) return;
        yield this.#piece([], encodeUsage(totalUsage(this.#usages, perPrompt)));
        return;
      }
      case "start":
      case "reasoning":
      case "call":
      case "arguments":
      case "callEnd":
      case "run":
      case "progress":
      case "result":
        return;
    }
  }

  #piece(choices: readonly object[], usage: object | null = null): string {
    const part = { ...envelope(this.#head), choices };
    return JSON.stringify(this.#options.includeUsage ? { ...part, usage } : part);
  }
}
