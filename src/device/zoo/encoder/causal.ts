import type { EncoderSpec, HeadSpec } from "#device/nn";
import { activationOf, type EncoderFolder, norms, prefixOf } from "./base.ts";

/** Qwen2, Qwen3, Llama and Mistral as encoders: the decoder without its head, from left to right, last token. */
export function causal(folder: EncoderFolder): EncoderSpec {
  const { config, head } = folder;
  const { hiddenSize, headDim } = config;
  const prefix = prefixOf(folder, "embed_tokens.weight", ["", "model."]);
  const hasNorms = folder.has(`${prefix}layers.0.self_attn.q_norm.weight`);
  const classifier: HeadSpec = {
    kind: "labels",
    pooling: "lastToken",
    layers: [{ path: "score", outputs: folder.labels, activation: "identity", norm: null }],
  };
  const lmHead = config.tieWordEmbeddings ? `${prefix}embed_tokens` : "lm_head";
  return {
    hidden: hiddenSize,
    vocab: config.vocabSize,
    norm: { kind: "rms", eps: config.eps, isOffset: false },
    embedding: {
      words: `${prefix}embed_tokens`,
      scale: 1,
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
        scale: headDim ** -0.5,
        qkv: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        out: "self_attn.o_proj",
        qkNorms: hasNorms ? ["self_attn.q_norm", "self_attn.k_norm"] : null,
        rope: config.rope,
        before: isSliding(i) ? (config.slidingWindow ?? 1) - 1 : null,
        after: 0,
      },
      attentionNorms: norms("input_layernorm", null, null),
      mlp: {
        hidden: config.intermediateSize,
        activation: activationOf(config, ["hidden_act"], "silu"),
        gate: "mlp.gate_proj",
        up: "mlp.up_proj",
        down: "mlp.down_proj",
      },
      mlpNorms: norms("post_attention_layernorm", null, null),
    })),
    finalNorm: `${prefix}norm`,
    lmHead,
    head: head ?? classifier,
    unused: [/\.rotary_emb\.inv_freq$/, ...(head?.kind === "nextToken" ? [] : [/^lm_head\./])],
  };

  function isSliding(layer: number): boolean {
    if (config.slidingWindow === null) return false;
    return config.layerTypes ? config.layerTypes[layer] === "sliding_attention" : true;
  }
}
