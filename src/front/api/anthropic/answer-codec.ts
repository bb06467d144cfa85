import type { ChatEvent, FinishReason, Usage } from "#core/contract";
import type {
  Block,
  Delta,
  DeltaUsage,
  Ending,
  Message,
  MessageEvent,
  StopReason,
} from "./answers.ts";
import { signThoughts } from "./signature-codec.ts";

/** What all parts of one answer share. */
export interface AnswerHead {
  readonly id: string;
  /** As the client wrote it. */
  readonly model: string;
  readonly marksCache: boolean;
  readonly hidesThoughts: boolean;
}

const NOT_ENDED: Ending = {
  stop_reason: null,
  stop_sequence: null,
  stop_details: null,
  container: null,
};

function stopReason(reason: FinishReason, stop: string | undefined): StopReason {
  switch (reason) {
    case "tool_calls":
      return "tool_use";
    case "length":
      return "max_tokens";
    case "stop":
      return stop === undefined ? "end_turn" : "stop_sequence";
  }
}

/** The open block of an answer. */
type Open =
  | { readonly kind: "text" }
  | { readonly kind: "reasoning"; thoughts: string }
  | { readonly kind: "call" };

/** Writes one answer's events; blocks are numbered in the order in which the model began them. */
export class MessageEncoder {
  readonly #head: AnswerHead;
  /** The prompt's numbers, as told at the start; the end repeats them. */
  #prompt = { tokens: 0, cached: 0 };
  #next = 0;
  #open: Open | undefined;
  /** Blanks that are text only if more text follows. */
  #blanks = "";

  constructor(head: AnswerHead) {
    this.#head = head;
  }

  /** The events that one chat event makes, in order. */
  *encode(event: ChatEvent): Generator<MessageEvent> {
    switch (event.kind) {
      case "start":
        this.#prompt = { tokens: event.promptTokens, cached: event.cachedTokens };
        yield { type: "message_start", message: this.#message() };
        yield { type: "ping" };
        return;
      case "text":
        yield* this.#text(event.text);
        return;
      case "reasoning":
        yield* this.#reasoning(event.text);
        return;
      case "call":
        yield* this.#close();
        yield* this.#begin(
          { kind: "call" },
          {
            type: "tool_use",
            id: event.id,
            caller: { type: "direct" },
            name: event.name,
            input: {},
          },
        );
        return;
      case "arguments":
        yield this.#delta({ type: "input_json_delta", partial_json: event.text });
        return;
      case "callEnd":
        yield* this.#stop();
        return;
      case "run": {
        const { id, name, server } = event;
        const block = { type: "mcp_tool_use", id, name, server_name: server, input: {} } as const;
        yield* this.#close();
        yield* this.#begin({ kind: "call" }, block);
        yield this.#delta({ type: "input_json_delta", partial_json: event.arguments });
        yield* this.#stop();
        return;
      }
      case "progress":
        yield { type: "ping" };
        return;
      case "result": {
        const content = [{ type: "text" as const, text: event.text, citations: null }];
        const block = { type: "mcp_tool_result", tool_use_id: event.id } as const;
        yield* this.#close();
        yield* this.#begin({ kind: "call" }, { ...block, is_error: event.isError, content });
        yield* this.#stop();
        return;
      }
      case "end":
        yield* this.#end(event);
    }
  }

  *#text(text: string): Generator<MessageEvent> {
    if (this.#open?.kind === "text") {
      if (text !== "") yield this.#delta({ type: "text_delta", text });
      return;
    }
    const all = this.#blanks + text;
    this.#blanks = all;
    if (all.trim() === "") return;
    yield* this.#close();
    yield* this.#begin({ kind: "text" }, { type: "text", citations: null, text: "" });
    yield this.#delta({ type: "text_delta", text: all });
  }

  *#reasoning(text: string): Generator<MessageEvent> {
    this.#blanks = "";
    if (this.#open?.kind !== "reasoning") {
      yield* this.#close();
      const open: Open = { kind: "reasoning", thoughts: "" };
      yield* this.#begin(open, { type: "thinking", thinking: "", signature: "" });
    }
    if (this.#open?.kind === "reasoning") this.#open.thoughts += text;
    if (this.#head.hidesThoughts || text === "") return;
    yield this.#delta({ type: "thinking_delta", thinking: text });
  }

  *#end(event: Extract<ChatEvent, { kind: "end" }>): Generator<MessageEvent> {
    // A call that is still open was cut off: without its stop no client takes it for a whole one.
    if (this.#open?.kind !== "call") yield* this.#close();
    if (this.#next === 0) {
      const all = this.#blanks;
      yield* this.#begin({ kind: "text" }, { type: "text", citations: null, text: "" });
      if (all !== "") yield this.#delta({ type: "text_delta", text: all });
      yield* this.#stop();
    }
    yield {
      type: "message_delta",
      delta: {
        ...NOT_ENDED,
        stop_reason: stopReason(event.reason, event.stop),
        stop_sequence: event.reason === "stop" ? (event.stop ?? null) : null,
      },
      usage: this.#usage(event.usage),
    };
    yield { type: "message_stop" };
  }

  *#begin(open: Open, block: Block): Generator<MessageEvent> {
    this.#open = open;
    this.#blanks = "";
    yield { type: "content_block_start", index: this.#next++, content_block: block };
  }

  #delta(delta: Delta): MessageEvent {
    return { type: "content_block_delta", index: this.#next - 1, delta };
  }

  *#close(): Generator<MessageEvent> {
    if (this.#open === undefined) return;
    if (this.#open.kind === "reasoning") {
      const signature = signThoughts(this.#open.thoughts, this.#head.hidesThoughts);
      yield this.#delta({ type: "signature_delta", signature });
    }
    yield* this.#stop();
  }

  *#stop(): Generator<MessageEvent> {
    this.#open = undefined;
    yield { type: "content_block_stop", index: this.#next - 1 };
  }

  #message(): Message {
    const { id, model } = this.#head;
    return {
      id,
      type: "message",
      role: "assistant",
      model,
      content: [],
      ...NOT_ENDED,
      diagnostics: null,
      usage: {
        ...this.#usage(undefined),
        cache_creation: {
          ephemeral_5m_input_tokens: this.#created,
          ephemeral_1h_input_tokens: 0,
        },
        inference_geo: null,
        service_tier: "standard",
        speed: null,
      },
    };
  }

  /** Everything that is computed stays in the cache; a client that marks nothing takes it for plain input. */
  get #created(): number {
    return this.#head.marksCache ? this.#prompt.tokens - this.#prompt.cached : 0;
  }

  /** The three input counts add up to the prompt. */
  #usage(end: Usage | undefined): DeltaUsage {
    const { tokens, cached } = this.#prompt;
    return {
      input_tokens: tokens - cached - this.#created,
      cache_creation_input_tokens: this.#created,
      cache_read_input_tokens: cached,
      output_tokens: end?.completionTokens ?? 0,
      output_tokens_details: { thinking_tokens: end?.reasoningTokens ?? 0 },
      server_tool_use: null,
    };
  }
}

function parseInput(json: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(json || "{}");
    return typeof value === "object" && value !== null ? { ...value } : {};
  } catch {
    return {}; // a call that could not be run, as its result says
  }
}

/** Folds a streamed answer's events into the whole answer. A call that was cut off is no part of it. */
export class MessageFold {
  #message: Message | undefined;
  readonly #blocks = new Map<number, { block: Block; json: string; isWhole: boolean }>();

  add(event: MessageEvent): void {
    switch (event.type) {
      case "message_start":
        this.#message = event.message;
        return;
      case "content_block_start":
        this.#blocks.set(event.index, { block: event.content_block, json: "", isWhole: false });
        return;
      case "content_block_delta":
        this.#apply(event.index, event.delta);
        return;
      case "content_block_stop": {
        const open = this.#blocks.get(event.index);
        if (open === undefined) return;
        open.isWhole = true;
        if ("input" in open.block) open.block.input = parseInput(open.json);
        return;
      }
      case "message_delta":
        if (this.#message === undefined) return;
        Object.assign(this.#message, event.delta);
        Object.assign(this.#message.usage, event.usage);
        return;
      case "ping":
      case "message_stop":
        return;
    }
  }

  #apply(index: number, delta: Delta): void {
    const open = this.#blocks.get(index);
    if (open === undefined) return;
    const { block } = open;
    if (delta.type === "input_json_delta") open.json += delta.partial_json;
    else if (block.type === "text" && delta.type === "text_delta") block.text += delta.text;
    else if (block.type === "thinking" && delta.type === "thinking_delta") {
      block.thinking += delta.thinking;
    } else if (block.type === "thinking" && delta.type === "signature_delta") {
      block.signature += delta.signature;
    }
  }

  get message(): Message | undefined {
    if (this.#message === undefined) return undefined;
    const blocks = [...this.#blocks.values()];
    const content = blocks.flatMap(({ block, isWhole }) => (isWhole ? [block] : []));
    if (content.length === 0) content.push({ type: "text", citations: null, text: "" });
    return { ...this.#message, content };
  }
}
