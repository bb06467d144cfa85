import { positionsOf } from "#core/formats";
import type { EncoderAttentionSpec, EncoderSpec, HeadSpec } from "#device/nn";
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
  return record(folder, prefix, PLAIN, classifier, 0);
}

/**
 * RoBERTa and XLM-RoBERTa: BERT with positions that begin behind the padding id (transformers models/xlm_roberta). Jina's
 * rerankers of that shape name its parts as flash-attention's BERT does.
 */
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
  const names = folder.has(`${prefix}encoder.layers.0.${FUSED.qkv}.weight`) ? FUSED : PLAIN;
  return record(folder, prefix, names, classifier, config.maxPositions - positionsOf(config));
}

/** What the parts are called. */
interface Names {
  readonly embeddingNorm: string;
  readonly layers: string;
  readonly qkv: EncoderAttentionSpec["qkv"];
  readonly out: string;
  readonly attentionNorm: string;
  readonly up: string;
  readonly down: string;
  readonly mlpNorm: string;
}

const PLAIN: Names = {
  embeddingNorm: "embeddings.LayerNorm",
  layers: "encoder.layer",
  qkv: ["attention.self.query", "attention.self.key", "attention.self.value"],
  out: "attention.output.dense",
  attentionNorm: "attention.output.LayerNorm",
  up: "intermediate.dense",
  down: "output.dense",
  mlpNorm: "output.LayerNorm",
};

const FUSED: Names = {
  embeddingNorm: "emb_ln",
  layers: "encoder.layers",
  qkv: "mixer.Wqkv",
  out: "mixer.out_proj",
  attentionNorm: "norm1",
  up: "mlp.fc1",
  down: "mlp.fc2",
  mlpNorm: "norm2",
};

function record(
  { config, head }: EncoderFolder,
  prefix: string,
  names: Names,
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
      norm: prefix + names.embeddingNorm,
    },
    layers: Array.from({ length: config.numLayers }, (_, i) => ({
      path: `${prefix}${names.layers}.${i}`,
      attention: {
        heads: numHeads,
        kvHeads: numHeads,
        headDim,
        scale: headDim ** -0.5,
        qkv: names.qkv,
        out: names.out,
        qkNorms: null,
        rope: null,
        before: null,
        after: null,
      },
      attentionNorms: norms(null, null, names.attentionNorm),
      mlp: {
        hidden: config.intermediateSize,
        activation: activationOf(config, ["hidden_act"], "gelu"),
        gate: null,
        up: names.up,
        down: names.down,
      },
      mlpNorms: norms(null, null, names.mlpNorm),
    })),
    finalNorm: null,
    lmHead: at("word_embeddings"),
    head: head ?? classifier,
    unused: [/position_ids$/, /^cls\./, /^lm_head\./, /(?:^|\.)pooler\./],
  };
}
