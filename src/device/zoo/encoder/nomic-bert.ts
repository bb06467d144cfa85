import type { EncoderSpec } from "#device/nn";
import { activationOf, type EncoderFolder, norms, prefixOf } from "./base.ts";

/** Nomic BERT: BERT with rotary positions and a gated SiLU, no biases (transformers models/nomic_bert). */
export function nomicBert(folder: EncoderFolder): EncoderSpec {
  const { config, head } = folder;
  const { raw, hiddenSize, numHeads, headDim } = config;
  const prefix = prefixOf(folder, "embeddings.word_embeddings.weight", ["", "bert.", "model."]);
  const number = (names: readonly string[], fallback: number) =>
    names.map((name) => raw[name]).find((value) => typeof value === "number") ?? fallback;
  const isNew = raw["rope_parameters"] !== undefined;
  const rope = isNew
    ? config.rope
    : { ...config.rope, theta: number(["rope_theta", "rotary_emb_base"], 1000) };
  return {
    hidden: hiddenSize,
    vocab: config.vocabSize,
    norm: {
      kind: "layer",
      eps: number(["layer_norm_eps", "layer_norm_epsilon"], 1e-12),
      isOffset: false,
    },
    embedding: {
      words: `${prefix}embeddings.word_embeddings`,
      scale: 1,
      positions: null,
      types: {
        path: `${prefix}embeddings.token_type_embeddings`,
        count: number(["type_vocab_size"], 2),
      },
      norm: `${prefix}emb_ln`,
    },
    layers: Array.from({ length: config.numLayers }, (_, i) => ({
      path: `${prefix}encoder.layers.${i}`,
      attention: {
        heads: numHeads,
        kvHeads: numHeads,
        headDim,
        scale: headDim ** -0.5,
        qkv: "attn.Wqkv",
        out: "attn.out_proj",
        qkNorms: null,
        rope,
        before: null,
        after: null,
      },
      attentionNorms: norms(null, null, "norm1"),
      mlp: {
        hidden: config.intermediateSize,
        activation: activationOf(config, ["hidden_act", "activation_function"], "silu"),
        gate: "mlp.fc12",
        up: "mlp.fc11",
        down: "mlp.fc2",
      },
      mlpNorms: norms(null, null, "norm2"),
    })),
    finalNorm: null,
    lmHead: `${prefix}embeddings.word_embeddings`,
    head: head ?? { kind: "vector", pooling: ["mean"], dense: [], normalizes: true, tokens: [] },
    unused: [/^cls\./, /(?:^|\.)pooler\./],
  };
}
