import { createHash } from "node:crypto";
import {
  type Constraint,
  type GrammarSpec,
  type GrammarVocabulary,
  invalidRequest,
  OmlxError,
} from "#core/contract";
import { GrammarWorker, type Outcome } from "./grammar-worker.ts";
import { Matcher } from "./matcher.ts";

/** A grammar that takes longer to compile is refused. */
const COMPILE_LIMIT_MS = 1500;
/** A grammar that compiles so quickly is compiled again where others run. */
const QUICK_MS = 40;
const MAX_GRAMMARS = 64;
const MAX_REFUSED = 256;
const MAX_WORKERS = 4;

interface Entry {
  readonly key: string;
  /** Settles when it is compiled; rejects with why it cannot be. */
  readonly home: Promise<{ readonly worker: GrammarWorker; readonly ignored: readonly string[] }>;
  worker: GrammarWorker | undefined;
  numOpen: number;
}

/** A request's constraint in force; or none, and why. */
export interface Opened {
  readonly matcher: Matcher | null;
  /** What of the constraint is not enforced. */
  readonly relaxed: string | undefined;
}

/**
 * The grammars of an engine: compiled once, kept by their hash.
 *
 * One Worker follows texts in all grammars that compile quickly; another compiles. A grammar that took long stays in the
 * Worker that compiled it, since it cannot be moved, and the next one is compiled elsewhere: no compilation holds up a
 * text that runs.
 */
export class Grammars {
  readonly #vocabSize: number;
  #vocabulary: GrammarVocabulary | undefined;
  #steady: GrammarWorker | undefined;
  #others: GrammarWorker[] = [];
  readonly #entries = new Map<string, Entry>();
  /** Why grammars were refused, by key. */
  readonly #refused = new Map<string, OmlxError>();
  /** Compilations run one after the other. */
  #turn: Promise<unknown> = Promise.resolve();
  #nextMatcher = 0;

  /** @param vocabSize of the logits */
  constructor(vocabSize: number) {
    this.#vocabSize = vocabSize;
  }

  /** Before the first open(). Starts the Workers, so that they are ready soon. */
  teach(vocabulary: GrammarVocabulary): void {
    this.dispose();
    this.#vocabulary = vocabulary;
    this.#steady = this.#spawn();
    this.#others = [this.#spawn()];
  }

  /**
   * Begins a text in a grammar.
   *
   * @param stopIds ids that end the text; they are let through where the grammar is complete
   * @throws {OmlxError} invalid_request: it cannot be enforced, and the constraint is strict
   */
  async open(constraint: Constraint, stopIds: readonly number[]): Promise<Opened> {
    const { grammar, strict, param } = constraint;
    try {
      const entry = await this.#entryOf(grammar, strict);
      entry.numOpen++;
      try {
        const { worker, ignored } = await entry.home;
        if (worker.isDead) throw died();
        const matcher = new Matcher({
          id: this.#nextMatcher++,
          key: entry.key,
          worker,
          vocabSize: this.#vocabSize,
          stopIds,
          onClose: () => {
            entry.numOpen--;
          },
        });
        return { matcher, relaxed: ignored.length === 0 ? undefined : notEnforced(ignored) };
      } catch (error) {
        entry.numOpen--;
        throw error;
      }
    } catch (error) {
      if (!(error instanceof OmlxError) || error.code !== "invalid_request") throw error;
      if (strict) throw invalidRequest(error.message, param);
      return { matcher: null, relaxed: error.message };
    }
  }

  dispose(): void {
    for (const worker of [this.#steady, ...this.#others]) worker?.end("the engine ends");
    this.#steady = undefined;
    this.#others = [];
    this.#entries.clear();
    this.#refused.clear();
  }

  async #entryOf(spec: GrammarSpec, isStrict: boolean): Promise<Entry> {
    const key = createHash("sha256")
      .update(`${isStrict} ${JSON.stringify(spec)}`)
      .digest("base64");
    const refused = this.#refused.get(key);
    if (refused !== undefined) throw refused;
    const known = this.#entries.get(key);
    if (known !== undefined && known.worker?.isDead !== true) {
      // The last used goes to the end.
      this.#entries.delete(key);
      this.#entries.set(key, known);
      return known;
    }
    const compiled = this.#turn.then(() => this.#compile(key, spec, isStrict));
    this.#turn = compiled.catch(() => {});
    const entry: Entry = { key, home: compiled, worker: undefined, numOpen: 0 };
    compiled.then(
      ({ worker }) => {
        entry.worker = worker;
      },
      (error: unknown) => this.#refuse(entry, error),
    );
    this.#entries.set(key, entry);
    this.#evict();
    return entry;
  }

  #refuse(entry: Entry, error: unknown): void {
    if (this.#entries.get(entry.key) === entry) this.#entries.delete(entry.key);
    if (!(error instanceof OmlxError) || error.code !== "invalid_request") return;
    this.#refused.set(entry.key, error);
    for (const oldest of this.#refused.keys()) {
      if (this.#refused.size <= MAX_REFUSED) return;
      this.#refused.delete(oldest);
    }
  }

  #evict(): void {
    for (const [key, { worker, numOpen }] of this.#entries) {
      if (this.#entries.size <= MAX_GRAMMARS) return;
      if (worker === undefined || numOpen > 0) continue;
      worker.send({ kind: "drop", key });
      this.#entries.delete(key);
    }
  }

  async #compile(key: string, spec: GrammarSpec, isStrict: boolean) {
    const compiler = this.#freeWorker();
    const outcome = await compiler.compile(key, spec, isStrict, COMPILE_LIMIT_MS);
    if (outcome === null) {
      this.#others = this.#others.filter((worker) => worker !== compiler);
      this.#freeWorker(); // the next one shall not wait for its start
      throw invalidRequest(
        `Cannot enforce the ${NAMES[spec.kind]}: compiling it takes more than ${COMPILE_LIMIT_MS / 1000} s${blame(spec)}`,
      );
    }
    if (outcome.kind === "failed") throw refusal(spec, outcome);
    const { ignored } = outcome;
    if (outcome.ms > QUICK_MS) return { worker: compiler, ignored };
    const steady = this.#living();
    await steady.compile(key, spec, isStrict, COMPILE_LIMIT_MS);
    if (steady.isDead) throw died();
    compiler.send({ kind: "drop", key });
    return { worker: steady, ignored };
  }

  #living(): GrammarWorker {
    if (this.#steady === undefined || this.#steady.isDead) this.#steady = this.#spawn();
    return this.#steady;
  }

  /** A Worker that follows no text now; where there are too many, the one that follows the fewest. */
  #freeWorker(): GrammarWorker {
    this.#others = this.#others.filter((worker) => !worker.isDead);
    const free = this.#others.find((worker) => worker.numOpen === 0);
    if (free !== undefined) return free;
    if (this.#others.length >= MAX_WORKERS)
      return this.#others.reduce((a, b) => (b.numOpen < a.numOpen ? b : a));
    const worker = this.#spawn();
    this.#others.push(worker);
    return worker;
  }

  #spawn(): GrammarWorker {
    if (this.#vocabulary === undefined)
      throw new OmlxError({
        code: "internal",
        message: "A constraint came before the engine was told the vocabulary",
      });
    return new GrammarWorker(this.#vocabulary, this.#vocabSize);
  }
}

const NAMES: Readonly<Record<GrammarSpec["kind"], string>> = {
  schema: "JSON schema",
  regex: "pattern",
  ebnf: "grammar",
  structuralTag: "schemas of the tools",
};

/** Keywords that make a schema dear, where it has them. */
function blame(spec: GrammarSpec): string {
  if (spec.kind !== "schema" && spec.kind !== "structuralTag") return "";
  const source = spec.kind === "schema" ? spec.schema : spec.tag;
  const found = ["pattern", "anyOf", "oneOf", "enum", "$ref", "properties"].filter((keyword) =>
    source.includes(`"${keyword}"`),
  );
  return found.length === 0 ? "" : ` (it uses ${found.map((k) => `"${k}"`).join(", ")})`;
}

const refusal = (spec: GrammarSpec, { reason }: Extract<Outcome, { kind: "failed" }>): OmlxError =>
  invalidRequest(`Cannot enforce the ${NAMES[spec.kind]}: ${reason}`);

const notEnforced = (keywords: readonly string[]): string =>
  `The schema keywords ${keywords.map((keyword) => `"${keyword}"`).join(", ")} are not enforced`;

const died = (): OmlxError =>
  new OmlxError({ code: "internal", message: "The Worker that held the grammar died; try again" });
