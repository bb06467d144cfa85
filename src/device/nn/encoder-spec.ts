import type { TokenOutput } from "#core/contract";
import type { PoolingMode, RopeConfig, TensorInfo } from "#core/formats";

export type Activation = "gelu" | "geluTanh" | "silu" | "relu" | "tanh" | "sigmoid" | "identity";

/** How every norm of a model works. */
export interface NormSpec {
  readonly kind: "layer" | "rms";
  readonly eps: number;
  /** The weight is stored as its difference from 1. */
  readonly isOffset: boolean;
}

/** Attention within a text. H query heads share K key heads of D dimensions. */
export interface EncoderAttentionSpec {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Multiplies q·k. */
  readonly scale: number;
  /** Paths of the projections in the layer; one path: their rows lie one after another in one matrix. */
  readonly qkv: readonly [q: string, k: string, v: string] | string;
  readonly out: string;
  /** Path pattern of norms over each head's query and key: "self_attn.q_norm", "self_attn.k_norm". */
  readonly qkNorms: readonly [q: string, k: string] | null;
  readonly rope: RopeConfig | null;
  /** Keys seen before and after the token itself; null: all. */
  readonly before: number | null;
  readonly after: number | null;
}

export interface EncoderMlpSpec {
  readonly hidden: number;
  readonly activation: Activation;
  /** Paths in the layer. Gated: activation(gate) · up; one path: gate's and up's rows in one matrix. */
  readonly gate: string | null;
  readonly up: string;
  readonly down: string;
}

/**
 * x + outNorm(mix(inNorm(x))), then sumNorm of that, for attention and MLP; each norm is a path in the layer, null: none.
 */
export interface EncoderNorms {
  readonly in: string | null;
  readonly out: string | null;
  readonly sum: string | null;
}

export interface EncoderLayerSpec {
  readonly path: string;
  readonly attention: EncoderAttentionSpec;
  readonly attentionNorms: EncoderNorms;
  readonly mlp: EncoderMlpSpec;
  readonly mlpNorms: EncoderNorms;
}

/** One matrix of a head on the pooled row. */
export interface HeadLayerSpec {
  readonly path: string;
  readonly outputs: number;
  readonly activation: Activation;
  /** Norm after the activation. */
  readonly norm: string | null;
}

/** A matrix behind the model's rows. */
export interface HeadMatrixSpec {
  readonly path: string;
  /** In files of its own; null: among the model's. */
  readonly tensors: ReadonlyMap<string, TensorInfo> | null;
  readonly inputs: number;
  readonly outputs: number;
  readonly activation: Activation;
}

/** Numbers for each token, beside the text's row. */
export interface TokenHeadSpec extends HeadMatrixSpec {
  readonly output: TokenOutput;
  /** Each token's numbers have length 1. */
  readonly normalizes: boolean;
}

/** What a text's row is made of its tokens' rows. */
export type HeadSpec =
  | {
      readonly kind: "vector";
      readonly pooling: readonly PoolingMode[];
      readonly dense: readonly HeadMatrixSpec[];
      readonly normalizes: boolean;
      readonly tokens: readonly TokenHeadSpec[];
    }
  /** A classifier's labels: one is a logit, of several the last one's share counts. */
  | {
      readonly kind: "labels";
      readonly pooling: PoolingMode;
      readonly layers: readonly HeadLayerSpec[];
    }
  /** Share of one token against another as the next one. */
  | { readonly kind: "nextToken"; readonly yes: number; readonly no: number };

/** A whole encoder, as data: what a family says about itself, and all that the encoder loop knows. */
export interface EncoderSpec {
  readonly hidden: number;
  readonly vocab: number;
  readonly norm: NormSpec;
  readonly embedding: {
    readonly words: string;
    /** Multiplies the rows of words. */
    readonly scale: number;
    /** Learned rows by position, the first one at index `offset`. */
    readonly positions: {
      readonly path: string;
      readonly count: number;
      readonly offset: number;
    } | null;
    /** Learned rows by part of the text. */
    readonly types: { readonly path: string; readonly count: number } | null;
    readonly norm: string | null;
  };
  readonly layers: readonly EncoderLayerSpec[];
  readonly finalNorm: string | null;
  /** Path of the matrix that gives the next token's logits: the embedding or a matrix of its own. */
  readonly lmHead: string;
  readonly head: HeadSpec;
  /** Tensors of the checkpoint that the model does not need. */
  readonly unused: readonly RegExp[];
}
