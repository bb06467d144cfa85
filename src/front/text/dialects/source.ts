/** A parser that yields where it needs more text. */
export type Parse<T = void> = Generator<undefined, T, undefined>;

/** What looked like a call is none: its text is told as text. */
export class NotACall extends Error {}

/** The answer was cut off within a call. */
export class CutOff extends Error {}

/** Noncharacters that stand for marker tokens: never part of a text. */
const FIRST_SENTINEL = 0xfdd0;
const MAX_SENTINELS = 32;
const SENTINELS = /[\uFDD0-\uFDEF]/g;

/**
 * Texts that are single tokens of the model. As tokens they are markers; spelled out by other tokens they are words, so
 * that a model can write about its own markup.
 */
export class Markers {
  readonly #byText = new Map<string, string>();
  readonly #byId = new Map<number, string>();
  readonly #texts: string[] = [];
  readonly #found = new Map<string, string>();

  constructor(tokens: Iterable<readonly [text: string, id: number]>) {
    for (const [text, id] of tokens) {
      if (this.#texts.length === MAX_SENTINELS) break;
      const sentinel = String.fromCharCode(FIRST_SENTINEL + this.#texts.length);
      this.#texts.push(text);
      this.#byText.set(text, sentinel);
      this.#byId.set(id, sentinel);
    }
  }

  /** What stands for this token in a source's text. */
  ofId(id: number): string | undefined {
    return this.#byId.get(id);
  }

  /** What to look for in a source's text: a marker, or words with markers in them. */
  find(text: string): string {
    let found = this.#byText.get(text) ?? this.#found.get(text);
    if (found === undefined) {
      found = text;
      for (const [marker, sentinel] of this.#byText) found = found.replaceAll(marker, sentinel);
      this.#found.set(text, found);
    }
    return found;
  }

  /** A source's text as the model wrote it. */
  spell(text: string): string {
    if (this.#texts.length === 0) return text;
    return text.replace(SENTINELS, (sentinel) => {
      return this.#texts[sentinel.charCodeAt(0) - FIRST_SENTINEL] ?? "\uFFFD";
    });
  }
}

/** Text of the model that could be taken for a marker token. */
export function withoutSentinels(text: string): string {
  return text.replace(SENTINELS, "\uFFFD");
}

const NO_MARKERS = new Markers([]);

/** The text of an answer while it comes in, for parsers that read it front to back and may take a part of it back. */
export class Source {
  readonly markers: Markers;
  #text = "";
  #fed = 0;
  #taken: string[] | null = null;
  #isCommitted = false;
  #end: "stop" | "length" | null = null;

  constructor(markers: Markers = NO_MARKERS) {
    this.markers = markers;
  }

  feed(text: string): void {
    this.#text += text;
    this.#fed += text.length;
  }

  /** How many characters were taken. */
  get position(): number {
    return this.#fed - this.#text.length;
  }

  finish(reason: "stop" | "length"): void {
    this.#end = reason;
  }

  /** What was fed and not taken yet. */
  get rest(): string {
    return this.#text;
  }

  /** Why no more text comes; null: more may come. */
  get ended(): "stop" | "length" | null {
    return this.#end;
  }

  /** Waits for more text; false: there is none. */
  *more(): Parse<boolean> {
    if (this.#end !== null) return false;
    yield;
    return this.#end === null;
  }

  /** Takes the next `length` characters, as the model wrote them. */
  take(length: number): string {
    const text = this.#text.slice(0, length);
    this.#text = this.#text.slice(length);
    this.#taken?.push(text);
    return this.markers.spell(text);
  }

  /** Takes what comes from here on only for a try. */
  mark(): void {
    this.#taken = [];
    this.#isCommitted = false;
  }

  /** A part of the try was right: it stays taken. */
  commit(): void {
    if (this.#taken === null) return;
    this.#taken = [];
    this.#isCommitted = true;
  }

  /** The try was right. */
  keep(): void {
    this.#taken = null;
  }

  /**
   * The try was wrong: what was taken since mark() or commit() comes again.
   *
   * @returns whether a part of it was right
   */
  rewind(): boolean {
    this.#text = (this.#taken ?? []).join("") + this.#text;
    this.#taken = null;
    return this.#isCommitted;
  }

  /** Why a try cannot go on where the text ended. */
  missing(): Error {
    return this.#end === "length" ? new CutOff() : new NotACall();
  }

  /**
   * Takes `literal` if it comes next. Waits only as long as it may.
   *
   * @throws {CutOff} if it might have come
   */
  *accept(literal: string): Parse<boolean> {
    if (!(yield* this.isNext([literal]))) return false;
    this.take(this.markers.find(literal).length);
    return true;
  }

  /** @throws {NotACall} if something else comes */
  *expect(literal: string): Parse {
    if (yield* this.accept(literal)) return;
    const isPrefix = this.markers.find(literal).startsWith(this.#text);
    throw isPrefix ? this.missing() : new NotACall();
  }

  /** Whether one of `literals` comes next, not taken. Waits only as long as one may. */
  *isNext(literals: readonly string[]): Parse<boolean> {
    const wanted = literals.map((literal) => this.markers.find(literal));
    for (;;) {
      const text = this.#text;
      if (wanted.some((literal) => text.startsWith(literal))) return true;
      if (!wanted.some((literal) => literal.startsWith(text))) return false;
      if (yield* this.more()) continue;
      if (this.#end === "length") throw new CutOff();
      return false;
    }
  }

  /** The next character, not taken; "" at the end. */
  *peek(): Parse<string> {
    while (this.#text === "") if (!(yield* this.more())) return "";
    return this.#text[0] ?? "";
  }

  /** Takes white space; returns it. */
  *blank(): Parse<string> {
    let blank = "";
    for (;;) {
      const length = /^\s*/.exec(this.#text)?.[0].length ?? 0;
      blank += this.take(length);
      if (this.#text !== "" || !(yield* this.more())) return blank;
    }
  }

  /**
   * Tells all text before the first of `stops`, as it comes, and takes that stop.
   *
   * @returns the stop; null: the text ended without one
   */
  *until(stops: readonly string[], tell: (text: string) => void): Parse<string | null> {
    const wanted = stops.map((stop) => this.markers.find(stop));
    const longest = wanted.reduce((most, stop) => Math.max(most, stop.length), 0);
    for (;;) {
      let at = -1;
      let which = -1;
      for (const [i, stop] of wanted.entries()) {
        const place = this.#text.indexOf(stop);
        if (place === -1) continue;
        const isBetter =
          at === -1 || place < at || (place === at && stop.length > (wanted[which]?.length ?? 0));
        if (isBetter) [at, which] = [place, i];
      }
      // a longer stop that begins earlier may still be completed
      const open = this.#openAt(wanted, longest);
      if (at !== -1 && at <= open) {
        if (at > 0) tell(this.take(at));
        this.take(wanted[which]?.length ?? 0);
        return stops[which] ?? null;
      }
      if (open > 0) tell(this.take(open));
      if (yield* this.more()) continue;
      if (at !== -1) {
        if (at > open) tell(this.take(at - open));
        this.take(wanted[which]?.length ?? 0);
        return stops[which] ?? null;
      }
      // of a call that was cut off, what may have become its end is not told
      if (this.#end === "length" && this.#taken !== null) return null;
      if (this.#text !== "") tell(this.take(this.#text.length));
      return null;
    }
  }

  /** Where the text's end begins that may become one of `wanted`. */
  #openAt(wanted: readonly string[], longest: number): number {
    const text = this.#text;
    for (let at = Math.max(0, text.length - longest + 1); at < text.length; at++) {
      const tail = text.slice(at);
      if (wanted.some((stop) => stop.length > tail.length && stop.startsWith(tail))) return at;
    }
    return text.length;
  }
}
