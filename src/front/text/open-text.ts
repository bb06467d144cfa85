import type {
  AnswerOptions,
  ChatRequest,
  GrammarVocabulary,
  ModelEntry,
  TokenRequest,
} from "#core/contract";
import { type Echo, EchoReader } from "./echo-reader.ts";
import { grammarVocabularyOf } from "./grammar-vocabulary.ts";
import { textOfTokens } from "./logprobs.ts";
import type { EncodedTexts, LoadedText, TextsSource } from "./messages.ts";
import { conversationOf, type ModelFacts, stopTextsOf, toTokenRequest } from "./prompt.ts";
import { createReader, type Reader } from "./reader.ts";
import { Speech } from "./speech.ts";
import { type Encoded, TextWorker } from "./text-worker.ts";

/** A loaded model's words: its tokenizer and chat template, in a Worker of its own. */
export interface TextModel {
  /** Of config.json, generation_config.json and the tokenizer. */
  readonly eosIds: readonly number[];
  /** Highest token id that the tokenizer knows, + 1. */
  readonly vocabSize: number;
  /** What the engine has to know to hold an answer to a grammar. */
  readonly grammarVocabulary: GrammarVocabulary;
  /**
   * Renders and tokenizes a conversation. The template alone writes control tokens: what spells one in a client's text
   * stays text.
   *
   * @throws {OmlxError} invalid_request; context_length when the prompt leaves no room for an answer
   */
  encode(request: ChatRequest, limits: { readonly contextWindow: number }): Promise<TokenRequest>;
  /**
   * Continues a raw prompt. What spells a control token is one, and the tokenizer adds what it puts around a text; token
   * ids are taken as they are.
   *
   * @param param the request field that holds the prompt
   * @throws {OmlxError} invalid_request; context_length when the prompt leaves no room for an answer
   */
  encodeRaw(
    prompt: string | readonly number[],
    options: AnswerOptions,
    limits: { readonly contextWindow: number },
    param: string,
  ): Promise<TokenRequest>;
  /**
   * Token ids of an encoder's texts or pairs of texts, with what the tokenizer puts around them.
   *
   * @throws {OmlxError} invalid_request; context_length for a text that is too long and must not be cut
   */
  encodeTexts(source: TextsSource): Promise<EncodedTexts>;
  /** Texts that an embedding model wants before its inputs, by name. */
  readonly prompts: ReadonlyMap<string, string>;
  /** The one before inputs that name none. */
  readonly defaultPrompt: string | null;
  /** Tokens that stand for no part of a text. */
  readonly wordlessIds: ReadonlySet<number>;
  /** How many prompt tokens `encode` would give, whatever the window. */
  countTokens(request: ChatRequest): Promise<number>;
  /** Reads the answer to `prompt`, which `encode` made of `request`. */
  reader(request: ChatRequest, prompt: TokenRequest): Reader;
  /** Reads the continuation of a raw prompt: text and nothing else, after the prompt itself if it is echoed. */
  rawReader(options: AnswerOptions, prompt: TokenRequest, echo: Echo | null): Reader;
  /** What token ids print, special tokens by their names. */
  textOf(ids: readonly number[]): string;
  /** Ends the Worker. Readers go on working. */
  dispose(): void;
}

export interface TextLimits {
  /** How long one request may hold the Worker. */
  readonly timeLimitMs: number;
  readonly loadLimitMs: number;
}

const LIMITS: TextLimits = { timeLimitMs: 10_000, loadLimitMs: 60_000 };

let workerUrl: URL | string | undefined;

/** Names the Worker's entry. A compiled binary can resolve it only from its own main module. */
export function setWorkerUrl(url: URL | string): void {
  workerUrl = url;
}

/**
 * Loads the tokenizer and the chat template of a model folder in a Worker.
 *
 * @throws {OmlxError} model_load
 */
export async function openText(entry: ModelEntry, limits: TextLimits = LIMITS): Promise<TextModel> {
  const worker = new TextWorker({
    url: workerUrl ?? new URL("./worker.ts", import.meta.url),
    modelId: entry.id,
    path: entry.path,
    purpose: entry.kind,
    ...limits,
  });
  return new WorkerTextModel(worker, await worker.start());
}

class WorkerTextModel implements TextModel {
  readonly #worker: TextWorker;
  readonly #loaded: LoadedText;
  readonly #facts: ModelFacts;
  readonly #speech: Speech;
  /** By their token ids. */
  readonly #prompts = new WeakMap<readonly number[], Encoded>();
  #grammarVocabulary: GrammarVocabulary | undefined;

  constructor(worker: TextWorker, loaded: LoadedText) {
    this.#worker = worker;
    this.#loaded = loaded;
    this.#facts = {
      eosIds: loaded.eosIds,
      generation: loaded.generation,
      controlIds: new Map(loaded.controls),
      newlineIds: loaded.newlineIds,
    };
    this.#speech = new Speech(loaded.speech, loaded.vocabulary);
  }

  get eosIds(): readonly number[] {
    return this.#loaded.eosIds;
  }

  get vocabSize(): number {
    return this.#loaded.vocabSize;
  }

  get grammarVocabulary(): GrammarVocabulary {
    this.#grammarVocabulary ??= grammarVocabularyOf(this.#loaded);
    return this.#grammarVocabulary;
  }

  async encode(
    request: ChatRequest,
    limits: { readonly contextWindow: number },
  ): Promise<TokenRequest> {
    const encoded = await this.#encode(request);
    const ids = Array.from(encoded.ids);
    this.#prompts.set(ids, encoded);
    const plain = toTokenRequest(request, ids, this.#facts, limits, "messages");
    return { ...plain, ...this.#speech.limits(request, ids) };
  }

  async encodeRaw(
    prompt: string | readonly number[],
    options: AnswerOptions,
    limits: { readonly contextWindow: number },
    param: string,
  ): Promise<TokenRequest> {
    const ids =
      typeof prompt === "string"
        ? Array.from((await this.#worker.encode({ kind: "raw", text: prompt })).ids)
        : prompt;
    return toTokenRequest(options, ids, this.#facts, limits, param);
  }

  get prompts(): ReadonlyMap<string, string> {
    return new Map(this.#loaded.prompts);
  }

  get defaultPrompt(): string | null {
    return this.#loaded.defaultPrompt;
  }

  get wordlessIds(): ReadonlySet<number> {
    return new Set(this.#loaded.wordlessIds);
  }

  /** A long list goes in parts, so that other requests get their turns. */
  async encodeTexts(source: TextsSource): Promise<EncodedTexts> {
    const parts: { at: number; encoded: EncodedTexts }[] = [];
    for (const { at, part } of partsOf(source)) {
      parts.push({ at, encoded: await this.#worker.encodeTexts(part) });
    }
    return joinParts(parts);
  }

  async countTokens(request: ChatRequest): Promise<number> {
    return (await this.#encode(request)).ids.length;
  }

  reader(request: ChatRequest, prompt: TokenRequest): Reader {
    const stopTexts = stopTextsOf(request, this.#facts);
    const reading = this.#speech.reading(request, prompt);
    const encoded = this.#prompts.get(prompt.promptIds);
    return createReader(this.#loaded.vocabulary, request, prompt, stopTexts, {
      ...reading,
      warnings: [...(encoded?.notes ?? []), ...reading.warnings],
      remember: (ids) => encoded?.remember(ids),
    });
  }

  rawReader(options: AnswerOptions, prompt: TokenRequest, echo: Echo | null): Reader {
    const stopTexts = stopTextsOf(options, this.#facts);
    const { vocabulary } = this.#loaded;
    const reader = createReader(vocabulary, options, prompt, stopTexts);
    return echo === null ? reader : new EchoReader(reader, echo, vocabulary, prompt.promptIds);
  }

  textOf(ids: readonly number[]): string {
    return textOfTokens(this.#loaded.vocabulary, ids);
  }

  dispose(): void {
    this.#worker.dispose();
  }

  #encode(request: ChatRequest): Promise<Encoded> {
    return this.#worker.encode({ kind: "conversation", conversation: conversationOf(request) });
  }
}

/** Characters that one message to the Worker holds, but for a single long text. */
const PART_CHARS = 262_144;

function* partsOf(source: TextsSource): Generator<{ at: number; part: TextsSource }> {
  const all = source.kind === "texts" ? source.texts : source.documents;
  for (let at = 0; at < all.length; ) {
    let end = at;
    for (let chars = 0; end < all.length && (end === at || chars < PART_CHARS); end++) {
      chars += (all[end] as string).length;
    }
    const texts = all.slice(at, end);
    const part = source.kind === "texts" ? { ...source, texts } : { ...source, documents: texts };
    yield { at, part: { ...part, firstIndex: at } };
    at = end;
  }
}

function joinParts(parts: readonly { at: number; encoded: EncodedTexts }[]): EncodedTexts {
  const [first] = parts;
  if (first && parts.length === 1) return first.encoded;
  const ids: Int32Array[] = [];
  const ends: number[] = [];
  const seconds: number[] = [];
  const cut: number[] = [];
  let tokens = 0;
  for (const { at, encoded } of parts) {
    ids.push(encoded.ids);
    for (const end of encoded.ends) ends.push(tokens + end);
    for (const second of encoded.seconds ?? []) seconds.push(second);
    for (const index of encoded.cut) cut.push(at + index);
    tokens += encoded.ids.length;
  }
  const joined = new Int32Array(tokens);
  let at = 0;
  for (const part of ids) {
    joined.set(part, at);
    at += part.length;
  }
  return {
    ids: joined,
    ends: Int32Array.from(ends),
    seconds: first?.encoded.seconds ? Int32Array.from(seconds) : null,
    cut: Int32Array.from(cut),
  };
}
