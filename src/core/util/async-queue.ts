/**
 * A queue between a pusher that never waits and one async reader.
 *
 * Leaving the reader's loop early (break, return, throw) calls `onLeave` once, so that the producer can be cancelled.
 */
export class AsyncQueue<T> implements AsyncIterable<T> {
  readonly #items: T[] = [];
  readonly #onLeave: () => void;
  #wake: (() => void) | undefined;
  #ended = false;
  #error: unknown;
  #left = false;

  constructor(onLeave: () => void = () => {}) {
    this.#onLeave = onLeave;
  }

  push(item: T): void {
    if (this.#ended || this.#left) return;
    this.#items.push(item);
    this.#wake?.();
  }

  /** The reader gets what was pushed so far, then the end. */
  end(): void {
    this.#ended = true;
    this.#wake?.();
  }

  /** The reader gets what was pushed so far, then the error. */
  fail(error: unknown): void {
    if (this.#ended) return;
    this.#error = error;
    this.end();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    try {
      for (;;) {
        while (this.#items.length > 0) yield this.#items.shift() as T;
        if (this.#error !== undefined) throw this.#error;
        if (this.#ended) return;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        this.#wake = undefined;
      }
    } finally {
      this.#left = true;
      if (!this.#ended) this.#onLeave();
    }
  }
}
