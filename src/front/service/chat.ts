import type {
  ChatEvent,
  ChatRequest,
  ChosenLogprob,
  FinishReason,
  TokenRequest,
  ToolCall,
  Usage,
} from "#core/contract";
import { OmlxError } from "#core/contract";
import type { Lease, Pool } from "#front/pool";

/**
 * Answers a conversation. The last event is always "end"; errors are thrown.
 *
 * Leaving the loop early, or aborting `signal`, cancels the work in the engine and returns the lease.
 *
 * @throws {OmlxError} model_not_found, invalid_request, context_length, overloaded, model_load, engine_dead, cancelled …
 */
export async function* streamChat(
  pool: Pool,
  request: ChatRequest,
  signal: AbortSignal,
): AsyncGenerator<ChatEvent> {
  using lease = await pool.lease(request.model, signal); // which model; wakes it if it sleeps
  const { text, engine } = lease;
  const prompt = await text.encode(request, engine.info); // words → token ids
  const reader = text.reader(request, prompt); // token ids → words
  yield* continuePrompt(lease, request.model, { prompt, reader }, signal);
}

/** A prompt that is continued, and who reads what comes. */
export interface Continuation {
  readonly prompt: TokenRequest;
  readonly reader: ReturnType<Lease["text"]["reader"]>;
}

/**
 * Generates until the engine or the reader ends; leaving early or aborting `signal` cancels the work.
 *
 * @param model the model's name as the client wrote it
 */
export async function* continuePrompt(
  lease: Lease,
  model: string,
  { prompt, reader }: Continuation,
  signal: AbortSignal,
): AsyncGenerator<ChatEvent> {
  for await (const token of lease.engine.generate(prompt, signal)) {
    for (const event of reader.read(token)) yield withNotes(event, lease, model);
    if (reader.stopped) break; // a stop string was met: leaving the loop cancels the request
  }
  yield* reader.end();
}

/** The first event also tells when another model answers than the one that was asked for. */
function withNotes(event: ChatEvent, lease: Lease, model: string): ChatEvent {
  if (event.kind !== "start" || !lease.isStandIn) return event;
  const note = `model ${JSON.stringify(model.slice(0, 80))} is not here, "${lease.entry.id}" answers`;
  return { ...event, warnings: [note, ...event.warnings] };
}

/** A call that this server ran itself on the way to an answer. */
export interface ToolRun {
  readonly id: string;
  readonly server: string;
  readonly name: string;
  readonly arguments: string;
  /** null: it has no result yet. */
  readonly output: string | null;
  readonly isError: boolean;
}

/** A whole answer. */
export interface ChatResult {
  readonly text: string;
  readonly reasoning: string;
  /** Complete calls only. */
  readonly calls: readonly ToolCall[];
  /** Of the text's tokens; empty when nobody asked. */
  readonly logprobs: readonly ChosenLogprob[];
  /** In the order in which they began. */
  readonly runs: readonly ToolRun[];
  readonly reason: FinishReason;
  /** The stop string that ended the text, if one did. */
  readonly stop: string | undefined;
  readonly usage: Usage;
}

/** Folds the events of one conversation into its whole answer. */
export async function collect(events: AsyncIterable<ChatEvent>): Promise<ChatResult> {
  const fold = new AnswerFold();
  for await (const event of events) fold.add(event);
  return fold.result();
}

/** One answer on its way to being whole. */
export class AnswerFold {
  readonly #text: string[] = [];
  readonly #reasoning: string[] = [];
  readonly #logprobs: ChosenLogprob[] = [];
  readonly #runs = new Map<string, ToolRun>();
  readonly #open = new Map<number, { id: string; name: string; arguments: string }>();
  readonly #calls: ToolCall[] = [];
  #end: Extract<ChatEvent, { kind: "end" }> | undefined;

  add(event: ChatEvent): void {
    switch (event.kind) {
      case "start":
        break;
      case "call":
        this.#open.set(event.index, { id: event.id, name: event.name, arguments: "" });
        break;
      case "arguments": {
        const call = this.#open.get(event.index);
        if (call !== undefined) call.arguments += event.text;
        break;
      }
      case "callEnd": {
        const call = this.#open.get(event.index);
        if (call !== undefined) this.#calls.push(call);
        break;
      }
      case "text":
        this.#text.push(event.text);
        this.#logprobs.push(...(event.logprobs ?? []));
        break;
      case "reasoning":
        this.#reasoning.push(event.text);
        break;
      case "run": {
        const { kind: _, ...run } = event;
        this.#runs.set(run.id, { ...run, output: null, isError: false });
        break;
      }
      case "progress":
        break;
      case "result": {
        const run = this.#runs.get(event.id);
        if (run) this.#runs.set(run.id, { ...run, output: event.text, isError: event.isError });
        break;
      }
      case "end":
        this.#end = event;
    }
  }

  /** @throws {OmlxError} internal: the last event is missing */
  result(): ChatResult {
    if (this.#end === undefined) {
      throw new OmlxError({
        code: "internal",
        message: "Cannot finish the answer: the events ended without their end",
      });
    }
    return {
      text: this.#text.join(""),
      reasoning: this.#reasoning.join(""),
      calls: this.#calls,
      logprobs: this.#logprobs,
      runs: [...this.#runs.values()],
      reason: this.#end.reason,
      stop: this.#end.stop,
      usage: this.#end.usage,
    };
  }
}
