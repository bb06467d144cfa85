/**
 * @module The families: a literal table from model_type to the record that builds it.
 */
import { type Architecture, isArchitecture, OmlxError } from "#core/contract";
import { foreignQuantization, type ModelConfig, readModelFolder } from "#core/formats";
import type { Dtype } from "#device/mlx";
import { buildDecoder, type DecoderSpec, type Kernels, type Model, openWeights } from "#device/nn";
import { llama } from "./llm/llama.ts";
import { qwen2 } from "./llm/qwen2.ts";
import { qwen3 } from "./llm/qwen3.ts";

export type { EncodePass, Encoder, Model } from "#device/nn";
export { openEncoder } from "./encoder/index.ts";

const FAMILIES = {
  llama,
  mistral: llama,
  qwen2,
  qwen3,
} satisfies Record<Architecture, (config: ModelConfig) => DecoderSpec>;

/** A model folder, read but not yet built. */
export interface Checkpoint {
  /** Tokens of prompt and answer together that the model can attend to. */
  readonly contextWindow: number;
  /** Of the unquantized weights: what a GPU computes in. */
  readonly dtype: Dtype;
  /** Of config.json and generation_config.json. */
  readonly eosIds: readonly number[];
  readonly weightBytes: number;
  /**
   * Builds the model, which then owns the weights and the kernels' extras; both are freed if it fails.
   *
   * @throws {OmlxError} model_load naming a tensor that is missing, misshapen or left over
   */
  build(kernels: Kernels): Model;
}

/**
 * Reads config and weight headers of a folder.
 *
 * @throws {OmlxError} model_load when a file is broken or the family is not known
 */
export async function openCheckpoint(path: string): Promise<Checkpoint> {
  const { config, eosIds } = await readModelFolder(path);
  const type = config.modelType;
  if (!isArchitecture(type)) {
    throw new OmlxError({
      code: "model_load",
      message: `Cannot load the model: model_type "${type}" is not supported; supported are ${Object.keys(FAMILIES).join(", ")}`,
    });
  }
  const foreign = foreignQuantization(config);
  if (foreign !== undefined) {
    throw new OmlxError({ code: "model_load", message: `Cannot load the model: ${foreign}` });
  }
  const weights = await openWeights(path, config);
  return {
    contextWindow: windowOf(config),
    dtype: config.dtype === "float16" || config.dtype === "bfloat16" ? config.dtype : "float32",
    eosIds,
    weightBytes: weights.bytes,
    build(kernels) {
      try {
        if (kernels.placement(weights.isQuantized) === "memory") weights.preferMemory();
        const model = buildDecoder(FAMILIES[type](config), weights, kernels);
        weights.releasePages();
        return model;
      } catch (error) {
        kernels.dispose();
        weights.dispose();
        throw error;
      }
    },
  };
}

/** Attention here sees the whole text, so a model with sliding layers ends where their window does. */
function windowOf(config: ModelConfig): number {
  const slides = config.layerTypes?.some((type) => type !== "full_attention") ?? true;
  const window = slides ? config.slidingWindow : null;
  return Math.min(config.maxPositions, window ?? config.maxPositions);
}
