import type { EncodeRequest } from "#core/contract";

/** One text of an open request. */
export interface QueuedText {
  readonly request: EncodeRequest;
  /** Which text of the request. */
  readonly index: number;
  readonly ids: Int32Array;
  /** Where its second part begins; its length: nowhere. */
  readonly second: number;
}

interface Open {
  readonly request: EncodeRequest;
  /** Texts that wait, the longest last. */
  readonly waiting: QueuedText[];
  /** Texts that are not answered yet. */
  left: number;
}

/**
 * The books of an encoder's requests: what waits, what is under way, what is done. Knows no tensor and no clock.
 *
 * A batch is filled from all requests in equal shares, so that one with ten thousand texts does not hold up one with a
 * single text; the long texts of each go first, so that texts of one batch are about equally long.
 */
export class EncodeQueue {
  readonly #open = new Map<string, Open>();

  get isIdle(): boolean {
    return this.#open.size === 0;
  }

  /** Requests that have texts waiting. */
  get waiting(): number {
    let count = 0;
    for (const open of this.#open.values()) if (open.waiting.length > 0) count++;
    return count;
  }

  get size(): number {
    return this.#open.size;
  }

  submit(request: EncodeRequest): void {
    const { ids, ends, seconds } = request;
    const waiting: QueuedText[] = [];
    let begin = 0;
    ends.forEach((end, index) => {
      const text = ids.subarray(begin, end);
      waiting.push({ request, index, ids: text, second: seconds?.[index] ?? text.length });
      begin = end;
    });
    waiting.sort((a, b) => a.ids.length - b.ids.length);
    this.#open.set(request.id, { request, waiting, left: ends.length });
  }

  /** Forgets a request; false if it is not open. */
  remove(id: string): boolean {
    return this.#open.delete(id);
  }

  isOpen(id: string): boolean {
    return this.#open.has(id);
  }

  /** The next batch: up to maxTokens tokens, but at least one text; empty when nothing waits. */
  next(maxTokens: number): QueuedText[] {
    const batch: QueuedText[] = [];
    let room = maxTokens;
    const candidates = [...this.#open.values()]
      .filter(({ waiting }) => waiting.length > 0)
      .map(({ waiting }) => ({ waiting, taken: 0 }));
    while (candidates.length > 0) {
      const least = candidates.reduce((a, b) => (b.taken < a.taken ? b : a));
      const text = least.waiting.at(-1);
      if (text === undefined || (batch.length > 0 && text.ids.length > room)) {
        candidates.splice(candidates.indexOf(least), 1);
        continue;
      }
      least.waiting.pop();
      least.taken += text.ids.length;
      room -= text.ids.length;
      batch.push(text);
    }
    return batch;
  }

  /** Books answered texts; true when the request has none left, and is forgotten then. */
  settle(id: string, numTexts: number): boolean {
    const open = this.#open.get(id);
    if (open === undefined) return false;
    open.left -= numTexts;
    if (open.left > 0) return false;
    this.#open.delete(id);
    return true;
  }
}
