import type { ChatEvent, ChosenLogprob, TokenEvent, TokenLogprob } from "#core/contract";
import { logprobInWords, tokenBytes } from "./logprobs.ts";
import type { Reader } from "./reader.ts";
import type { Vocabulary } from "./vocabulary.ts";

/** A prompt that is told before its continuation. */
export interface Echo {
  readonly text: string;
  /** Nothing is told after it. */
  readonly isAll: boolean;
}

/** Tells a prompt, with its log-probabilities if the engine has them, before what another reader tells. */
export class EchoReader implements Reader {
  readonly #inner: Reader;
  readonly #echo: Echo;
  readonly #vocabulary: Vocabulary;
  readonly #firstId: number;
  readonly #numPoints: number;
  readonly #scores: TokenLogprob[] = [];
  #isTold = false;
  #isCut = false;

  /** @param promptIds of the echoed text */
  constructor(inner: Reader, echo: Echo, vocabulary: Vocabulary, promptIds: readonly number[]) {
    this.#inner = inner;
    this.#echo = echo;
    this.#vocabulary = vocabulary;
    this.#firstId = promptIds[0] ?? 0;
    this.#numPoints = [...echo.text].length;
  }

  get stopped(): boolean {
    return this.#isCut || this.#inner.stopped;
  }

  *read(event: TokenEvent): Generator<ChatEvent> {
    if (event.kind === "prefill") this.#scores.push(...(event.logprobs ?? []));
    this.#isCut = this.#echo.isAll && event.kind !== "prefill";
    if (this.#isCut) return; // what was generated is neither told nor counted
    yield* this.#pass(this.#inner.read(event));
    if (event.kind !== "prefill") yield* this.#tell();
  }

  *end(): Generator<ChatEvent> {
    for (const event of this.#pass(this.#inner.end())) {
      yield this.#isCut && event.kind === "end" ? { ...event, reason: "length" } : event;
    }
  }

  *#pass(events: Iterable<ChatEvent>): Generator<ChatEvent> {
    for (const event of events) {
      if (event.kind !== "start") yield* this.#tell();
      yield event.kind === "text" && event.logprobs !== undefined
        ? { ...event, logprobs: event.logprobs.map((token) => this.#moved(token)) }
        : event;
    }
  }

  #moved(token: ChosenLogprob): ChosenLogprob {
    return { ...token, offset: token.offset + this.#numPoints };
  }

  *#tell(): Generator<ChatEvent> {
    if (this.#isTold) return;
    this.#isTold = true;
    const { text } = this.#echo;
    if (this.#scores.length === 0) yield { kind: "text", text };
    else yield { kind: "text", text, logprobs: this.#inWords() };
  }

  /** The first token has NaN: nothing came before it. */
  #inWords(): ChosenLogprob[] {
    const first: TokenLogprob = { id: this.#firstId, logprob: Number.NaN, top: [] };
    const place = placesIn(new TextEncoder().encode(this.#echo.text));
    return [first, ...this.#scores].map((token) => {
      const offset = place(tokenBytes(this.#vocabulary, token.id));
      return logprobInWords(this.#vocabulary, token, offset);
    });
  }
}

/**
 * Finds where tokens begin in a text, one after the other, in code points. A token that the text does not hold, such as
 * the BOS that a tokenizer adds, begins where the next one does.
 */
function placesIn(text: Uint8Array): (token: Uint8Array) => number {
  let at = 0;
  let points = 0;
  const isNext = (token: Uint8Array) => token.every((byte, i) => text[at + i] === byte);
  return (token) => {
    const begin = points;
    // SentencePiece writes a blank before the first word
    const isBlankMore = at === 0 && token[0] === 0x20 && !isNext(token);
    const own = isBlankMore ? token.subarray(1) : token;
    if (!isNext(own)) return begin;
    at += own.length;
    for (const byte of own) if ((byte & 0xc0) !== 0x80) points++;
    return begin;
  };
}
