import type { EncodeEvent, EncodeRequest, TokenOutput } from "./encode.ts";
import type { ErrorData } from "./errors.ts";
import type { ModelKind } from "./model.ts";
import type { TokenEvent, TokenRequest } from "./tokens.ts";

/**
 * Which arithmetic the engine uses. Own CPU kernels: native (quantized weights meet activations of 16 bits, summed as
 * integers), exact (float32 activations), int8 (activations of 8 bits); or stock MLX operations of any device.
 */
export type KernelMode = "native" | "exact" | "int8" | "stock";

/** What a grammar needs to know of the tokenizer, whatever its kind. */
export interface GrammarVocabulary {
  /** The bytes that tokens add to a text, one after the other; none for special tokens, which no grammar lets through. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Token id's bytes are [offsets[id], offsets[id + 1]). */
  readonly offsets: Uint32Array<ArrayBuffer>;
  /** Added tokens that are text: the tokenizer finds them before it merges anything. */
  readonly addedIds: readonly number[];
}

export interface LoadOptions {
  readonly modelPath: string;
  /** What the model is loaded for; "llm" if not given. */
  readonly purpose?: ModelKind | undefined;
  readonly kernels: KernelMode;
  /** Threads of the CPU kernels; 0: all physical cores. */
  readonly threads: number;
  /** Tokens of prompt and answer together; 0: what the model allows. */
  readonly contextWindow: number;
  /** Bytes that keys and values may use; 0: a share of the free memory. */
  readonly cacheBytes: number;
  readonly maxRunning: number;
  /** Wall-clock target of one prefill chunk. */
  readonly prefillTargetMs: number;
  /** The file behind the step counter: see HEARTBEAT. */
  readonly heartbeatPath: string;
}

export interface LoadedInfo {
  readonly contextWindow: number;
  readonly vocabSize: number;
  readonly kernels: KernelMode;
  readonly device: string;
  readonly weightBytes: number;
  readonly cacheBytes: number;
  readonly blockTokens: number;
  /** Of config.json and generation_config.json. */
  readonly eosIds: readonly number[];
  /** Numbers per text that an encoder gives: dimensions of a vector, 1 for a score; 0: the model generates. */
  readonly rowWidth?: number | undefined;
  /** Numbers per token that an encoder can give beside its rows. */
  readonly tokenWidths?: Readonly<Partial<Record<TokenOutput, number>>> | undefined;
}

export interface EngineStats {
  readonly waiting: number;
  readonly running: number;
  readonly steps: number;
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly generatedTokens: number;
  readonly freeBlocks: number;
  readonly totalBlocks: number;
  readonly treeBlocks: number;
  readonly preemptions: number;
  readonly liveArrays: number;
  readonly activeBytes: number;
  readonly peakBytes: number;
}

/** Front to engine. The first message is always "load", or "convert" and none after it. */
export type ToDevice =
  /** Write a GGUF model as a folder in MLX's format, then end. */
  | { readonly kind: "convert"; readonly source: string; readonly folder: string }
  | { readonly kind: "load"; readonly options: LoadOptions }
  | { readonly kind: "generate"; readonly request: TokenRequest }
  | { readonly kind: "encode"; readonly request: EncodeRequest }
  /** Once, before the first request with a constraint. */
  | { readonly kind: "vocabulary"; readonly vocabulary: GrammarVocabulary }
  | { readonly kind: "cancel"; readonly id: string }
  | { readonly kind: "stats" }
  | { readonly kind: "shutdown" };

/** One request's share of a step. */
export interface StepEvent {
  readonly id: string;
  readonly events: readonly TokenEvent[];
}

/** Engine to front. One "step" message per engine step, or for some quick ones, not one per token. */
export type FromDevice =
  | { readonly kind: "converting"; readonly doneBytes: number; readonly totalBytes: number }
  /** How the weights differ from the source's, a phrase each. */
  | { readonly kind: "converted"; readonly changes: readonly string[] }
  | { readonly kind: "loaded"; readonly info: LoadedInfo }
  | { readonly kind: "loadFailed"; readonly error: ErrorData }
  | { readonly kind: "step"; readonly events: readonly StepEvent[] }
  | { readonly kind: "encoded"; readonly id: string; readonly events: readonly EncodeEvent[] }
  /** The request ended with an error; others go on. */
  | { readonly kind: "failed"; readonly id: string; readonly error: ErrorData }
  /** The request was cancelled and holds nothing any more. */
  | { readonly kind: "cancelled"; readonly id: string }
  | { readonly kind: "stats"; readonly stats: EngineStats };

/**
 * The shared heartbeat file: a Uint32Array of these slots, mapped by both processes. The engine writes; the front reads
 * it without asking, so a stopped engine is seen.
 */
export const HEARTBEAT = {
  bytes: 64,
  /** Grows with every step and every load stage. */
  stepSlot: 0,
  /** 1 while requests are queued or running, or a model loads. */
  busySlot: 1,
  /** Ids of the requests in the step that runs now are told by the front's own books; this is their number. */
  batchSlot: 2,
} as const;

/** argv[2] of the engine process. */
export const ENGINE_SUBCOMMAND = "__engine";
