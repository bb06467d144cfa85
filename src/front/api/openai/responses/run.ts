import type { ChatEvent } from "#core/contract";
import { toApiError } from "../../error-handler.ts";
import type { ResponseWriter, StreamEvent } from "./output-codec.ts";

/** Numbers events and writes them as SSE text. */
export class EventNumbers {
  #next = 0;

  frame(event: StreamEvent): string {
    const data = JSON.stringify({ ...event, sequence_number: this.#next++ });
    return `event: ${event.type}\ndata: ${data}\n\n`;
  }
}

/** What response.failed tells of an error. */
export function failureOf(error: {
  readonly status: number;
  code: string | null;
  message: string;
}) {
  const fallback = error.status >= 500 ? "server_error" : "invalid_prompt";
  return { code: error.code ?? fallback, message: error.message };
}

/** A response that is made in the background, whoever listens: its events so far, and those to come. */
export class BackgroundRun {
  readonly writer: ResponseWriter;
  readonly #frames: string[] = [];
  readonly #numbers = new EventNumbers();
  readonly #abort: () => void;
  #changed = Promise.withResolvers<void>();
  #isDone = false;

  /** @param abort ends the work */
  constructor(writer: ResponseWriter, abort: () => void) {
    this.writer = writer;
    this.#abort = abort;
    for (const event of writer.start()) this.#push(event);
  }

  /** Reads the answer to its end; never rejects. */
  async pump(events: AsyncIterable<ChatEvent>): Promise<void> {
    try {
      for await (const event of events) {
        if (this.#isDone) return;
        for (const written of this.writer.write(event)) this.#push(written);
      }
    } catch (error) {
      if (!this.#isDone) this.#push(this.writer.fail(failureOf(toApiError(error))));
    }
    this.#end();
  }

  cancel(): void {
    if (this.#isDone) return;
    this.writer.cancel();
    this.#end();
  }

  /** The events after a number, as SSE text, until there are no more. */
  async *follow(after: number): AsyncGenerator<string> {
    for (let i = after + 1; ; i++) {
      while (i >= this.#frames.length) {
        if (this.#isDone) return;
        await this.#changed.promise;
      }
      yield this.#frames[i] as string;
    }
  }

  #push(event: StreamEvent): void {
    this.#frames.push(this.#numbers.frame(event));
    this.#wake();
  }

  #end(): void {
    this.#isDone = true;
    this.#abort();
    this.#wake();
  }

  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }
}
