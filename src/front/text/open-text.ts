import type { ChatRequest, ModelEntry, TokenRequest } from "#core/contract";
import type { LoadedText } from "./messages.ts";
import { type ModelFacts, stopTextsOf, toTokenRequest } from "./prompt.ts";
import { createReader, type Reader } from "./reader.ts";
import { TextWorker } from "./text-worker.ts";

/** A loaded model's words: its tokenizer and chat template, in a Worker of its own. */
export interface TextModel {
  /** Of config.json, generation_config.json and the tokenizer. */
  readonly eosIds: readonly number[];
  /** Highest token id that the tokenizer knows, + 1. */
  readonly vocabSize: number;
  /**
   * Renders and tokenizes a conversation. The template alone writes control tokens: what spells one in a client's text
   * stays text.
   *
   * @throws {OmlxError} invalid_request; context_length when the prompt leaves no room for an answer
   */
  encode(request: ChatRequest, limits: { readonly contextWindow: number }): Promise<TokenRequest>;
  /** How many prompt tokens `encode` would give, whatever the window. */
  countTokens(request: ChatRequest): Promise<number>;
  /** Reads the answer to `prompt`, which `encode` made of `request`. */
  reader(request: ChatRequest, prompt: TokenRequest): Reader;
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
    ...limits,
  });
  return new WorkerTextModel(worker, await worker.start());
}

class WorkerTextModel implements TextModel {
  readonly #worker: TextWorker;
  readonly #loaded: LoadedText;
  readonly #facts: ModelFacts;

  constructor(worker: TextWorker, loaded: LoadedText) {
    this.#worker = worker;
    this.#loaded = loaded;
    this.#facts = {
      eosIds: loaded.eosIds,
      generation: loaded.generation,
      controlIds: new Map(loaded.controls),
    };
  }

  get eosIds(): readonly number[] {
    return this.#loaded.eosIds;
  }

  get vocabSize(): number {
    return this.#loaded.vocabSize;
  }

  async encode(
    request: ChatRequest,
    limits: { readonly contextWindow: number },
  ): Promise<TokenRequest> {
    return toTokenRequest(request, Array.from(await this.#ids(request)), this.#facts, limits);
  }

  async countTokens(request: ChatRequest): Promise<number> {
    return (await this.#ids(request)).length;
  }

  reader(request: ChatRequest, prompt: TokenRequest): Reader {
    const stopTexts = stopTextsOf(request, this.#facts);
    return createReader(this.#loaded.vocabulary, request, prompt, stopTexts);
  }

  dispose(): void {
    this.#worker.dispose();
  }

  #ids({ messages, tools, templateKwargs }: ChatRequest): Promise<Int32Array<ArrayBuffer>> {
    return this.#worker.encode({ messages, tools, templateKwargs });
  }
}
