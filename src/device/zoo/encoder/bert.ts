import { positionsOf } from "#core/formats";
import type { EncoderSpec, HeadSpec } from "#device/nn";
import { activationOf, type EncoderFolder, norms, prefixOf } from "./base.ts";

/** BERT: learned positions, norms after each sum, GELU (transformers models/bert). */
export function bert(folder: EncoderFolder): EncoderSpec {
  const prefix = prefixOf(folder, "embeddings.word_embeddings.weight", ["", "bert.", "model."]);
  const pooler = { path: `${prefix}pooler.dense`, outputs: folder.config.hiddenSize };
  const classifier: HeadSpec = {
    kind: "labels",
    pooling: "cls",
    layers: [
      { ...pooler, activation: "tanh", norm: null },
      { path: "classifier", outputs: folder.labels, activation: "identity", norm: null },
    ],
  };
  return record(folder, prefix, classifier, 0);
}

/** RoBERTa and XLM-RoBERTa: BERT with positions that begin behind the padding id (transformers models/xlm_roberta). */
export function roberta(folder: EncoderFolder): EncoderSpec {
  const { config } = folder;
  const prefix = prefixOf(folder, "embeddings.word_embeddings.weight", ["", "roberta.", "model."]);
  const dense = { path: "classifier.dense", outputs: config.hiddenSize };
  const classifier: HeadSpec = {
    kind: "labels",
    pooling: "cls",
    layers: [
      { ...dense, activation: "tanh", norm: null },
      { path: "classifier.out_proj", outputs: folder.labels, activation: "identity", norm: null },
    ],
  };
  return record(folder, prefix, classifier, config.maxPositions - positionsOf(config));
}

function record(
  { config, head }: EncoderFolder,
  prefix: string,
  classifier: HeadSpec,
  offset: number,
): EncoderSpec {
  const { raw, hiddenSize, numHeads, headDim } = config;
  const eps = typeof raw["layer_norm_eps"] === "number" ? raw["layer_norm_eps"] : 1e-12;
  const types = typeof raw["type_vocab_size"] === "number" ? raw["type_vocab_size"] : 2;
  const at = (name: string) => `${prefix}embeddings.${name}`;
  return {
    hidden: hiddenSize,
    vocab: config.vocabSize,
    norm: { kind: "layer", eps, isOffset: false },
    embedding: {
      words: at("word_embeddings"),
      scale: 1,
      positions: { path: at("position_embeddings"), count: config.maxPositions, offset },
      types: { path: at("token_type_embeddings"), count: types },
      norm: at("LayerNorm"),
    },
    layers: Array.from({ length: config.numLayers }, (_, i) => ({
      path: `${prefix}encoder.layer.${i}`,
      attention: {
        heads: numHeads,
        kvHeads: numHeads,
        headDim,
        scale: headDim ** -0.5,
        qkv: ["attention.self.query", "attention.self.key", "attention.self.value"],
        out: "attention.output.dense",
        qkNorms: null,
        rope: null,
        before: null,
        after: null,
      },
      attentionNorms: norms(null, null, "attention.output.LayerNorm"),
      mlp: {
        hidden: config.intermediateSize,
        activation: activationOf(config, ["hidden_act"], "gelu"),
        gate: null,
        up: "intermediate.dense",
        down: "output.dense",
      },
      mlpNorms: norms(null, null, "output.LayerNorm"),
    })),
    finalNorm: null,
    lmHead: at("word_embeddings"),
    head: head ?? classifier,
    unused: [/position_ids$/, /^cls\./, /^lm_head\./, /(?:^|\.)pooler\./],
  };
}
