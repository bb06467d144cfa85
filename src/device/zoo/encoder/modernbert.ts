import type { RopeConfig } from "#core/formats";
import type { EncoderSpec, HeadSpec } from "#device/nn";
import { activationOf, type EncoderFolder, norms, prefixOf } from "./base.ts";

/**
 * ModernBERT: rotary positions, norms before each part, gated GELU; every third layer sees the whole text, the others a
 * window (transformers models/modernbert).
 */
export function modernbert(folder: EncoderFolder): EncoderSpec {
  const { config, head } = folder;
  const { raw, hiddenSize, numHeads, headDim } = config;
  const prefix = prefixOf(folder, "embeddings.tok_embeddings.weight", ["", "model."]);
  const number = (name: string, fallback: number) =>
    typeof raw[name] === "number" ? raw[name] : fallback;
  const window = Math.floor(number("local_attention", 128) / 2);
  const period = number("global_attn_every_n_layers", 3);
  const isGlobal = (i: number) =>
    config.layerTypes ? config.layerTypes[i] === "full_attention" : i % period === 0;
  const theta = (rope: RopeConfig, name: string, fallback: number): RopeConfig =>
    raw["rope_parameters"] === undefined ? { ...rope, theta: number(name, fallback) } : rope;
  const globalRope = theta(config.rope, "global_rope_theta", 160_000);
  const localRope = theta(config.slidingRope ?? config.rope, "local_rope_theta", 10_000);
  const classifier: HeadSpec = {
    kind: "labels",
    pooling: raw["classifier_pooling"] === "mean" ? "mean" : "cls",
    layers: [
      {
        path: "head.dense",
        outputs: hiddenSize,
        activation: activationOf(config, ["classifier_activation"], "gelu"),
        norm: "head.norm",
      },
      { path: "classifier", outputs: folder.labels, activation: "identity", norm: null },
    ],
  };
  return {
    hidden: hiddenSize,
    vocab: config.vocabSize,
    norm: { kind: "layer", eps: number("norm_eps", 1e-5), isOffset: false },
    embedding: {
      words: `${prefix}embeddings.tok_embeddings`,
      scale: 1,
      positions: null,
      types: null,
      norm: `${prefix}embeddings.norm`,
    },
    layers: Array.from({ length: config.numLayers }, (_, i) => ({
      path: `${prefix}layers.${i}`,
      attention: {
        heads: numHeads,
        kvHeads: numHeads,
        headDim,
        scale: headDim ** -0.5,
        qkv: "attn.Wqkv",
        out: "attn.Wo",
        qkNorms: null,
        rope: isGlobal(i) ? globalRope : localRope,
        before: isGlobal(i) ? null : window,
        after: isGlobal(i) ? null : window,
      },
      attentionNorms: norms(i === 0 ? null : "attn_norm", null, null),
      mlp: {
        hidden: config.intermediateSize,
        activation: activationOf(config, ["hidden_activation"], "gelu"),
        gate: "mlp.Wi",
        up: "mlp.Wi",
        down: "mlp.Wo",
      },
      mlpNorms: norms("mlp_norm", null, null),
    })),
    finalNorm: `${prefix}final_norm`,
    lmHead: `${prefix}embeddings.tok_embeddings`,
    head: head ?? classifier,
    unused: [/^decoder\./, ...(head ? [/^head\./] : [])],
  };
}
