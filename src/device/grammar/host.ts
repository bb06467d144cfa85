import * as xgrammar from "@mlc-ai/web-xgrammar";
import type { GrammarSpec, GrammarVocabulary } from "#core/contract";
import { type Counter, type CounterState, trim } from "./counter.ts";
import { GrammarError } from "./ir.ts";
import { MAX_FORCED, maskWords, SHARED, STATE } from "./messages.ts";
import { readSource } from "./source.ts";
import { readUtf8, Tokens, UTF8_START, type Utf8State } from "./tokens.ts";

/** Forced text is looked for only where so few tokens may come. */
const FEW = 64;
/** States of counters that grammars keep while no text is in them, all together. */
const MAX_IDLE_STATES = 10_000;

interface Grammar {
  readonly compiled: xgrammar.CompiledGrammar;
  readonly counter: Counter | null;
}

interface Matcher {
  readonly matcher: xgrammar.GrammarMatcher;
  readonly counter: Counter | null;
  state: CounterState | null;
  utf8: Utf8State | null;
  readonly stopIds: readonly number[];
  readonly shared: Int32Array;
}

/** What a grammar Worker does: compiles grammars, follows texts in them, tells which tokens may come next. */
export class GrammarHost {
  readonly #tokens: Tokens;
  readonly #vocabSize: number;
  readonly #compiler: xgrammar.GrammarCompiler;
  readonly #grammars = new Map<string, Grammar>();
  readonly #matchers = new Map<number, Matcher>();

  private constructor(tokens: Tokens, vocabSize: number, compiler: xgrammar.GrammarCompiler) {
    this.#tokens = tokens;
    this.#vocabSize = vocabSize;
    this.#compiler = compiler;
  }

  static async create(vocabulary: GrammarVocabulary, vocabSize: number): Promise<GrammarHost> {
    const tokens = new Tokens(vocabulary);
    const spelled = tokens.spelled().slice(0, vocabSize);
    while (spelled.length < vocabSize) spelled.push("");
    // One more token that no model has is XGrammar's stop token: its bit says whether the text may end.
    spelled.push("");
    const info = await xgrammar.TokenizerInfo.createTokenizerInfo(
      spelled,
      "byte_level",
      false,
      vocabSize + 1,
      [vocabSize],
    );
    const compiler = await xgrammar.GrammarCompiler.createGrammarCompiler(info, false);
    return new GrammarHost(tokens, vocabSize, compiler);
  }

  /**
   * @returns schema keywords that are not enforced
   * @throws {GrammarError}
   */
  async compile(key: string, spec: GrammarSpec, isStrict: boolean): Promise<readonly string[]> {
    const source = readSource(spec, isStrict);
    const compiled =
      source.text.kind === "ebnf"
        ? await this.#compiler.compileGrammar(source.text.ebnf)
        : await this.#compiler.compileStructuralTag(source.text.tag);
    this.drop(key);
    this.#grammars.set(key, { compiled, counter: source.counter });
    return source.ignored;
  }

  drop(key: string): void {
    this.#grammars.get(key)?.compiled.dispose();
    this.#grammars.delete(key);
  }

  async open(
    id: number,
    key: string,
    stopIds: readonly number[],
    shared: SharedArrayBuffer,
  ): Promise<void> {
    const grammar = this.#grammars.get(key);
    if (grammar === undefined) throw new Error("the grammar is not here");
    this.#grammars.delete(key);
    this.#grammars.set(key, grammar); // the last used goes to the end
    const matcher: Matcher = {
      matcher: await xgrammar.GrammarMatcher.createGrammarMatcher(grammar.compiled),
      counter: grammar.counter,
      state: grammar.counter?.start ?? null,
      utf8: UTF8_START,
      stopIds: stopIds.filter((stop) => stop < this.#vocabSize),
      shared: new Int32Array(shared),
    };
    this.#matchers.set(id, matcher);
    await this.#publish(matcher);
  }

  async accept(id: number, token: number): Promise<void> {
    const matcher = this.#matchers.get(id);
    if (matcher === undefined) return; // closed meanwhile
    if (this.#accept(matcher, token)) await this.#publish(matcher);
    else this.#answer(matcher, STATE.failed);
  }

  close(id: number): void {
    this.#matchers.get(id)?.matcher.dispose();
    this.#matchers.delete(id);
    this.#trim();
  }

  #trim(): void {
    const inUse = new Set([...this.#matchers.values()].map(({ counter }) => counter));
    const counters = [...this.#grammars.values()].flatMap(({ counter }) => counter ?? []);
    trim(
      counters.filter((counter) => !inUse.has(counter)),
      MAX_IDLE_STATES,
    );
  }

  #accept(matcher: Matcher, token: number): boolean {
    if (!matcher.matcher.acceptToken(token)) return false;
    matcher.utf8 = matcher.utf8 && readUtf8(matcher.utf8, this.#tokens.bytesOf(token));
    if (matcher.utf8 === null) return false;
    if (matcher.counter === null) return true;
    let state = matcher.state;
    for (const byte of this.#tokens.bytesOf(token))
      state = state === null ? null : matcher.counter.step(state, byte);
    matcher.state = state;
    return state !== null;
  }

  /** Takes forced tokens, then writes what may come next. */
  async #publish(matcher: Matcher): Promise<void> {
    const { shared } = matcher;
    let numForced = 0;
    for (;;) {
      const { mask, count, canEnd } = await this.#maskOf(matcher);
      const isLast = count === 0;
      const forced =
        !isLast && !canEnd && count <= FEW && numForced === 0 ? this.#forced(matcher) : [];
      if (forced.length > 0) {
        for (const token of forced) {
          if (!hasBit((await this.#maskOf(matcher)).mask, token) || !this.#accept(matcher, token))
            break;
          shared[SHARED.forced + numForced++] = token;
        }
        if (numForced > 0) continue;
      }
      shared[SHARED.numForced] = numForced;
      if (isLast) {
        this.#answer(matcher, canEnd ? STATE.ended : STATE.failed);
        return;
      }
      for (const stop of matcher.stopIds) setBit(mask, stop, canEnd);
      shared.set(mask, SHARED.mask);
      this.#answer(matcher, STATE.going);
      return;
    }
  }

  #answer({ shared }: Matcher, state: number): void {
    shared[SHARED.state] = state;
    Atomics.add(shared, SHARED.turn, 1);
    Atomics.notify(shared, SHARED.turn);
  }

  /** The tokens that may come next without those that stop, how many these are, and whether the text may end here. */
  async #maskOf({ matcher, counter, state, utf8, stopIds }: Matcher) {
    const full = await matcher.getNextTokenBitmask();
    let canEnd = hasBit(full, this.#vocabSize);
    setBit(full, this.#vocabSize, false);
    const mask = full.subarray(0, maskWords(this.#vocabSize));
    for (const stop of stopIds) setBit(mask, stop, false);
    if (utf8 !== null) this.#tokens.filterUtf8(mask, utf8);
    if (counter !== null && state !== null) {
      this.#tokens.filter(mask, counter, state);
      canEnd &&= state.isAccepting;
    }
    return { mask, count: countBits(mask), canEnd };
  }

  /**
   * The tokens of the text that must come now. The last one is left to the model: what follows may belong to the same
   * token.
   */
  #forced({ matcher }: Matcher): readonly number[] {
    const text = matcher.findJumpForwardString();
    if (text === "" || text.includes("\ufffd")) return [];
    return this.#tokens.encode(text).slice(0, -1).slice(0, MAX_FORCED);
  }
}

function hasBit(mask: Int32Array, id: number): boolean {
  return (((mask[id >> 5] ?? 0) >>> (id & 31)) & 1) === 1;
}

function setBit(mask: Int32Array, id: number, isSet: boolean): void {
  const word = mask[id >> 5] ?? 0;
  mask[id >> 5] = isSet ? word | (1 << (id & 31)) : word & ~(1 << (id & 31));
}

function countBits(mask: Int32Array): number {
  let count = 0;
  for (let word of mask) {
    for (; word !== 0; word &= word - 1) count++;
    if (count > FEW) return count;
  }
  return count;
}

/** Why a grammar was not compiled; XGrammar says it on the console. */
export function reasonOf(
  error: unknown,
  said: string,
): { reason: string; keyword?: string | undefined } {
  if (error instanceof GrammarError) return { reason: error.message, keyword: error.keyword };
  const fatal = /(?:\[FATAL\]|\[ERROR\])[^\n]*?\d+: ([^\n]*)/.exec(said)?.[1];
  // an exception of C++ arrives as its address
  const told = error instanceof Error ? error.message : "the grammar cannot be compiled";
  return { reason: fatal ?? told };
}
