import { encoderFamily, type ModelKind, OmlxError } from "#core/contract";
import { type ModelConfig, readSentencePipeline, type SentencePipeline } from "#core/formats";
import { type AddedToken, markTokens, TokenTrie } from "./added-tokens.ts";
import type { EncodedTexts, TextsSource } from "./messages.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** Marks places in a text of the client's; no text holds it, since it is no character. */
const MARKER = "\uFDD2";

const JUDGE =
  'Judge whether the Document meets the requirements based on the Query and the Instruct provided. Note that the answer can only be "yes" or "no".';
const INSTRUCT = "Given a web search query, retrieve relevant passages that answer the query";

/** What an encoder's tokenizer makes of texts and pairs of texts; lives in the Worker. */
export class EncoderText {
  readonly pipeline: SentencePipeline | null;
  readonly #tokenizer: Tokenizer;
  /** Behind every text, where the tokenizer itself puts nothing there. */
  readonly #end: readonly number[];
  readonly #isChat: boolean;
  readonly #controls: TokenTrie;

  constructor(tokenizer: Tokenizer, config: ModelConfig, path: string, kind: ModelKind) {
    this.#tokenizer = tokenizer;
    const isCausal = encoderFamily(config.modelType)?.isCausal ?? false;
    this.pipeline = kind === "embedding" ? readSentencePipeline(path, config) : null;
    this.#end = isCausal && kind === "embedding" ? endOf(tokenizer) : [];
    this.#isChat = isCausal && kind === "reranker";
    const specials = tokenizer.addedTokens.filter((token) => token.isSpecial);
    this.#controls = new TokenTrie(specials.map((t): [string, AddedToken] => [t.content, t]));
  }

  /**
   * Token ids of some texts.
   *
   * @throws {OmlxError} context_length naming the text, unless texts may be cut; invalid_request for one without tokens
   */
  encode(source: TextsSource): EncodedTexts {
    const cut: number[] = [];
    const texts: number[][] = [];
    const seconds: number[] = [];
    if (source.kind === "texts") {
      const { prefix, suffix } = this.#tokenizer.frame;
      source.texts.forEach((text, i) => {
        const body = this.#tokenizer.encode(source.prompt + text);
        const parts = { before: prefix, body, after: [...suffix, ...this.#end] };
        texts.push(join(parts, i, source, cut));
      });
    } else {
      const frame = this.#isChat
        ? this.#chatFrame(source.query, source.instruction ?? INSTRUCT)
        : this.#pairFrame(source.query);
      source.documents.forEach((document, i) => {
        const body = this.#isChat ? this.#plain(document, " ") : this.#tokenizer.encode(document);
        texts.push(join({ ...frame, body }, i, source, cut));
        seconds.push(frame.before.length);
      });
    }
    const ends = new Int32Array(texts.length);
    const ids = new Int32Array(texts.reduce((sum, text) => sum + text.length, 0));
    let at = 0;
    texts.forEach((text, i) => {
      ids.set(text, at);
      at += text.length;
      ends[i] = at;
    });
    return {
      ids,
      ends,
      seconds: source.kind === "pairs" ? Int32Array.from(seconds) : null,
      cut: Int32Array.from(cut),
    };
  }

  #pairFrame(query: string) {
    const { prefix, middle, suffix } = this.#tokenizer.pairFrame;
    return {
      before: [...prefix, ...this.#tokenizer.encode(query), ...middle],
      after: suffix,
    };
  }

  /** As Qwen3-Reranker was trained; what spells a control token in the client's texts stays text. */
  #chatFrame(query: string, instruction: string) {
    const t = this.#tokenizer;
    const head = t.encode(`<|im_start|>system\n${JUDGE}<|im_end|>\n<|im_start|>user\n`);
    const task = this.#plain(`<Instruct>: ${instruction}\n<Query>: ${query}\n<Document>:`);
    return {
      before: [...head, ...task],
      after: t.encode("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"),
    };
  }

  #plain(text: string, lead = ""): number[] {
    const clean = text.replaceAll(MARKER, "");
    return this.#tokenizer.encode(lead + markTokens(clean, this.#controls, MARKER), MARKER);
  }
}

/** Before, cut body, after. */
function join(
  parts: {
    readonly before: readonly number[];
    readonly body: readonly number[];
    readonly after: readonly number[];
  },
  index: number,
  { maxTokens, mayCut, param, firstIndex = 0 }: TextsSource,
  cut: number[],
): number[] {
  const place = `${param}[${firstIndex + index}]`;
  const { before, body, after } = parts;
  const numTokens = before.length + body.length + after.length;
  const room = maxTokens - before.length - after.length;
  if (numTokens === 0) {
    throw new OmlxError({
      code: "invalid_request",
      message: "Cannot encode a text without tokens",
      param: place,
    });
  }
  if (numTokens <= maxTokens) return [...before, ...body, ...after];
  if (mayCut && room > 0) {
    cut.push(index);
    return [...before, ...body.slice(0, room), ...after];
  }
  throw new OmlxError({
    code: "context_length",
    message: `${place} is too long: ${numTokens} tokens > ${maxTokens} maximum${mayCut ? "" : '; "truncate": true cuts it'}`,
    param: place,
    data: { numTokens, maxTokens },
  });
}

/** A model that reads from left to right needs an end to pool at; some conversions lost the rule that adds it. */
function endOf(tokenizer: Tokenizer): readonly number[] {
  if (tokenizer.frame.suffix.length > 0) return [];
  const end =
    tokenizer.idOf("<|endoftext|>") ?? tokenizer.idOf(tokenizer.namedTokens["eos_token"] ?? "");
  return end === undefined ? [] : [end];
}
