import type { Vocabulary } from "./vocabulary.ts";

/**
 * Token ids → text, a token at a time and in constant time per token. A character that is not complete yet is held back;
 * bytes that are no UTF-8 become U+FFFD.
 */
export class Detokenizer {
  readonly #vocabulary: Vocabulary;
  // a byte order mark in an answer is text like any other
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #stripsBlank: boolean;

  constructor(vocabulary: Vocabulary) {
    this.#vocabulary = vocabulary;
    this.#stripsBlank = vocabulary.stripsBlank;
  }

  /** The text that this token completes; "" for special and unknown ids. */
  push(id: number): string {
    const { bytes, offsets } = this.#vocabulary;
    const begin = offsets[id];
    const end = offsets[id + 1];
    if (begin === undefined || end === undefined || begin === end) return "";
    return this.#strip(this.#decoder.decode(bytes.subarray(begin, end), { stream: true }));
  }

  /** What was held back. */
  end(): string {
    return this.#strip(this.#decoder.decode());
  }

  #strip(text: string): string {
    if (!this.#stripsBlank || text === "") return text;
    this.#stripsBlank = false;
    return text.startsWith(" ") ? text.slice(1) : text;
  }
}
