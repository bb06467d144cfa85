/** Printable characters of ASCII begin and end a grapheme, but for marks that follow or precede them. */
const BEYOND_ASCII = /[\x20-\x7e]?(?:[^\x20-\x7e]+[\x20-\x7e]?)+/g;
/** Graphemes of so many bytes and more are rewritten character by character. */
const LONG_BYTES = 6;
const MAX_KNOWN = 16_384;

/**
 * SentencePiece's rules for rewriting characters, as they lie compiled in a tokenizer.json: a double-array trie over UTF-8
 * and the texts that it leads to. Applied to graphemes as Hugging Face's tokenizers do it, which differs from SentencePiece:
 * of a rewritten grapheme the rest is dropped, long graphemes are taken apart.
 *
 * @see SentencePiece's normalizer.cc, Darts-clone's darts.h
 */
export class Charsmap {
  readonly #units: Uint32Array;
  readonly #texts: Uint8Array;
  readonly #graphemes = new Intl.Segmenter("und", { granularity: "grapheme" });
  /** What graphemes became. */
  readonly #known = new Map<string, string>();
  readonly #changesAscii: boolean;

  /**
   * @param base64 trie size in bytes (uint32), trie, texts that end with a zero
   * @throws {Error} if it is broken
   */
  constructor(base64: string) {
    const bytes = Uint8Array.fromBase64(base64);
    const trieBytes = new DataView(bytes.buffer).getUint32(0, true);
    if (trieBytes % 4 !== 0 || 4 + trieBytes > bytes.length) {
      throw new Error("its precompiled_charsmap is cut off");
    }
    this.#units = new Uint32Array(bytes.buffer, 4, trieBytes / 4);
    this.#texts = bytes.subarray(4 + trieBytes);
    const ascii = Array.from({ length: 0x7f - 0x20 }, (_, i) => String.fromCharCode(0x20 + i));
    this.#changesAscii = ascii.some((char) => this.#find(char) !== undefined);
  }

  normalize(text: string): string {
    return this.#changesAscii
      ? this.#rewrite(text)
      : text.replace(BEYOND_ASCII, (part) => this.#rewrite(part));
  }

  #rewrite(text: string): string {
    let out = "";
    for (const { segment } of this.#graphemes.segment(text)) {
      let made = this.#known.get(segment);
      if (made === undefined) {
        made = this.#rewriteOne(segment);
        if (this.#known.size >= MAX_KNOWN) this.#known.clear();
        this.#known.set(segment, made);
      }
      out += made;
    }
    return out;
  }

  #rewriteOne(grapheme: string): string {
    const isShort = Buffer.byteLength(grapheme) < LONG_BYTES;
    const whole = isShort ? this.#find(grapheme) : undefined;
    if (whole !== undefined) return whole;
    return Array.from(grapheme, (char) => this.#find(char) ?? char).join("");
  }

  /** The text behind the shortest beginning that has one. */
  #find(chars: string): string | undefined {
    const units = this.#units;
    let at = 0;
    let unit = units[0] ?? 0;
    at ^= childrenOf(unit);
    for (const byte of Buffer.from(chars)) {
      if (byte === 0) return undefined;
      at ^= byte;
      unit = units[at] ?? 0;
      if (labelOf(unit) !== byte) return undefined;
      at ^= childrenOf(unit);
      if (isLeaf(unit)) return this.#textAt(payloadOf(units[at] ?? 0));
    }
    return undefined;
  }

  #textAt(begin: number): string {
    const end = this.#texts.indexOf(0, begin);
    return new TextDecoder().decode(this.#texts.subarray(begin, end < 0 ? undefined : end));
  }
}

const isLeaf = (unit: number): boolean => ((unit >>> 8) & 1) === 1;
const payloadOf = (unit: number): number => unit & 0x7fffffff;
/** The byte that leads to it; no byte for one that holds a value. */
const labelOf = (unit: number): number => (unit & 0x800000ff) >>> 0;
const childrenOf = (unit: number): number => (unit >>> 10) << ((unit & 0x200) >>> 6);
