/** What a model folder is for. */
export type ModelKind = "llm" | "vlm" | "embedding" | "reranker";

/** One model on disk. */
export interface ModelEntry {
  /** The name clients use: the folder's or the GGUF file's name, or "group/name" two levels deep. */
  readonly id: string;
  /** Absolute path of the folder, or of a GGUF file (the first of its parts). */
  readonly path: string;
  readonly kind: ModelKind;
  readonly modelType: string;
  /** Tokens that fit into prompt and answer together. */
  readonly contextWindow: number;
  /** Sum of the weight files, for a GGUF file as converted. */
  readonly weightBytes: number;
  /** Seconds since 1970 of the folder's newest file. */
  readonly created: number;
  /** Why the folder cannot be served; such entries are listed with their reason, never loaded. */
  readonly problem?: string | undefined;
}
