import type { Batch, KvCache } from "#device/cache";
import * as mx from "#device/mlx";
import type { Embedding, Kernels, Linear, Norm, Rotation } from "./kernels.ts";
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

interface Layer {
  readonly inputNorm: Norm;
  readonly attention: Attention;
  /** Index into the step's rotations. */
  readonly rotation: number;
  readonly postNorm: Norm;
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
    return {
      inputNorm: norm(weights, kernels, `${path}.input_layernorm`, spec.hidden, spec.eps),
      attention: attention(mix, spec, weights, kernels, `${path}.self_attn`),
      rotation: rotations.index(mix),
      postNorm: norm(weights, kernels, `${path}.post_attention_layernorm`, spec.hidden, spec.eps),
      mlp: mlp(ffn, spec.hidden, weights, kernels, `${path}.mlp`),
    };
  });
  const finalNorm = norm(weights, kernels, "model.norm", spec.hidden, spec.eps);
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
        const r = layer.attention(
          layer.inputNorm(x),
          i,
          rotation[layer.rotation] as Rotation,
          cache,
        );
        x = mx.add(x, r);
        x = mx.add(x, layer.mlp(layer.postNorm(x)));
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
  { hidden, eps }: DecoderSpec,
  weights: Weights,
  kernels: Kernels,
  path: string,
): Attention {
  const { heads, kvHeads, headDim, scale } = spec;
  const project = (name: string, rows: number, columns: number, biased: boolean): Linear => {
    const linearPath = `${path}.${name}`;
    const bias = biased ? weights.bias(linearPath, rows) : null;
    return kernels.linear(weights.matrix(linearPath, rows, columns), bias);
  };
  const qkvBias = spec.bias !== "none";
  const qProj = project("q_proj", heads * headDim, hidden, qkvBias);
  const kProj = project("k_proj", kvHeads * headDim, hidden, qkvBias);
  const vProj = project("v_proj", kvHeads * headDim, hidden, qkvBias);
  const oProj = project("o_proj", hidden, heads * headDim, spec.bias === "all");
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
    const q = qProj(x); // (T, H*D)
    const k = kProj(x); // (T, K*D)
    const v = vProj(x);
    if (rowNorms && table) {
      return oProj(cache.attend(layer, q, k, v, scale, { norms: rowNorms, table }));
    }
    const rotated = [rotate(qNorm(q), heads), rotate(kNorm(k), kvHeads)] as const;
    return oProj(cache.attend(layer, ...rotated, v, scale, null));
  };
}

function mlp(spec: MlpSpec, hidden: number, weights: Weights, kernels: Kernels, path: string): Mlp {
  const project = (name: string, rows: number, columns: number): Linear => {
    const linearPath = `${path}.${name}`;
    const bias = spec.bias ? weights.bias(linearPath, rows) : null;
    return kernels.linear(weights.matrix(linearPath, rows, columns), bias);
  };
  const gateProj = project("gate_proj", spec.hidden, hidden);
  const upProj = project("up_proj", spec.hidden, hidden);
  const downProj = project("down_proj", hidden, spec.hidden);
  return (x) => downProj(kernels.swiglu(gateProj(x), upProj(x)));
}

function norm(weights: Weights, kernels: Kernels, path: string, size: number, eps: number): Norm {
  return kernels.rmsNorm(weights.take(`${path}.weight`, [size]), eps);
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
