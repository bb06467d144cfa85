import type { Batch, KvCache } from "#device/cache";
import * as mx from "#device/mlx";
import type {
  Embedding,
  Kernels,
  Linear,
  LinearWeights,
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

type Attention = (x: mx.MxArray, layer: number, rotate: Rotation, cache: KvCache) => mx.MxArray;
type Mlp = (x: mx.MxArray) => mx.MxArray;

/** Both parts add to their input. */
interface Layer {
  readonly attention: Attention;
  /** Index into the step's rotations. */
  readonly rotation: number;
  readonly mlp: Mlp;
}

/**
 * The decoder loop over a spec: pre-norm layers of attention and gated MLP, as in mlx-lm's llama, qwen2 and qwen3.
 *
 * @throws {OmlxError} model_load naming a tensor that is missing, misshapen or left over
 */
export function buildDecoder(spec: DecoderSpec, weights: Weights, kernels: Kernels): Model {
  const rotations = new RotationTable(kernels);
  const embedMatrix = weights.matrix("model.embed_tokens", spec.vocab, spec.hidden);
  const embed: Embedding = kernels.embedding(embedMatrix);
  const layers = spec.layers.map(({ mix, ffn }, i): Layer => {
    const path = `model.layers.${i}`;
    const norm = (name: string) => normWeights(weights, `${path}.${name}`, spec);
    return {
      attention: attention(
        mix,
        norm("input_layernorm"),
        spec,
        weights,
        kernels,
        `${path}.self_attn`,
      ),
      rotation: rotations.index(mix),
      mlp: mlp(ffn, norm("post_attention_layernorm"), spec, weights, kernels, `${path}.mlp`),
    };
  });
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
      let x = embed(mx.array(batch.ids, [numRows], "int32")); // (T, E)
      layers.forEach((layer, i) => {
        x = layer.attention(x, i, rotation[layer.rotation] as Rotation, cache);
        x = layer.mlp(x);
      });
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

function attention(
  spec: AttentionSpec,
  norm: NormWeights,
  { hidden, eps }: DecoderSpec,
  weights: Weights,
  kernels: Kernels,
  path: string,
): Attention {
  const { heads, kvHeads, headDim, scale } = spec;
  const read = (name: string, rows: number, columns: number, biased: boolean) =>
    linearWeights(weights, `${path}.${name}`, rows, columns, biased);
  const qkvBias = spec.bias !== "none";
  const project = kernels.project(norm, [
    read("q_proj", heads * headDim, hidden, qkvBias),
    read("k_proj", kvHeads * headDim, hidden, qkvBias),
    read("v_proj", kvHeads * headDim, hidden, qkvBias),
  ]);
  const projectOnto = kernels.projectOnto(
    read("o_proj", hidden, heads * headDim, spec.bias === "all"),
  );
  const weightOf = (name: string) =>
    spec.qkNorm ? weights.take(`${path}.${name}.weight`, [headDim]) : null;
  const qWeight = weightOf("q_norm");
  const kWeight = weightOf("k_norm");
  const rowNorms = kernels.rowNorms(qWeight, kWeight, eps, spec.ropeTraditional);
  const perHead = (weight: mx.MxArray | null): Norm => {
    if (!weight) return (x) => x;
    const normalize = kernels.rmsNorm(weight, eps);
    return (x) => {
      const [rows = 0, width = 0] = x.shape;
      return mx.reshape(normalize(mx.reshape(x, [rows, width / headDim, headDim])), [rows, width]);
    };
  };
  const qNorm = perHead(qWeight);
  const kNorm = perHead(kWeight);
  return (x, layer, { rotate, table }, cache) => {
    // (T, H*D), (T, K*D) and (T, K*D)
    const [q, k, v] = project(x) as readonly [mx.MxArray, mx.MxArray, mx.MxArray];
    if (rowNorms && table) {
      return projectOnto(cache.attend(layer, q, k, v, scale, { norms: rowNorms, table }), x);
    }
    const rotated = [rotate(qNorm(q), heads), rotate(kNorm(k), kvHeads)] as const;
    return projectOnto(cache.attend(layer, ...rotated, v, scale, null), x);
  };
}

function mlp(
  spec: MlpSpec,
  norm: NormWeights,
  { hidden }: DecoderSpec,
  weights: Weights,
  kernels: Kernels,
  path: string,
): Mlp {
  const read = (name: string, rows: number, columns: number) =>
    linearWeights(weights, `${path}.${name}`, rows, columns, spec.bias);
  return kernels.mlp(
    norm,
    read("gate_proj", spec.hidden, hidden),
    read("up_proj", spec.hidden, hidden),
    read("down_proj", hidden, spec.hidden),
  );
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
