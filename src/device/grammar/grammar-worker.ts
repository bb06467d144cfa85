import { type GrammarSpec, type GrammarVocabulary, OmlxError } from "#core/contract";
import { type Deferred, deferred } from "#core/util";
import type { FromGrammar, ToGrammar } from "./messages.ts";

/** How often a compilation is looked after. */
const TICK_MS = 50;

let workerUrl: URL | string | undefined;

/** Names the Worker's entry. A compiled binary can resolve it only from its own main module. */
export function setGrammarWorkerUrl(url: URL | string): void {
  workerUrl = url;
}

/** What became of a grammar. */
export type Outcome = Extract<FromGrammar, { kind: "compiled" | "failed" }>;

/** One grammar Worker, seen from the engine's thread. Compiles one grammar at a time. */
export class GrammarWorker {
  /** Matchers that it follows. */
  numOpen = 0;
  isDead = false;
  readonly #worker: Worker;
  readonly #ready: Deferred<void> = deferred();
  readonly #progress = new Int32Array(new SharedArrayBuffer(8));
  #compiling: Deferred<Outcome> | undefined;

  constructor(vocabulary: GrammarVocabulary, vocabSize: number) {
    this.#ready.promise.catch(() => {}); // told by what needs it
    this.#worker = new Worker(workerUrl ?? new URL("./worker.ts", import.meta.url));
    this.#worker.onmessage = (event: MessageEvent<FromGrammar>) => {
      if (event.data.kind === "ready") this.#ready.resolve();
      else if (event.data.kind === "broken") this.end(event.data.reason);
      else this.#compiling?.resolve(event.data);
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.end(event.message);
    };
    this.#worker.addEventListener("close", () => this.end("it closed"));
    // An engine that has nothing else to do may end.
    this.#worker.unref();
    const progress = this.#progress.buffer;
    this.send({ kind: "vocabulary", vocabulary, vocabSize, progress });
  }

  get isCompiling(): boolean {
    return this.#compiling !== undefined;
  }

  send(message: ToGrammar): void {
    if (!this.isDead) this.#worker.postMessage(message);
  }

  /**
   * Compiles a grammar; takes too long: ends this Worker.
   *
   * @returns null if it took longer than `limitMs`
   * @throws {OmlxError} internal: the Worker died
   */
  async compile(
    key: string,
    spec: GrammarSpec,
    isStrict: boolean,
    limitMs: number,
  ): Promise<Outcome | null> {
    if (this.isDead) throw ended("it is dead");
    const outcome: Deferred<Outcome> = deferred();
    this.#compiling = outcome;
    try {
      await this.#ready.promise;
      const begun = Atomics.load(this.#progress, 0);
      this.send({ kind: "compile", key, spec, isStrict });
      const isLate = () => this.#passes(limitMs, begun);
      const result = await Promise.race([outcome.promise, isLate().then(() => null)]);
      if (result === null) this.end("a grammar took too long");
      return result;
    } finally {
      this.#compiling = undefined;
    }
  }

  /** Resolves when the compilation after the first `begun` ones has run for so long; never if it ended before. */
  async #passes(limitMs: number, begun: number): Promise<void> {
    const progress = this.#progress;
    // This thread may have been away: time counts by what was seen of the Worker, not by the clock alone.
    for (let waited = 0; waited < limitMs; ) {
      await Bun.sleep(TICK_MS);
      if (Atomics.load(progress, 1) > begun || this.isDead) return new Promise(() => {});
      if (Atomics.load(progress, 0) > begun) waited += TICK_MS;
    }
  }

  end(reason: string): void {
    if (this.isDead) return;
    this.isDead = true;
    const error = ended(reason);
    this.#ready.reject(error);
    this.#compiling?.reject(error);
    this.#worker.terminate();
  }
}

const ended = (reason: string): OmlxError =>
  new OmlxError({ code: "internal", message: `A grammar Worker ended: ${reason}` });
