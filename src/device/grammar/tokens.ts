import type { GrammarVocabulary } from "#core/contract";
import type { Counter, CounterState } from "./counter.ts";

/** Forced text longer than this is tokenized in pieces. */
const MAX_TEXT = 256;

/** Hardly any token has more. */
const MANY_BYTES = 16;

/** The tokens of a model as bytes: what a grammar, a counter and forced text need. */
export class Tokens {
  readonly #vocabulary: GrammarVocabulary;
  #byText: ReadonlyMap<string, number> | undefined;
  #added: readonly (readonly [text: string, id: number])[] | undefined;
  #ragged: readonly number[] | undefined;
  #byLength: readonly number[] | undefined;
  #order: { readonly ids: Int32Array; readonly shared: Int32Array } | undefined;

  constructor(vocabulary: GrammarVocabulary) {
    this.#vocabulary = vocabulary;
  }

  get size(): number {
    return this.#vocabulary.offsets.length - 1;
  }

  bytesOf(id: number): Uint8Array {
    const { bytes, offsets } = this.#vocabulary;
    return bytes.subarray(offsets[id], offsets[id + 1]);
  }

  /** Every token in GPT-2's byte characters; "" for those without text. */
  spelled(): string[] {
    return Array.from({ length: this.size }, (_, id) => {
      let out = "";
      for (const byte of this.bytesOf(id)) out += BYTE_CHARS[byte];
      return out;
    });
  }

  /**
   * Cuts text into tokens as the tokenizer would: added tokens first, then the pair that was learned first is merged,
   * which the order of ids tells for byte-pair vocabularies.
   */
  encode(text: string): number[] {
    const out: number[] = [];
    let rest = text.slice(0, MAX_TEXT);
    while (rest !== "") {
      const found = this.#firstAdded(rest);
      const plain = found === null ? rest : rest.slice(0, found.at);
      out.push(...this.#merge(plain));
      if (found === null) break;
      out.push(found.id);
      rest = rest.slice(found.at + found.length);
    }
    return out;
  }

  /**
   * Takes the tokens out of a mask that would not go on as UTF-8: of those that hold parts of characters only, unless a
   * character has begun, which free text of a structural tag does not go on with by itself.
   *
   * @param mask one bit per token
   */
  filterUtf8(mask: Int32Array, state: Utf8State): void {
    this.#ragged ??= Array.from({ length: this.size }, (_, id) => id).filter((id) =>
      isRagged(this.bytesOf(id)),
    );
    const check = (id: number): void => {
      const word = id >> 5;
      const bit = 1 << (id & 31);
      if (((mask[word] as number) & bit) !== 0 && readUtf8(state, this.bytesOf(id)) === null)
        mask[word] = (mask[word] as number) & ~bit;
    };
    if (state.missing === 0) this.#ragged.forEach(check);
    else for (let id = 0; id < this.size; id++) check(id);
  }

  /**
   * Takes the tokens out of a mask that the counter does not let through.
   *
   * @param mask one bit per token
   */
  filter(mask: Int32Array, counter: Counter, state: CounterState): void {
    if (state.free >= MANY_BYTES) {
      for (const id of this.#longer(state.free)) this.#check(mask, id, counter, state);
      return;
    }
    const { ids, shared } = this.#sorted();
    const { bytes, offsets } = this.#vocabulary;
    // Neighbours in the order share beginnings: states[n] is the state after n bytes, up to where it is known.
    const states: (CounterState | null)[] = [state];
    let known = 0;
    for (let i = 0; i < ids.length; i++) {
      known = Math.min(known, shared[i] as number);
      const id = ids[i] as number;
      const bit = 1 << (id & 31);
      const word = id >> 5;
      if (((mask[word] as number) & bit) === 0) continue;
      const start = offsets[id] as number;
      const length = (offsets[id + 1] as number) - start;
      let current = states[known] as CounterState | null;
      while (known < length && current !== null) {
        current = counter.step(current, bytes[start + known] as number);
        states[++known] = current;
      }
      if (current === null) mask[word] = (mask[word] as number) & ~bit;
    }
  }

  #check(mask: Int32Array, id: number, counter: Counter, from: CounterState): void {
    const bit = 1 << (id & 31);
    const word = id >> 5;
    if (((mask[word] as number) & bit) === 0) return;
    let state: CounterState | null = from;
    for (const byte of this.bytesOf(id)) {
      state = counter.step(state, byte);
      if (state !== null) continue;
      mask[word] = (mask[word] as number) & ~bit;
      return;
    }
  }

  /** The few tokens of more bytes than that. */
  *#longer(length: number): Generator<number> {
    this.#byLength ??= Array.from({ length: this.size }, (_, id) => id)
      .filter((id) => this.bytesOf(id).length > MANY_BYTES)
      .sort((a, b) => this.bytesOf(b).length - this.bytesOf(a).length);
    for (const id of this.#byLength) {
      if (this.bytesOf(id).length <= length) return;
      yield id;
    }
  }

  /** Tokens with text in the order of their bytes, and how many bytes each shares with the one before. */
  #sorted() {
    if (this.#order !== undefined) return this.#order;
    const withText = Array.from({ length: this.size }, (_, id) => id).filter(
      (id) => this.bytesOf(id).length > 0,
    );
    const { bytes, offsets } = this.#vocabulary;
    const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const compare = (a: number, b: number) =>
      buffer.compare(buffer, offsets[b], offsets[b + 1], offsets[a], offsets[a + 1]);
    const ids = Int32Array.from(withText.sort(compare));
    const shared = new Int32Array(ids.length);
    for (let i = 1; i < ids.length; i++) {
      const [a, b] = [this.bytesOf(ids[i - 1] as number), this.bytesOf(ids[i] as number)];
      let n = 0;
      while (n < a.length && n < b.length && a[n] === b[n]) n++;
      shared[i] = n;
    }
    this.#order = { ids, shared };
    return this.#order;
  }

  #firstAdded(text: string): { at: number; length: number; id: number } | null {
    this.#added ??= this.#vocabulary.addedIds
      .map((id) => [decode(this.bytesOf(id)), id] as const)
      .filter(([content]) => content !== "")
      .sort((a, b) => b[0].length - a[0].length);
    let best: { at: number; length: number; id: number } | null = null;
    for (const [content, id] of this.#added) {
      const at = text.indexOf(content);
      if (at >= 0 && (best === null || at < best.at)) best = { at, length: content.length, id };
    }
    return best;
  }

  #merge(text: string): number[] {
    if (text === "") return [];
    const byText = this.#texts();
    const parts: string[] = [];
    for (const char of text) {
      const spelled = latin1(ENCODER.encode(char));
      if (byText.has(spelled)) parts.push(spelled);
      else parts.push(...spelled);
    }
    for (;;) {
      let best = -1;
      let lowest = Number.POSITIVE_INFINITY;
      for (let i = 0; i + 1 < parts.length; i++) {
        const id = byText.get(`${parts[i]}${parts[i + 1]}`);
        if (id !== undefined && id < lowest) [best, lowest] = [i, id];
      }
      if (best < 0) break;
      parts.splice(best, 2, `${parts[best]}${parts[best + 1]}`);
    }
    const ids: number[] = [];
    for (const part of parts) {
      const id = byText.get(part);
      if (id === undefined) break; // the vocabulary has no token for this byte
      ids.push(id);
    }
    return ids;
  }

  /** Token ids by their bytes, read as Latin-1. Of two alike a character goes before a lone byte, which has a lower id. */
  #texts(): ReadonlyMap<string, number> {
    if (this.#byText !== undefined) return this.#byText;
    const map = new Map<string, number>();
    const added = new Set(this.#vocabulary.addedIds);
    for (let id = 0; id < this.size; id++) {
      const bytes = this.bytesOf(id);
      if (bytes.length === 0 || added.has(id)) continue;
      const key = latin1(bytes);
      if (bytes.length === 1 || !map.has(key)) map.set(key, id);
    }
    this.#byText = map;
    return map;
  }
}

const ENCODER = new TextEncoder();

function latin1(bytes: Uint8Array): string {
  let out = "";
  for (const byte of bytes) out += String.fromCharCode(byte);
  return out;
}

const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

/** GPT-2's character for each byte. */
const BYTE_CHARS: readonly string[] = (() => {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const isPrintable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
    return String.fromCharCode(isPrintable ? byte : next++);
  });
})();

/** Where a text stands inside a character: bytes that are missing, and from which to which value the next may be. */
export interface Utf8State {
  readonly missing: number;
  readonly from: number;
  readonly to: number;
}

export const UTF8_START: Utf8State = { missing: 0, from: 0, to: 0 };

/** null: these bytes do not go on as UTF-8. */
export function readUtf8(begin: Utf8State, bytes: Uint8Array): Utf8State | null {
  let { missing, from, to } = begin;
  for (const byte of bytes) {
    if (missing > 0) {
      if (byte < from || byte > to) return null;
      missing--;
      [from, to] = [0x80, 0xbf];
    } else if (byte >= 0x80) {
      if (byte < 0xc2 || byte > 0xf4) return null;
      missing = byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
      // Longer spellings than needed, surrogates, and what lies beyond the last character.
      from = byte === 0xe0 ? 0xa0 : byte === 0xf0 ? 0x90 : 0x80;
      to = byte === 0xed ? 0x9f : byte === 0xf4 ? 0x8f : 0xbf;
    }
  }
  return missing === 0 ? UTF8_START : { missing, from, to };
}

const isRagged = (bytes: Uint8Array): boolean => readUtf8(UTF8_START, bytes)?.missing !== 0;
