import type { ChatEvent, ChosenLogprob, TextLogprob, Usage } from "#core/contract";
import { finiteLogprob } from "../options-codec.ts";
import { FreeformReader } from "./freeform-codec.ts";
import { sealReasoning } from "./reasoning-codec.ts";
import type { ResponsesBody } from "./schemas.ts";
import { FREEFORM_ARGUMENT, type WireCall } from "./tools-codec.ts";

/** One event of a response's stream, without its number. */
export interface StreamEvent {
  readonly type: string;
  readonly [field: string]: unknown;
}

export type OutputItem = Record<string, unknown> & { readonly type: string; readonly id: string };

/** What all states of one response share. */
export interface ResponseHead {
  readonly id: string;
  /** Seconds since 1970. */
  readonly createdAt: number;
  /** As the client wrote it. */
  readonly model: string;
}

/** OpenAI's response object. */
export interface ResponseObject {
  readonly id: string;
  readonly status: string;
  readonly output: readonly OutputItem[];
  readonly [field: string]: unknown;
}

type Status = "in_progress" | "queued" | "completed" | "incomplete" | "failed" | "cancelled";

/** An item of the output that is still being written. */
interface Open {
  /** Events of more text. */
  add(text: string, logprobs?: readonly ChosenLogprob[]): Iterable<StreamEvent>;
  /** The last events, and the finished item. */
  close(isComplete: boolean): { events: StreamEvent[]; item: OutputItem };
}

/** Thoughts, and calls that were run here, are on the way to an answer. */
const isNoAnswer = (item: OutputItem): boolean =>
  item.type === "reasoning" || item.type === "mcp_call";

const newId = (prefix: string): string => `${prefix}_${crypto.randomUUID().replaceAll("-", "")}`;

/**
 * Writes the events of one answer as the events of a response, and keeps the response they add up to.
 *
 * Items follow each other: reasoning, message, calls; each is opened, filled and closed before the next one.
 */
export class ResponseWriter {
  readonly #head: ResponseHead;
  readonly #body: ResponsesBody;
  readonly #calls: ReadonlyMap<string, WireCall>;
  readonly #output: OutputItem[] = [];
  #open: { kind: ChatEvent["kind"]; item: Open } | undefined;
  /** Calls that run now, by the model's id of them. */
  readonly #running = new Map<string, { index: number; item: OutputItem }>();
  #status: Status;
  #usage: Usage | null = null;
  #error: unknown = null;
  #reason: string | null = null;
  #completedAt: number | null = null;

  constructor(head: ResponseHead, body: ResponsesBody, calls: ReadonlyMap<string, WireCall>) {
    this.#head = head;
    this.#body = body;
    this.#calls = calls;
    this.#status = body.background ? "queued" : "in_progress";
  }

  /** The first events; they need nothing from the engine. */
  start(): StreamEvent[] {
    const created: StreamEvent = { type: "response.created", response: this.response() };
    this.#status = "in_progress";
    return [created, { type: "response.in_progress", response: this.response() }];
  }

  *write(event: ChatEvent): Generator<StreamEvent> {
    switch (event.kind) {
      case "start":
        return;
      case "reasoning":
        yield* this.#enter("reasoning", (i) => this.#reasoningItem(i));
        yield* this.#add(event.text);
        return;
      case "text":
        if (event.text === "" && this.#open?.kind !== "text") return;
        yield* this.#enter("text", (i) => this.#messageItem(i));
        yield* this.#add(event.text, event.logprobs);
        return;
      case "call":
        yield* this.#leave(true);
        yield* this.#enter("call", (i) => this.#callItem(i, event.id, event.name));
        return;
      case "arguments":
        yield* this.#add(event.text);
        return;
      case "callEnd":
        yield* this.#leave(true);
        return;
      case "run":
        yield* this.#leave(true);
        yield* this.#run(event);
        return;
      case "progress":
        return;
      case "result":
        yield* this.#result(event);
        return;
      case "end": {
        const isComplete = event.reason !== "length";
        if (this.#open?.kind !== "call" && this.#output.every(isNoAnswer)) {
          // clients look for a message, even an empty one
          yield* this.#enter("text", (i) => this.#messageItem(i));
        }
        yield* this.#leave(isComplete);
        this.#usage = event.usage;
        this.#completedAt = isComplete ? Math.floor(Date.now() / 1000) : null;
        this.#status = isComplete ? "completed" : "incomplete";
        this.#reason = isComplete ? null : "max_output_tokens";
        yield { type: `response.${this.#status}`, response: this.response() };
      }
    }
  }

  /** The last event of a response that did not come to its end. */
  fail(error: { readonly code: string; readonly message: string }): StreamEvent {
    this.#status = "failed";
    this.#error = error;
    return { type: "response.failed", response: this.response() };
  }

  /** What was written stays; nothing more comes. */
  cancel(): void {
    this.#status = "cancelled";
  }

  /** The response as it is now. */
  response(): ResponseObject {
    const body = this.#body;
    return {
      id: this.#head.id,
      object: "response",
      created_at: this.#head.createdAt,
      status: this.#status,
      background: body.background ?? false,
      completed_at: this.#completedAt,
      error: this.#error,
      incomplete_details: this.#reason === null ? null : { reason: this.#reason },
      instructions: body.instructions ?? null,
      max_output_tokens: body.max_output_tokens ?? null,
      max_tool_calls: body.max_tool_calls ?? null,
      model: this.#head.model,
      output: [...this.#output],
      parallel_tool_calls: body.parallel_tool_calls ?? true,
      previous_response_id: body.previous_response_id ?? null,
      prompt_cache_key: body.prompt_cache_key ?? null,
      reasoning: {
        effort: body.reasoning?.effort ?? null,
        summary: body.reasoning?.summary ?? null,
      },
      safety_identifier: body.safety_identifier ?? null,
      service_tier: "default",
      store: body.store ?? true,
      temperature: body.temperature ?? null,
      text: { format: body.text?.format ?? { type: "text" }, verbosity: "medium" },
      tool_choice: body.tool_choice ?? "auto",
      tools: body.tools ?? [],
      top_logprobs: body.top_logprobs ?? 0,
      top_p: body.top_p ?? null,
      truncation: "disabled",
      usage: this.#usage === null ? null : encodeUsage(this.#usage),
      user: body.user ?? null,
      metadata: body.metadata ?? {},
    };
  }

  /** A call that this server runs itself; several may run side by side. */
  *#run(event: Extract<ChatEvent, { kind: "run" }>): Generator<StreamEvent> {
    const index = this.#output.length;
    const item = {
      id: newId("mcp"),
      type: "mcp_call",
      status: "in_progress",
      approval_request_id: null,
      server_label: event.server,
      name: event.name,
      arguments: "",
      output: null,
      error: null,
    };
    const place = { item_id: item.id, output_index: index };
    const whole = { ...item, arguments: event.arguments };
    this.#output.push(whole);
    this.#running.set(event.id, { index, item: whole });
    yield added(index, item);
    yield { type: "response.mcp_call.in_progress", ...place };
    yield { type: "response.mcp_call_arguments.delta", ...place, delta: event.arguments };
    yield { type: "response.mcp_call_arguments.done", ...place, arguments: event.arguments };
  }

  *#result(event: Extract<ChatEvent, { kind: "result" }>): Generator<StreamEvent> {
    const running = this.#running.get(event.id);
    if (!running) return;
    this.#running.delete(event.id);
    const { index } = running;
    const state = event.isError ? "failed" : "completed";
    const item = {
      ...running.item,
      status: state,
      output: event.isError ? null : event.text,
      error: event.isError ? event.text : null,
    };
    this.#output[index] = item;
    yield { type: `response.mcp_call.${state}`, item_id: item.id, output_index: index };
    yield { type: "response.output_item.done", output_index: index, item };
  }

  /** Opens an item of this kind, unless one is open. */
  *#enter(
    kind: "reasoning" | "text" | "call",
    make: (index: number) => { item: Open; events: StreamEvent[] },
  ): Generator<StreamEvent> {
    if (this.#open?.kind === kind) return;
    yield* this.#leave(true);
    const { item, events } = make(this.#output.length);
    this.#open = { kind, item };
    yield* events;
  }

  *#add(text: string, logprobs?: readonly ChosenLogprob[]): Generator<StreamEvent> {
    if (this.#open) yield* this.#open.item.add(text, logprobs);
  }

  *#leave(isComplete: boolean): Generator<StreamEvent> {
    if (!this.#open) return;
    const { events, item } = this.#open.item.close(isComplete);
    this.#open = undefined;
    yield* events;
    yield { type: "response.output_item.done", output_index: this.#output.length, item };
    this.#output.push(item);
  }

  #reasoningItem(index: number): { item: Open; events: StreamEvent[] } {
    const id = newId("rs");
    const keeps = this.#body.include?.includes("reasoning.encrypted_content") ?? false;
    const place = { item_id: id, output_index: index, summary_index: 0 };
    let all = "";
    const item = (status: Status, done: boolean): OutputItem => ({
      id,
      type: "reasoning",
      status,
      summary: done ? [{ type: "summary_text", text: all }] : [],
      ...(keeps ? { encrypted_content: done ? sealReasoning(all) : null } : {}),
    });
    return {
      events: [
        added(index, item("in_progress", false)),
        {
          type: "response.reasoning_summary_part.added",
          ...place,
          part: { type: "summary_text", text: "" },
        },
      ],
      item: {
        *add(text) {
          all += text;
          yield { type: "response.reasoning_summary_text.delta", ...place, delta: text };
        },
        close: (isComplete) => ({
          events: [
            { type: "response.reasoning_summary_text.done", ...place, text: all },
            {
              type: "response.reasoning_summary_part.done",
              ...place,
              part: { type: "summary_text", text: all },
            },
          ],
          item: item(isComplete ? "completed" : "incomplete", true),
        }),
      },
    };
  }

  #messageItem(index: number): { item: Open; events: StreamEvent[] } {
    const id = newId("msg");
    const place = { item_id: id, output_index: index, content_index: 0 };
    let all = "";
    const chosen: unknown[] = [];
    const part = () => ({ type: "output_text", text: all, annotations: [], logprobs: [...chosen] });
    const item = (status: Status, content: unknown[]): OutputItem => ({
      id,
      type: "message",
      status,
      role: "assistant",
      content,
    });
    return {
      events: [
        added(index, item("in_progress", [])),
        { type: "response.content_part.added", ...place, part: part() },
      ],
      item: {
        *add(text, logprobs = []) {
          const told = logprobs.map(encodeChosen);
          all += text;
          chosen.push(...told);
          yield { type: "response.output_text.delta", ...place, delta: text, logprobs: told };
        },
        close: (isComplete) => ({
          events: [
            { type: "response.output_text.done", ...place, text: all, logprobs: [...chosen] },
            { type: "response.content_part.done", ...place, part: part() },
          ],
          item: item(isComplete ? "completed" : "incomplete", [part()]),
        }),
      },
    };
  }

  #callItem(index: number, callId: string, name: string): { item: Open; events: StreamEvent[] } {
    const call = this.#calls.get(name) ?? { kind: "function" as const, name };
    switch (call.kind) {
      case "function":
        return functionItem(index, callId, call);
      case "custom":
        return customItem(index, callId, call);
      default:
        return wholeItem(index, callId, call.kind);
    }
  }
}

const added = (index: number, item: OutputItem): StreamEvent => ({
  type: "response.output_item.added",
  output_index: index,
  item,
});

const named = (call: WireCall) => ({
  name: call.name,
  ...(call.namespace === undefined ? {} : { namespace: call.namespace }),
});

function functionItem(index: number, callId: string, call: WireCall) {
  const id = newId("fc");
  const place = { item_id: id, output_index: index };
  let all = "";
  const item = (status: Status): OutputItem => ({
    id,
    type: "function_call",
    status,
    call_id: callId,
    ...named(call),
    arguments: all,
  });
  const open: Open = {
    *add(text) {
      all += text;
      yield { type: "response.function_call_arguments.delta", ...place, delta: text };
    },
    close: (isComplete) => ({
      events: isComplete
        ? [
            {
              type: "response.function_call_arguments.done",
              ...place,
              name: call.name,
              arguments: all,
            },
          ]
        : [],
      item: item(isComplete ? "completed" : "incomplete"),
    }),
  };
  return { events: [added(index, item("in_progress"))], item: open };
}

function customItem(index: number, callId: string, call: WireCall) {
  const id = newId("ctc");
  const place = { item_id: id, output_index: index };
  const reader = new FreeformReader();
  const item = (status: Status): OutputItem => ({
    id,
    type: "custom_tool_call",
    status,
    call_id: callId,
    ...named(call),
    input: reader.text,
  });
  const open: Open = {
    *add(text) {
      const delta = reader.push(text);
      if (delta === "") return;
      yield { type: "response.custom_tool_call_input.delta", ...place, delta };
    },
    close(isComplete) {
      const events: StreamEvent[] = [];
      const rest = reader.end();
      if (rest !== "") {
        events.push({ type: "response.custom_tool_call_input.delta", ...place, delta: rest });
      }
      if (isComplete) {
        events.push({ type: "response.custom_tool_call_input.done", ...place, input: reader.text });
      }
      return { events, item: item(isComplete ? "completed" : "incomplete") };
    },
  };
  return { events: [added(index, item("in_progress"))], item: open };
}

/** Calls whose arguments are an object of their own: told whole, when they are. */
function wholeItem(
  index: number,
  callId: string,
  kind: Exclude<WireCall["kind"], "function" | "custom">,
) {
  const prefixes = { local_shell: "lsh", shell: "sh", apply_patch: "apc", tool_search: "tsc" };
  const id = newId(prefixes[kind]);
  let all = "";
  const item = (status: Status): OutputItem => ({
    id,
    type: `${kind}_call`,
    status,
    call_id: callId,
    ...argumentsOf(kind, all),
  });
  const open: Open = {
    // biome-ignore lint/correctness/useYield: nothing is told before the end
    *add(text) {
      all += text;
    },
    close: (isComplete) => ({
      events: [],
      item: item(isComplete ? "completed" : "incomplete"),
    }),
  };
  return { events: [added(index, item("in_progress"))], item: open };
}

function argumentsOf(kind: string, text: string): Record<string, unknown> {
  const value = parseObject(text);
  switch (kind) {
    case "local_shell":
      return { action: { type: "exec", command: [], env: {}, ...value } };
    case "shell":
      return { action: { commands: [], timeout_ms: null, max_output_length: null, ...value } };
    case "apply_patch":
      return { operation: value };
    default:
      return { execution: "client", arguments: value };
  }
}

function parseObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null
      ? { ...value }
      : { [FREEFORM_ARGUMENT]: value };
  } catch {
    return text === "" ? {} : { [FREEFORM_ARGUMENT]: text };
  }
}

const encodeLogprob = ({ text, logprob, bytes }: TextLogprob) => ({
  token: text,
  logprob: finiteLogprob(logprob),
  bytes,
});
const encodeChosen = (chosen: ChosenLogprob) => ({
  ...encodeLogprob(chosen),
  top_logprobs: chosen.top.map(encodeLogprob),
});

function encodeUsage(usage: Usage) {
  return {
    input_tokens: usage.promptTokens,
    input_tokens_details: {
      cached_tokens: usage.cachedTokens,
      cache_write_tokens: usage.promptTokens - usage.cachedTokens,
    },
    output_tokens: usage.completionTokens,
    output_tokens_details: { reasoning_tokens: usage.reasoningTokens },
    total_tokens: usage.promptTokens + usage.completionTokens,
  };
}
