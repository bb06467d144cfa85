import { OmlxError } from "#core/contract";
import type { GrammarWorker } from "./grammar-worker.ts";
import { maskWords, SHARED, STATE } from "./messages.ts";

/** Masks take milliseconds; a Worker that is silent for so long is dead. */
const PATIENCE_MS = 5000;

export interface MatcherOptions {
  readonly id: number;
  readonly key: string;
  readonly worker: GrammarWorker;
  readonly vocabSize: number;
  readonly stopIds: readonly number[];
  readonly onClose: () => void;
}

/** What may come next in a text. */
export interface Allowed {
  /** Tokens that must come first, already taken by the grammar. */
  readonly forced: readonly number[];
  /** One bit per token, for the token after the forced ones; valid until the next accept(). */
  readonly mask: Int32Array;
  /** After the forced tokens the text is complete, and nothing may follow. */
  readonly isEnd: boolean;
}

/** One text's place in its grammar; the grammar itself is in a Worker. */
export class Matcher {
  readonly #options: MatcherOptions;
  readonly #shared: Int32Array<SharedArrayBuffer>;
  #turn = 0;
  #isOpen = true;

  constructor(options: MatcherOptions) {
    this.#options = options;
    const { worker, vocabSize, id, key, stopIds } = options;
    const shared = new SharedArrayBuffer(4 * (SHARED.mask + maskWords(vocabSize)));
    this.#shared = new Int32Array(shared);
    worker.numOpen++;
    worker.send({ kind: "open", matcher: id, key, stopIds, shared });
  }

  /**
   * Waits for the Worker's answer to the last accept(), or to the opening.
   *
   * @throws {OmlxError} internal: the grammar is lost, or it cannot go on
   */
  next(): Allowed {
    const shared = this.#shared;
    const { worker } = this.#options;
    const begin = performance.now();
    while (Atomics.load(shared, SHARED.turn) === this.#turn) {
      if (worker.isDead || performance.now() - begin > PATIENCE_MS)
        throw new OmlxError({
          code: "internal",
          message: "The Worker that holds the grammar is gone",
        });
      Atomics.wait(shared, SHARED.turn, this.#turn, 1000);
    }
    const state = shared[SHARED.state];
    if (state === STATE.failed)
      throw new OmlxError({
        code: "internal",
        message: "No token of the model continues the text as its grammar demands",
      });
    const numForced = shared[SHARED.numForced] as number;
    return {
      forced: Array.from(shared.subarray(SHARED.forced, SHARED.forced + numForced)),
      mask: shared.subarray(SHARED.mask),
      isEnd: state === STATE.ended,
    };
  }

  /** A token of next()'s mask was drawn. The Worker finds out what follows; next() gets it. */
  accept(id: number): void {
    this.#turn = Atomics.load(this.#shared, SHARED.turn);
    this.#options.worker.send({ kind: "accept", matcher: this.#options.id, id });
  }

  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    const { worker, id, onClose } = this.#options;
    worker.numOpen--;
    worker.send({ kind: "close", matcher: id });
    onClose();
  }
}
