import type { EncoderSpec } from "#device/nn";
import { activationOf, type EncoderFolder, norms, prefixOf } from "./base.ts";

/**
 * Gemma 3 as an encoder (EmbeddingGemma): norms before and after each part, most layers see a window, both ways where the
 * config says so (transformers models/gemma3).
 */
export function gemma3(folder: EncoderFolder): EncoderSpec {
  const { config, head } = folder;
  const { raw, hiddenSize, headDim } = config;
  const prefix = prefixOf(folder, "embed_tokens.weight", ["", "model.", "language_model.model."]);
  const isBoth = raw["use_bidirectional_attention"] === true;
  const scalar = raw["query_pre_attn_scalar"];
  const window = config.slidingWindow ?? 512;
  const isSliding = (i: number) =>
    config.layerTypes ? config.layerTypes[i] === "sliding_attention" : (i + 1) % 6 !== 0;
  // a stored window counts both sides where attention goes both ways
  const reach = isBoth ? Math.floor(window / 2) : window - 1;
  return {
    hidden: hiddenSize,
    vocab: config.vocabSize,
    norm: { kind: "rms", eps: config.eps, isOffset: true },
    embedding: {
      words: `${prefix}embed_tokens`,
      scale: Math.fround(Math.sqrt(hiddenSize)),
      positions: null,
      types: null,
      norm: null,
    },
    layers: Array.from({ length: config.numLayers }, (_, i) => ({
      path: `${prefix}layers.${i}`,
      attention: {
        heads: config.numHeads,
        kvHeads: config.numKvHeads,
        headDim,
        scale: (typeof scalar === "number" ? scalar : headDim) ** -0.5,
        qkv: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        out: "self_attn.o_proj",
        qkNorms: ["self_attn.q_norm", "self_attn.k_norm"],
        rope: isSliding(i) ? (config.slidingRope ?? config.rope) : config.rope,
        before: isSliding(i) ? reach : null,
        after: isBoth ? (isSliding(i) ? reach : null) : 0,
      },
      attentionNorms: norms("input_layernorm", "post_attention_layernorm", null),
      mlp: {
        hidden: config.intermediateSize,
        activation: activationOf(config, ["hidden_activation"], "geluTanh"),
        gate: "mlp.gate_proj",
        up: "mlp.up_proj",
        down: "mlp.down_proj",
      },
      mlpNorms: norms("pre_feedforward_layernorm", "post_feedforward_layernorm", null),
    })),
    finalNorm: `${prefix}norm`,
    lmHead: `${prefix}embed_tokens`,
    head: head ?? { kind: "vector", pooling: ["mean"], dense: [], normalizes: true, tokens: [] },
    unused: [/\.rotary_emb\.inv_freq$/, /^lm_head\./],
  };
}
