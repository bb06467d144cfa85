import type { ChatEvent, ChatRequest, FinishReason, Usage } from "#core/contract";
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
  for await (const token of engine.generate(prompt, signal)) {
    for (const event of reader.read(token)) yield withNotes(event, lease, request);
    if (reader.stopped) break; // a stop string was met: leaving the loop cancels the request
  }
  yield* reader.end();
}

/** The first event also tells when another model answers than the one that was asked for. */
function withNotes(event: ChatEvent, lease: Lease, { model }: ChatRequest): ChatEvent {
  if (event.kind !== "start" || !lease.isStandIn) return event;
  const note = `model ${JSON.stringify(model.slice(0, 80))} is not here, "${lease.entry.id}" answers`;
  return { ...event, warnings: [note, ...event.warnings] };
}

/** A whole answer. */
export interface ChatResult {
  readonly text: string;
  readonly reasoning: string;
  readonly reason: FinishReason;
  /** The stop string that ended the text, if one did. */
  readonly stop: string | undefined;
  readonly usage: Usage;
}

/** Folds the events of one conversation into its whole answer. */
export async function collect(events: AsyncIterable<ChatEvent>): Promise<ChatResult> {
  const text: string[] = [];
  const reasoning: string[] = [];
  for await (const event of events) {
    switch (event.kind) {
      case "start":
      case "call":
      case "arguments":
      case "callEnd":
        break;
      case "text":
        text.push(event.text);
        break;
      case "reasoning":
        reasoning.push(event.text);
        break;
      case "end":
        return {
          text: text.join(""),
          reasoning: reasoning.join(""),
          reason: event.reason,
          stop: event.stop,
          usage: event.usage,
        };
    }
  }
  throw new OmlxError({
    code: "internal",
    message: "Cannot finish the answer: the events ended without their end",
  });
}
