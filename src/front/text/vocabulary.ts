import { OmlxError } from "#core/contract";
import { isObject } from "#core/formats";
import type { AddedToken } from "./added-tokens.ts";

/** The bytes that each token id adds to an answer; special tokens add none. */
export interface Vocabulary {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Token id's bytes are [offsets[id], offsets[id + 1]). */
  readonly offsets: Uint32Array<ArrayBuffer>;
  /** Names of the special tokens. */
  readonly specials: ReadonlyMap<number, string>;
  /** One leading blank of a text is not part of it (SentencePiece). */
  readonly stripsBlank: boolean;
}

type ToBytes = (token: string) => Uint8Array;

/**
 * Lays out the bytes of every token, as the decoder in tokenizer.json would print it.
 *
 * @param decoder  tokenizer.json's decoder
 * @param tokenOf  the vocabulary's spelling
 * @throws {OmlxError} model_load for a decoder that does not work token by token
 */
export function layoutVocabulary(
  decoder: unknown,
  added: readonly AddedToken[],
  vocabSize: number,
  tokenOf: (id: number) => string | undefined,
): Vocabulary {
  const { toBytes, spell, stripsBlank } = readDecoder(decoder);
  const addedById = new Map(added.map((token) => [token.id, token]));
  const empty = new Uint8Array();
  const piece = (id: number): Uint8Array => {
    const known = addedById.get(id);
    if (known !== undefined) return known.isSpecial ? empty : spell(known.spelling);
    const token = tokenOf(id);
    return token === undefined ? empty : toBytes(token);
  };
  const offsets = new Uint32Array(vocabSize + 1);
  let bytes = new Uint8Array(vocabSize * 8);
  let end = 0;
  for (let id = 0; id < vocabSize; id++) {
    const part = piece(id);
    if (end + part.length > bytes.length) {
      const larger = new Uint8Array((end + part.length) * 2);
      larger.set(bytes.subarray(0, end));
      bytes = larger;
    }
    bytes.set(part, end);
    end += part.length;
    offsets[id + 1] = end;
  }
  const specials = new Map(added.filter((t) => t.isSpecial).map((t) => [t.id, t.content]));
  return { bytes: bytes.slice(0, end), offsets, specials, stripsBlank };
}

interface Decoder {
  readonly toBytes: ToBytes;
  /** Of an added token, which is written as text, not as byte characters. */
  readonly spell: ToBytes;
  readonly stripsBlank: boolean;
}

function readDecoder(config: unknown): Decoder {
  const parts = partsOf(config);
  const encoder = new TextEncoder();
  const replacements: (readonly [from: string, to: string])[] = [];
  let isByteLevel = false;
  let hasByteFallback = false;
  let stripsBlank = false;
  for (const part of parts) {
    const pattern = part["pattern"];
    const from = isObject(pattern) ? pattern["String"] : undefined;
    switch (part["type"]) {
      case "ByteLevel":
        isByteLevel = true;
        break;
      case "ByteFallback":
        hasByteFallback = true;
        break;
      case "Fuse":
        break;
      case "Metaspace":
        replacements.push([text(part["replacement"], "\u2581"), " "]);
        stripsBlank = part["prepend_scheme"] !== "never" && part["add_prefix_space"] !== false;
        break;
      case "Replace":
        if (typeof from !== "string") throw unknown("Replace with a pattern");
        replacements.push([from, text(part["content"], "")]);
        break;
      case "Strip":
        if (part["stop"] !== 0 || part["content"] !== " ") throw unknown("Strip");
        stripsBlank = part["start"] !== 0;
        break;
      default:
        throw unknown(String(part["type"]));
    }
  }
  const spell: ToBytes = (token) =>
    encoder.encode(replacements.reduce((out, [from, to]) => out.replaceAll(from, to), token));
  const toBytes: ToBytes = (token) => {
    if (isByteLevel) return bytesOfLevel(token) ?? encoder.encode(token);
    const match = hasByteFallback ? /^<0x([0-9A-Fa-f]{2})>$/.exec(token) : null;
    return match === null ? spell(token) : Uint8Array.of(Number.parseInt(match[1] ?? "", 16));
  };
  return { toBytes, spell, stripsBlank };
}

function partsOf(config: unknown): readonly Readonly<Record<string, unknown>>[] {
  if (!isObject(config)) return [];
  if (config["type"] !== "Sequence") return [config];
  const parts = config["decoders"];
  return Array.isArray(parts) ? parts.flatMap(partsOf) : [];
}

function text(value: unknown, fallback: string): string {
  return typeof value === "string" ? value : fallback;
}

function unknown(what: string): OmlxError {
  return new OmlxError({
    code: "model_load",
    message: `Cannot read tokenizer.json: its decoder "${what}" is not known`,
  });
}

/** GPT-2's table: printable bytes stand for themselves, the others for the characters from U+0100 on. */
const BYTE_OF: ReadonlyMap<string, number> = (() => {
  const isPrintable = (byte: number) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
  const table = new Map<string, number>();
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    table.set(String.fromCharCode(isPrintable(byte) ? byte : next++), byte);
  }
  return table;
})();

/** undefined: the token is not spelled in byte characters. */
function bytesOfLevel(token: string): Uint8Array | undefined {
  const out = new Uint8Array(token.length);
  for (let i = 0; i < token.length; i++) {
    const byte = BYTE_OF.get(token[i] ?? "");
    if (byte === undefined) return undefined;
    out[i] = byte;
  }
  return out;
}
