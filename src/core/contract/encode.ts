/** Numbers for each token of a text, beside the text's row: a weight as a word to search for, a vector (BGE-M3). */
export type TokenOutput = "lexical" | "colbert";

/**
 * Texts that a model turns into numbers, a row for each: vectors of an embedding model, scores of a reranker.
 */
export interface EncodeRequest {
  /** Unique among the open requests of one engine. */
  readonly id: string;
  /** Token ids of all texts, one text after the other. No text is empty. */
  readonly ids: Int32Array;
  /** Text i ends before ids[ends[i]]. */
  readonly ends: Int32Array;
  /** Where the second part of each text begins (a reranker's document), counted within the text; null: all have one part. */
  readonly seconds: Int32Array | null;
  /** What is asked for beside the rows; the model must have it (LoadedInfo.tokenWidths). */
  readonly tokenOutputs: readonly TokenOutput[];
}

/** What the device floor answers to an EncodeRequest. The last event is always "done"; errors are thrown. */
export type EncodeEvent =
  | {
      readonly kind: "rows";
      /** Which texts: indices into the request's. In any order, each once. */
      readonly texts: Int32Array;
      /** Their rows, LoadedInfo.rowWidth numbers each. */
      readonly values: Float32Array;
      /** What was asked for of their tokens, text after text in the order of `texts`. */
      readonly tokens: Readonly<Partial<Record<TokenOutput, Float32Array>>>;
    }
  | { readonly kind: "done" };
