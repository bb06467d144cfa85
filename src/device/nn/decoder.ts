import type { Batch, KvCache } from "#device/cache";
import * as mx from "#device/mlx";
import type {
  AttentionPart,
  Embedding,
  Kernels,
  Linear,
  LinearWeights,
  MlpPart,
  Norm,
  NormWeights,
  Rotation,
} from "./kernels.ts";
import { type RopeFrequencies, ropeFrequencies } from "./rope.ts";
import type { AttentionSpec, DecoderSpec, MlpSpec } from "./spec.ts";
import type { Weights } from "./weights.ts";

/** A model that continues texts, as the runner sees it. */
export interface Model {
  readonly vocabSize: number;
  readonly layers: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /**
   * One ragged step: evaluates nothing when logits are asked for.
   *
   * @returns logits (R, V) float32 of `batch.logitRows`, lazy; null when no row's logits are needed (keys and values are
   *   then written when it returns)
   */
  forward(batch: Batch, cache: KvCache): mx.MxArray | null;
  dispose(): void;
}

/**
 * The decoder of a spec: pre-norm layers of attention and gated MLP, as in mlx-lm's llama, qwen2 and qwen3.
 *
 * @throws {OmlxError} model_load naming a tensor that is missing, misshapen or left over
 */
export function buildDecoder(spec: DecoderSpec, weights: Weights, kernels: Kernels): Model {
  const rotations = new RotationTable(kernels);
  const embedMatrix = weights.matrix("model.embed_tokens", spec.vocab, spec.hidden);
  const embed: Embedding = kernels.embedding(embedMatrix);
  const stack = kernels.stack(
    spec.layers.flatMap(({ mix, ffn }, layer) => {
      const path = `model.layers.${layer}`;
      const norm = (name: string) => normWeights(weights, `${path}.${name}`, spec);
      const rotation = rotations.index(mix);
      const before = norm("input_layernorm");
      const attention = readAttention(mix, before, spec, weights, `${path}.self_attn`);
      const between = norm("post_attention_layernorm");
      return [
        { ...attention, rotation, layer },
        readMlp(ffn, between, spec, weights, `${path}.mlp`),
      ];
    }),
  );
  const last = normWeights(weights, "model.norm", spec);
  const finalNorm: Norm = kernels.rmsNorm(last.weight, last.eps);
  const head: Linear = kernels.linear(
    spec.tied ? embedMatrix : weights.matrix("lm_head", spec.vocab, spec.hidden),
    null,
  );
  weights.audit(spec.unused);

  const { kvHeads, headDim } = (spec.layers[0] as DecoderSpec["layers"][number]).mix;
  return {
    vocabSize: spec.vocab,
    layers: spec.layers.length,
    kvHeads,
    headDim,
    forward(batch, cache) {
      const numRows = batch.ids.length;
      const positions = mx.array(batch.positions, [numRows], "int32");
      const rotation = rotations.at(positions);
      cache.begin(batch);
      let x = stack(embed(mx.array(batch.ids, [numRows], "int32")), rotation, cache); // (T, E)
      const needed = batch.logitRows.length;
      if (needed === 0) {
        mx.evaluate(x);
        return null;
      }
      if (needed < numRows) x = mx.take(x, mx.array(batch.logitRows, [needed], "int32"), 0);
      return mx.astype(head(finalNorm(x)), "float32"); // (R, V)
    },
    dispose() {
      kernels.dispose();
      weights.dispose();
    },
  };
}

function readAttention(
  spec: AttentionSpec,
  norm: NormWeights,
  { hidden }: DecoderSpec,
  weights: Weights,
  path: string,
): Omit<AttentionPart, "rotation" | "layer"> {
  const { heads, kvHeads, headDim, scale, ropeTraditional: traditional } = spec;
  const read = (name: string, rows: number, columns: number, biased: boolean) =>
    linearWeights(weights, `${path}.${name}`, rows, columns, biased);
  const qkvBias = spec.bias !== "none";
  const headNorm = (name: string) =>
    spec.qkNorm ? weights.take(`${path}.${name}.weight`, [headDim]) : null;
  return {
    kind: "attention",
    norm,
    q: read("q_proj", heads * headDim, hidden, qkvBias),
    k: read("k_proj", kvHeads * headDim, hidden, qkvBias),
    v: read("v_proj", kvHeads * headDim, hidden, qkvBias),
    o: read("o_proj", hidden, heads * headDim, spec.bias === "all"),
    qNorm: headNorm("q_norm"),
    kNorm: headNorm("k_norm"),
    ...{ heads, kvHeads, headDim, scale, traditional },
  };
}

function readMlp(
  spec: MlpSpec,
  norm: NormWeights,
  { hidden }: DecoderSpec,
  weights: Weights,
  path: string,
): MlpPart {
  const read = (name: string, rows: number, columns: number) =>
    linearWeights(weights, `${path}.${name}`, rows, columns, spec.bias);
  return {
    kind: "mlp",
    norm,
    gate: read("gate_proj", spec.hidden, hidden),
    up: read("up_proj", spec.hidden, hidden),
    down: read("down_proj", hidden, spec.hidden),
  };
}

function linearWeights(
  weights: Weights,
  path: string,
  rows: number,
  columns: number,
  biased: boolean,
): LinearWeights {
  const bias = biased ? weights.bias(path, rows) : null;
  return { matrix: weights.matrix(path, rows, columns), bias };
}

function normWeights(weights: Weights, path: string, { hidden, eps }: DecoderSpec): NormWeights {
  return { weight: weights.take(`${path}.weight`, [hidden]), eps };
}

/** The distinct rotary embeddings of a model; layers that agree share one table per step. */
class RotationTable {
  readonly #kernels: Kernels;
  readonly #keys: string[] = [];
  readonly #makers: ((positions: mx.MxArray) => Rotation)[] = [];

  constructor(kernels: Kernels) {
    this.#kernels = kernels;
  }

  index(spec: AttentionSpec): number {
    const key = JSON.stringify([spec.rope, spec.headDim, spec.ropeTraditional]);
    const known = this.#keys.indexOf(key);
    if (known >= 0) return known;
    const frequencies: RopeFrequencies = ropeFrequencies(spec.rope);
    this.#makers.push(this.#kernels.rotation(frequencies, spec.headDim, spec.ropeTraditional));
    return this.#keys.push(key) - 1;
  }

  at(positions: mx.MxArray): Rotation[] {
    return this.#makers.map((make) => make(positions));
  }
}
