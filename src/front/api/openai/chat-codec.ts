import {
  CHAT_DEFAULTS,
  type ChatEvent,
  type ChatRequest,
  type FinishReason,
  invalidRequest,
  type Message,
  type Part,
  type Role,
  type SamplingParams,
  type ToolCall,
  type Usage,
} from "#core/contract";
import type { ChatResult } from "#front/service";
import {
  CHAT_FIELDS,
  type ChatBody,
  MESSAGE_FIELDS,
  type WireMessage,
  type WirePart,
} from "./schemas.ts";

// ---- request ----

/** A request in our words, and what of it was left aside. */
export interface DecodedChat {
  readonly request: ChatRequest;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  /** Paths of fields that were not understood. */
  readonly ignored: readonly string[];
}

const ROLES: Readonly<Record<WireMessage["role"], Role>> = {
  system: "system",
  developer: "system",
  user: "user",
  assistant: "assistant",
  tool: "tool",
  function: "tool",
};

/** @throws {OmlxError} invalid_request with `param` */
export function decodeChat(body: ChatBody): DecodedChat {
  refuseUnserved(body);
  const ignored = Object.keys(body).filter((key) => !CHAT_FIELDS.has(key));
  const messages = body.messages.map((message, i) =>
    decodeMessage(message, `messages[${i}]`, ignored),
  );
  const templateKwargs: Record<string, unknown> = { ...body.chat_template_kwargs };
  if (body.reasoning_effort != null) templateKwargs["reasoning_effort"] ??= body.reasoning_effort;
  const request: ChatRequest = {
    ...CHAT_DEFAULTS,
    model: body.model ?? "",
    messages,
    templateKwargs,
    sampling: decodeSampling(body),
    maxTokens: body.max_completion_tokens ?? body.max_tokens ?? undefined,
    minTokens: body.min_tokens ?? 0,
    ignoreEos: body.ignore_eos ?? false,
    stop: decodeStop(body.stop),
    lane: body.service_tier === "flex" ? "background" : "interactive",
  };
  return {
    request,
    stream: body.stream ?? false,
    includeUsage: body.stream_options?.include_usage ?? false,
    ignored,
  };
}

const isNothing = (value: unknown): boolean =>
  value == null || value === false || (Array.isArray(value) && value.length === 0);
const oneOf =
  (...values: unknown[]) =>
  (value: unknown): boolean =>
    value == null || values.includes(value);

/** A field that is not served, and the values of it that ask for nothing. */
const UNSERVED: Readonly<Record<string, (value: unknown, body: ChatBody) => boolean>> = {
  n: oneOf(1),
  tools: (value, body) => isNothing(value) || body.tool_choice === "none",
  tool_choice: oneOf("none", "auto"),
  functions: (value, body) => isNothing(value) || body.function_call === "none",
  function_call: oneOf("none", "auto"),
  response_format: (value) =>
    value == null || (typeof value === "object" && "type" in value && value.type === "text"),
  structured_outputs: isNothing,
  guided_json: isNothing,
  guided_regex: isNothing,
  guided_choice: isNothing,
  guided_grammar: isNothing,
  logprobs: isNothing,
  top_logprobs: oneOf(0),
  modalities: (value) =>
    isNothing(value) || (Array.isArray(value) && value.every((item) => item === "text")),
  audio: isNothing,
  web_search_options: isNothing,
};

function refuseUnserved(body: ChatBody): void {
  for (const [field, isNeutral] of Object.entries(UNSERVED)) {
    if (isNeutral(body[field], body)) continue;
    throw invalidRequest(
      field === "n"
        ? 'Only one choice per request is served: "n" must be 1'
        : `"${field}" is not served`,
      field,
    );
  }
}

function decodeMessage(wire: WireMessage, path: string, ignored: string[]): Message {
  for (const key of Object.keys(wire)) if (!MESSAGE_FIELDS.has(key)) ignored.push(`${path}.${key}`);
  const parts = decodeContent(wire.content, `${path}.content`, ignored);
  if (wire.refusal) parts.push({ kind: "text", text: wire.refusal });
  const toolCalls = decodeToolCalls(wire);
  return {
    role: ROLES[wire.role],
    parts,
    name: wire.name ?? undefined,
    reasoning: wire.reasoning_content ?? wire.reasoning ?? undefined,
    toolCalls: toolCalls.length > 0 ? toolCalls : undefined,
    toolCallId: wire.tool_call_id ?? undefined,
  };
}

function decodeContent(content: WireMessage["content"], path: string, ignored: string[]): Part[] {
  if (content == null || content === "") return [];
  if (typeof content === "string") return [{ kind: "text", text: content }];
  return content.flatMap((part, i) => decodePart(part, `${path}[${i}]`, ignored));
}

const MEDIA = /image|audio|video|file|document/;

function decodePart(part: WirePart, path: string, ignored: string[]): Part[] {
  const isRefusal = part.type === "refusal";
  const text = isRefusal ? part["refusal"] : part["text"];
  if (["text", "input_text", "output_text", "refusal"].includes(part.type)) {
    if (typeof text === "string") return [{ kind: "text", text }];
    const field = `${path}.${isRefusal ? "refusal" : "text"}`;
    throw invalidRequest(`Invalid value for "${field}": expected a string`, field);
  }
  if (MEDIA.test(part.type)) {
    throw invalidRequest(`Cannot use "${path}": this model reads text only`, path);
  }
  // A kind of part from the future: its text is kept, the rest is named in the warning.
  ignored.push(path);
  return typeof text === "string" ? [{ kind: "text", text }] : [];
}

const argumentText = (value: unknown): string =>
  typeof value === "string" ? value : value == null ? "" : JSON.stringify(value);

function decodeToolCalls(wire: WireMessage): ToolCall[] {
  const calls = (wire.tool_calls ?? []).flatMap((call): ToolCall[] => {
    const id = call.id ?? "";
    if (call.function) {
      const { name } = call.function;
      return [{ id, name, arguments: argumentText(call.function.arguments) }];
    }
    if (!call.custom) return [];
    return [{ id, name: call.custom.name, arguments: JSON.stringify(call.custom.input ?? "") }];
  });
  if (wire.function_call) {
    const { name } = wire.function_call;
    calls.push({ id: "", name, arguments: argumentText(wire.function_call.arguments) });
  }
  return calls;
}

type SamplingFields = Partial<
  Pick<
    ChatBody,
    | "temperature"
    | "top_p"
    | "top_k"
    | "min_p"
    | "repetition_penalty"
    | "presence_penalty"
    | "frequency_penalty"
    | "logit_bias"
    | "seed"
  >
>;

/** Sampling as the OpenAI routes name it. */
export function decodeSampling(body: SamplingFields): Partial<SamplingParams> {
  const sampling: { -readonly [K in keyof SamplingParams]?: SamplingParams[K] } = {};
  if (body.temperature != null) sampling.temperature = body.temperature;
  // A nucleus of mass 0 still holds the most probable token.
  if (body.top_p != null) sampling.topP = Math.max(body.top_p, Number.EPSILON);
  if (body.top_k != null) sampling.topK = Math.max(body.top_k, 0);
  if (body.min_p != null) sampling.minP = body.min_p;
  if (body.repetition_penalty != null) sampling.repetitionPenalty = body.repetition_penalty;
  if (body.presence_penalty != null) sampling.presencePenalty = body.presence_penalty;
  if (body.frequency_penalty != null) sampling.frequencyPenalty = body.frequency_penalty;
  if (body.logit_bias != null) {
    sampling.logitBias = Object.entries(body.logit_bias).map(([id, bias]) => [Number(id), bias]);
  }
  if (body.seed != null) sampling.seed = body.seed;
  return sampling;
}

function decodeStop(stop: ChatBody["stop"]): string[] {
  if (stop == null) return [];
  return [...new Set(typeof stop === "string" ? [stop] : stop)].filter((text) => text !== "");
}

// ---- response ----

/** What all parts of one answer share. */
export interface AnswerHead {
  readonly id: string;
  /** Seconds since 1970. */
  readonly created: number;
  /** As the client wrote it. */
  readonly model: string;
  readonly fingerprint: string;
}

const FINISH: Readonly<Record<FinishReason, string>> = {
  stop: "stop",
  length: "length",
  tool_calls: "tool_calls",
};

function encodeUsage(usage: Usage) {
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

/** A whole answer as a chat.completion object. */
export function encodeCompletion(head: AnswerHead, result: ChatResult) {
  return {
    id: head.id,
    object: "chat.completion",
    created: head.created,
    model: head.model,
    choices: [
      {
        index: 0,
        message: {
          role: "assistant",
          content: result.text,
          refusal: null,
          annotations: [],
          ...(result.reasoning === "" ? {} : { reasoning_content: result.reasoning }),
        },
        logprobs: null,
        finish_reason: FINISH[result.reason],
      },
    ],
    usage: encodeUsage(result.usage),
    system_fingerprint: head.fingerprint,
  };
}

/** Writes chat.completion.chunk objects as JSON text; what never changes is encoded once. */
export class ChunkEncoder {
  readonly #open: string;
  readonly #tail: string;
  readonly #includeUsage: boolean;

  constructor(head: AnswerHead, includeUsage: boolean) {
    const fixed = JSON.stringify({
      id: head.id,
      object: "chat.completion.chunk",
      created: head.created,
      model: head.model,
      system_fingerprint: head.fingerprint,
    });
    this.#open = `${fixed.slice(0, -1)},"choices":[`;
    this.#tail = includeUsage ? '],"usage":null}' : "]}";
    this.#includeUsage = includeUsage;
  }

  #chunk(delta: string, finish = "null"): string {
    const choice = `{"index":0,"delta":${delta},"logprobs":null,"finish_reason":${finish}}`;
    return this.#open + choice + this.#tail;
  }

  /** The first chunk; it needs nothing from the engine. */
  start(): string {
    return this.#chunk('{"role":"assistant","content":"","refusal":null}');
  }

  /** The chunks of one event, in order. */
  *encode(event: ChatEvent): Iterable<string> {
    switch (event.kind) {
      case "start":
        return;
      case "text":
        yield this.#chunk(`{"content":${JSON.stringify(event.text)}}`);
        return;
      case "reasoning":
        yield this.#chunk(`{"reasoning_content":${JSON.stringify(event.text)}}`);
        return;
      case "call":
      case "arguments":
      case "callEnd":
        return;
      case "end":
        yield this.#chunk("{}", JSON.stringify(FINISH[event.reason]));
        if (this.#includeUsage) {
          yield `${this.#open}],"usage":${JSON.stringify(encodeUsage(event.usage))}}`;
        }
    }
  }
}
