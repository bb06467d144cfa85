import type { ModelConfig } from "#core/formats";
import type { AttentionSpec, DecoderSpec } from "#device/nn";

/** What a family changes in the llama-shaped record. */
export interface Overrides {
  readonly attention?: Partial<AttentionSpec>;
}

/** The llama-shaped record: pre-norm, rotary GQA attention, SwiGLU; every layer alike. */
export function base(config: ModelConfig, over: Overrides = {}): DecoderSpec {
  const mix: AttentionSpec = {
    heads: config.numHeads,
    kvHeads: config.numKvHeads,
    headDim: config.headDim,
    scale: config.headDim ** -0.5,
    rope: config.rope,
    ropeTraditional: false,
    bias: "none",
    qkNorm: false,
    ...over.attention,
  };
  const ffn = { hidden: config.intermediateSize, bias: config.mlpBias };
  return {
    hidden: config.hiddenSize,
    vocab: config.vocabSize,
    eps: config.eps,
    tied: config.tieWordEmbeddings,
    layers: Array.from({ length: config.numLayers }, () => ({ mix, ffn })),
    unused: [/\.rotary_emb\.inv_freq$/, ...(config.tieWordEmbeddings ? [/^lm_head\./] : [])],
  };
}
