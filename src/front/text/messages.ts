import type { ErrorData, ModelKind } from "#core/contract";
import type { GenerationDefaults } from "#core/formats";
import type { SpeechFacts } from "./speech.ts";
import type { Conversation } from "./template/conversation.ts";
import type { Vocabulary } from "./vocabulary.ts";

/** HTTP thread to text Worker. The first message is always "load"; each is answered by one reply with its id. */
export type ToText =
  | {
      readonly kind: "load";
      readonly id: number;
      readonly modelId: string;
      readonly path: string;
      readonly purpose: ModelKind;
    }
  | { readonly kind: "texts"; readonly id: number; readonly source: TextsSource }
  | { readonly kind: "encode"; readonly id: number; readonly source: Source }
  /** The answer to the prompt that "encode" with this id made; there is no reply. */
  | { readonly kind: "remember"; readonly id: number; readonly ids: readonly number[] };

/** What is to become a prompt. */
export type Source =
  | { readonly kind: "conversation"; readonly conversation: Conversation }
  /** A raw prompt: what spells a control token is one. */
  | { readonly kind: "raw"; readonly text: string };

/** What an encoder reads. A text over maxTokens is an error unless it may be cut. */
export type TextsSource = {
  readonly maxTokens: number;
  readonly mayCut: boolean;
  /** The request field that holds the texts. */
  readonly param: string;
  /** Index of the first text, for errors; 0 if not given. */
  readonly firstIndex?: number;
} & (
  | { readonly kind: "texts"; readonly texts: readonly string[]; readonly prompt: string }
  | {
      readonly kind: "pairs";
      readonly query: string;
      readonly documents: readonly string[];
      /** What a reranker that takes instructions should do; null: its own default. */
      readonly instruction: string | null;
    }
);

/** Token ids of texts, one text after another. */
export interface EncodedTexts {
  readonly ids: Int32Array<ArrayBuffer>;
  /** Text i ends before ids[ends[i]]. */
  readonly ends: Int32Array<ArrayBuffer>;
  /** Where each document begins in its pair; null: no pairs. */
  readonly seconds: Int32Array<ArrayBuffer> | null;
  /** The texts that were cut. */
  readonly cut: Int32Array<ArrayBuffer>;
}

/** What the HTTP thread keeps of a model's texts. */
export interface LoadedText {
  readonly vocabulary: Vocabulary;
  readonly vocabSize: number;
  /** Of config.json, generation_config.json and the tokenizer. */
  readonly eosIds: readonly number[];
  readonly generation: GenerationDefaults;
  readonly speech: SpeechFacts;
  /** Added tokens that are text. */
  readonly addedIds: readonly number[];
  readonly controls: readonly (readonly [text: string, id: number])[];
  /** What a line break alone is made of. */
  readonly newlineIds: readonly number[];
  /** Texts that an embedding model wants before its inputs, by name. */
  readonly prompts: readonly (readonly [name: string, text: string])[];
  readonly defaultPrompt: string | null;
  /** Ids of tokens that stand for no part of a text: its begin and end, padding, what is not known. */
  readonly wordlessIds: readonly number[];
}

export type FromText =
  | { readonly kind: "loaded"; readonly id: number; readonly loaded: LoadedText }
  | {
      readonly kind: "encoded";
      readonly id: number;
      readonly ids: Int32Array<ArrayBuffer>;
      /** What of the conversation had to be rewritten. */
      readonly notes: readonly string[];
    }
  | { readonly kind: "texts"; readonly id: number; readonly encoded: EncodedTexts }
  | { readonly kind: "failed"; readonly id: number; readonly error: ErrorData };
