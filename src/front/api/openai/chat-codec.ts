import {
  CHAT_DEFAULTS,
  type ChatEvent,
  type ChatRequest,
  type ChosenLogprob,
  type FinishReason,
  invalidRequest,
  type Message,
  type Part,
  type Role,
  type TextLogprob,
  type Thinking,
  type Tool,
  type ToolCall,
  type Usage,
} from "#core/contract";
import {
  type ChatResult,
  type ChoiceEvent,
  type ChoicesResult,
  type ToolRun,
  totalUsage,
} from "#front/service";
import { decodeWishes } from "../mcp/wishes.ts";
import { decodeTools } from "./chat-tools-codec.ts";
import { decodeFormat } from "./format-codec.ts";
import type { AnswerHead } from "./head.ts";
import {
  decodeOptions,
  encodeUsage,
  finiteLogprob,
  neutral,
  refuseUnserved,
  unknownFields,
} from "./options-codec.ts";
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
  /** How many answers to it. */
  readonly n: number;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  /** Calls are answered as the one "function_call" of old clients. */
  readonly isLegacy: boolean;
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

/**
 * @param mcpTools tools that the server may add
 * @throws {OmlxError} invalid_request with `param`
 */
export function decodeChat(
  body: ChatBody,
  mcpTools: readonly Pick<Tool, "name">[] = [],
): DecodedChat {
  refuseUnserved(body, UNSERVED);
  const ignored = unknownFields(body, CHAT_FIELDS);
  const messages = body.messages.map((message, i) =>
    decodeMessage(message, `messages[${i}]`, ignored),
  );
  checkPartial(body);
  const { isLegacy, ...tools } = decodeTools(body, ignored, mcpTools);
  const request: ChatRequest = {
    ...CHAT_DEFAULTS,
    model: body.model ?? "",
    messages,
    ...tools,
    ...(body.tool_parser === "none" ? { rawCalls: true } : {}),
    format: decodeFormat(body),
    thinking: decodeThinking(body),
    mcp: decodeWishes(body.mcp),
    templateKwargs: body.chat_template_kwargs ?? {},
    ...decodeOptions(body),
    maxTokens: body.max_completion_tokens ?? body.max_tokens ?? undefined,
    topLogprobs: decodeTopLogprobs(body),
  };
  return {
    request,
    n: body.n ?? 1,
    stream: body.stream ?? false,
    includeUsage: body.stream_options?.include_usage ?? false,
    isLegacy,
    ignored,
  };
}

/** An assistant message at the end is continued in any case. */
function checkPartial({ messages }: ChatBody): void {
  const at = messages.findIndex(
    ({ partial, role }, i) => partial === true && (role !== "assistant" || i < messages.length - 1),
  );
  if (at < 0) return;
  const path = `messages[${at}].partial`;
  throw invalidRequest("Only an assistant message at the end can be continued", path);
}

function decodeTopLogprobs({ logprobs, top_logprobs }: ChatBody): number | null {
  if (logprobs === true) return top_logprobs ?? 0;
  if (!top_logprobs) return null;
  throw invalidRequest('"top_logprobs" needs "logprobs": true', "top_logprobs");
}

/** A field that is not served, and the values of it that ask for nothing. */
const UNSERVED: Readonly<Record<string, (value: unknown) => boolean>> = {
  modalities: (value) =>
    neutral()(value) || (Array.isArray(value) && value.every((item) => item === "text")),
  audio: neutral(),
  web_search_options: neutral(),
  moderation: neutral(),
};

function decodeThinking(body: ChatBody): Thinking {
  const fromTemplate = body.chat_template_kwargs?.["enable_thinking"];
  return {
    enabled: body.enable_thinking ?? (typeof fromTemplate === "boolean" ? fromTemplate : undefined),
    effort: body.reasoning_effort ?? undefined,
    budget: body.thinking_budget ?? undefined,
  };
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

// ---- response ----

const FINISH: Readonly<Record<FinishReason, string>> = {
  stop: "stop",
  length: "length",
  tool_calls: "tool_calls",
};

const finishOf = (reason: FinishReason, isLegacy: boolean): string =>
  reason === "tool_calls" && isLegacy ? "function_call" : FINISH[reason];

function encodeCalls(calls: readonly ToolCall[], isLegacy: boolean) {
  const [first] = calls;
  if (first === undefined) return {};
  const encode = ({ name, arguments: text }: ToolCall) => ({ name, arguments: text });
  if (isLegacy) return { function_call: encode(first) };
  return {
    tool_calls: calls.map((call) => ({
      id: call.id,
      type: "function",
      function: encode(call),
    })),
  };
}

/**
 * A whole answer as a chat.completion object.
 *
 * @param isLegacy calls are written as the one "function_call" of old clients
 */
export function encodeCompletion(
  head: AnswerHead,
  { choices, usage }: ChoicesResult,
  isLegacy = false,
) {
  return {
    id: head.id,
    object: "chat.completion",
    created: head.created,
    model: head.model,
    choices: choices.map((result, index) => encodeChoice(result, index, isLegacy)),
    usage: encodeUsage(usage),
    system_fingerprint: head.fingerprint,
  };
}

function encodeChoice(result: ChatResult, index: number, isLegacy: boolean) {
  return {
    index,
    message: {
      role: "assistant",
      content: result.text === "" && result.calls.length > 0 ? null : result.text,
      refusal: null,
      annotations: [],
      ...(result.reasoning === "" ? {} : { reasoning_content: result.reasoning }),
      ...(result.runs.length === 0 ? {} : { mcp_calls: result.runs.map(encodeRun) }),
      ...encodeCalls(result.calls, isLegacy),
    },
    logprobs: encodeLogprobs(result.logprobs),
    finish_reason: finishOf(result.reason, isLegacy),
  };
}

/** A call that the server ran itself; OpenAI's chat has no place for it, so it has a field of its own. */
const encodeRun = (run: ToolRun) => ({
  id: run.id,
  server: run.server,
  name: run.name,
  arguments: run.arguments,
  output: run.output,
  is_error: run.isError,
});

/** null when none were asked for. */
function encodeLogprobs(logprobs: readonly ChosenLogprob[]) {
  if (logprobs.length === 0) return null;
  const encode = ({ text, bytes, logprob }: TextLogprob) => ({
    token: text,
    logprob: finiteLogprob(logprob),
    bytes,
  });
  const content = logprobs.map((chosen) => ({
    ...encode(chosen),
    top_logprobs: chosen.top.map(encode),
  }));
  return { content, refusal: null };
}

export interface ChunkOptions {
  readonly includeUsage: boolean;
  /** How many choices there are. */
  readonly n: number;
  /** Calls are written as the one "function_call" of old clients. */
  readonly isLegacy?: boolean;
}

/** Writes chat.completion.chunk objects as JSON text; what never changes is encoded once. */
export class ChunkEncoder {
  readonly #open: string;
  readonly #tail: string;
  readonly #options: ChunkOptions;
  readonly #usages: Usage[] = [];
  /** Ids of the calls that the server ran, in the order of their numbers. */
  readonly #runs: string[] = [];

  constructor(head: AnswerHead, options: ChunkOptions) {
    const fixed = JSON.stringify({
      id: head.id,
      object: "chat.completion.chunk",
      created: head.created,
      model: head.model,
      system_fingerprint: head.fingerprint,
    });
    this.#open = `${fixed.slice(0, -1)},"choices":[`;
    this.#tail = options.includeUsage ? '],"usage":null}' : "]}";
    this.#options = options;
  }

  #chunk(index: number, delta: string, finish = "null", logprobs = "null"): string {
    const choice = `{"index":${index},"delta":${delta},"logprobs":${logprobs},"finish_reason":${finish}}`;
    return this.#open + choice + this.#tail;
  }

  get #isLegacy(): boolean {
    return this.#options.isLegacy === true;
  }

  #call({ index, id, name }: Extract<ChatEvent, { kind: "call" }>): string {
    const called = { name, arguments: "" };
    if (this.#isLegacy) return JSON.stringify({ function_call: called });
    return JSON.stringify({ tool_calls: [{ index, id, type: "function", function: called }] });
  }

  #arguments({ index, text }: Extract<ChatEvent, { kind: "arguments" }>): string {
    const more = { arguments: text };
    if (this.#isLegacy) return JSON.stringify({ function_call: more });
    return JSON.stringify({ tool_calls: [{ index, function: more }] });
  }

  /** The first chunk of every choice; they need nothing from the engine. */
  start(): string[] {
    return Array.from({ length: this.#options.n }, (_, index) =>
      this.#chunk(index, '{"role":"assistant","content":"","refusal":null}'),
    );
  }

  /** The chunks of one event, in order. */
  *encode(event: ChoiceEvent): Iterable<string> {
    const { choice } = event;
    switch (event.kind) {
      case "start":
        return;
      case "text": {
        const logprobs = JSON.stringify(encodeLogprobs(event.logprobs ?? []));
        const delta = `{"content":${JSON.stringify(event.text)}}`;
        yield this.#chunk(choice, delta, "null", logprobs);
        return;
      }
      case "reasoning":
        yield this.#chunk(choice, `{"reasoning_content":${JSON.stringify(event.text)}}`);
        return;
      case "call":
        yield this.#chunk(choice, this.#call(event));
        return;
      case "arguments":
        yield this.#chunk(choice, this.#arguments(event));
        return;
      case "callEnd":
        return;
      case "run": {
        const { id, server, name } = event;
        const begun = { id, server, name, arguments: event.arguments, status: "in_progress" };
        yield this.#runChunk(choice, id, begun);
        return;
      }
      case "progress":
        yield this.#runChunk(choice, event.id, { id: event.id, progress: event.message });
        return;
      case "result": {
        const { id, text, isError } = event;
        const status = isError ? "failed" : "completed";
        yield this.#runChunk(choice, id, { id, output: text, is_error: isError, status });
        return;
      }
      case "end":
        yield this.#chunk(choice, "{}", JSON.stringify(finishOf(event.reason, this.#isLegacy)));
        this.#usages[choice] = event.usage;
        yield* this.#usage();
    }
  }

  #runChunk(choice: number, id: string, fields: object): string {
    let index = this.#runs.indexOf(id);
    if (index === -1) index = this.#runs.push(id) - 1;
    return this.#chunk(choice, JSON.stringify({ mcp_calls: [{ index, ...fields }] }));
  }

  /** After the last choice's end. */
  *#usage(): Iterable<string> {
    const { includeUsage, n } = this.#options;
    if (!includeUsage || Object.keys(this.#usages).length < n) return;
    yield `${this.#open}],"usage":${JSON.stringify(encodeUsage(totalUsage(this.#usages, n)))}}`;
  }
}
