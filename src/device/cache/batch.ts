/** The share of one sequence in a step: rows `[start, start + rows)` of the batch, in the order of the text. */
export interface Span {
  /** The sequence's key in the cache storage. */
  readonly seq: number;
  readonly start: number;
  readonly rows: number;
  /** Tokens of the sequence that the cache held before this step; the first row has this position. */
  readonly offset: number;
  /** Block ids that cover `[0, offset + rows)` of the sequence. */
  readonly blocks: readonly number[];
}

/** What one forward pass gets: T rows of many sequences, prefill chunks and decode tokens side by side. */
export interface Batch {
  /** Token ids (T). */
  readonly ids: Int32Array;
  /** Position of each row in its own sequence (T). */
  readonly positions: Int32Array;
  readonly spans: readonly Span[];
  /** Rows whose logits are needed, ascending. */
  readonly logitRows: Int32Array;
}
