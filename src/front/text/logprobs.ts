import type { ChosenLogprob, TextLogprob, TokenLogprob } from "#core/contract";
import type { Vocabulary } from "./vocabulary.ts";

// a byte order mark in a token is text like any other
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const encoder = new TextEncoder();

/** The token's bytes as it prints; a special token prints its name here, though it is no part of a text. */
export function tokenBytes(vocabulary: Vocabulary, id: number): Uint8Array {
  const name = vocabulary.specials.get(id);
  if (name !== undefined) return encoder.encode(name);
  const { bytes, offsets } = vocabulary;
  return bytes.subarray(offsets[id] ?? 0, offsets[id + 1] ?? 0);
}

/** What tokens print one after the other, special tokens by their names. */
export function textOfTokens(vocabulary: Vocabulary, ids: readonly number[]): string {
  return decoder.decode(Buffer.concat(ids.map((id) => tokenBytes(vocabulary, id))));
}

function inWords(vocabulary: Vocabulary, id: number, logprob: number): TextLogprob {
  const bytes = tokenBytes(vocabulary, id);
  return { id, text: decoder.decode(bytes), bytes: [...bytes], logprob };
}

/**
 * A token's log-probability and those of its rivals, in words.
 *
 * @param offset where its text begins, in code points
 */
export function logprobInWords(
  vocabulary: Vocabulary,
  token: TokenLogprob,
  offset: number,
): ChosenLogprob {
  return {
    ...inWords(vocabulary, token.id, token.logprob),
    offset,
    top: token.top.map(([id, logprob]) => inWords(vocabulary, id, logprob)),
  };
}

/**
 * Keeps tokens' log-probabilities until the text that they made is told; both are counted in UTF-16 units. A
 * token that makes none goes with the text after it.
 */
export class LogprobQueue {
  #waiting: { readonly begin: number; readonly logprob: ChosenLogprob }[] = [];

  /** @param begin where the token's text begins */
  push(begin: number, logprob: ChosenLogprob): void {
    this.#waiting.push({ begin, logprob });
  }

  /** Takes the tokens whose text begins before `end`. */
  takeBefore(end: number): ChosenLogprob[] {
    const at = this.#waiting.findIndex(({ begin }) => begin >= end);
    const taken = this.#waiting.splice(0, at < 0 ? this.#waiting.length : at);
    return taken.map(({ logprob }) => logprob);
  }
}
