import type { RopeConfig } from "#core/formats";

/** Grouped-query attention. H query heads share K key heads of D dimensions. */
export interface AttentionSpec {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Multiplies q·k. */
  readonly scale: number;
  readonly rope: RopeConfig;
  readonly ropeTraditional: boolean;
  /** Which projections have an additive bias. */
  readonly bias: "none" | "qkv" | "all";
  /** RMS norm over each head's query and key, before rotation. */
  readonly qkNorm: boolean;
}

export interface MlpSpec {
  readonly hidden: number;
  readonly bias: boolean;
}

export interface LayerSpec {
  readonly mix: AttentionSpec;
  readonly ffn: MlpSpec;
}

/** A whole decoder, as data: what a family says about itself, and all that the decoder loop knows. */
export interface DecoderSpec {
  readonly hidden: number;
  readonly vocab: number;
  readonly eps: number;
  /** The head is the embedding. */
  readonly tied: boolean;
  readonly layers: readonly LayerSpec[];
  /** Tensors of the checkpoint that the model does not need. */
  readonly unused: readonly RegExp[];
}
