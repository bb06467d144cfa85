import { join } from "node:path";
import { ENCODERS, type EncoderArchitecture, type ModelKind, OmlxError } from "#core/contract";
import {
  findTokenHeads,
  foreignQuantization,
  isObject,
  type ModelConfig,
  positionsOf,
  readJsonFile,
  readModelFolder,
  readSentencePipeline,
  readTensors,
  type SentencePipeline,
  type TensorInfo,
} from "#core/formats";
import type { Dtype } from "#device/mlx";
import {
  buildEncoder,
  type Encoder,
  type EncoderKernels,
  type EncoderSpec,
  type HeadMatrixSpec,
  type HeadSpec,
  type Kernels,
  type TokenHeadSpec,
  Weights,
} from "#device/nn";
import type { EncoderFolder } from "./base.ts";
import { bert, roberta } from "./bert.ts";
import { causal } from "./causal.ts";
import { gemma3 } from "./gemma3.ts";
import { modernbert } from "./modernbert.ts";
import { nomicBert } from "./nomic-bert.ts";

const FAMILIES = {
  bert,
  gemma3_text: gemma3,
  llama: causal,
  mistral: causal,
  modernbert,
  nomic_bert: nomicBert,
  qwen2: causal,
  qwen3: causal,
  roberta,
  "xlm-roberta": roberta,
} satisfies Record<EncoderArchitecture, (folder: EncoderFolder) => EncoderSpec>;

/** A folder with an embedding model or a reranker, read but not yet built. */
export interface EncoderCheckpoint {
  /** Tokens of one text. */
  readonly contextWindow: number;
  /** Of the weights: what a GPU computes in. */
  readonly dtype: Dtype;
  readonly weightBytes: number;
  /**
   * Builds the model, which then owns the weights and the kernels' extras; both are freed if it fails.
   *
   * @throws {OmlxError} model_load naming a tensor that is missing, misshapen or left over
   */
  build(kernels: Kernels, more: EncoderKernels): Encoder;
}

/**
 * Reads config and weight headers of a folder.
 *
 * @throws {OmlxError} model_load when a file is broken, or the family is not known for this purpose
 */
export async function openEncoder(
  path: string,
  purpose: Extract<ModelKind, "embedding" | "reranker">,
): Promise<EncoderCheckpoint> {
  const { config } = readModelFolder(path);
  const { modelType } = config;
  if (!Object.hasOwn(FAMILIES, modelType)) {
    const known = Object.keys(ENCODERS).join(", ");
    throw loadError(
      `model_type "${modelType}" as ${purpose} model is not supported; supported are ${known}`,
    );
  }
  const foreign = foreignQuantization(config);
  if (foreign !== undefined) throw loadError(foreign);
  const tensors = readTensors(path);
  const head =
    purpose === "embedding" ? vectorHead(path, config, tensors) : rerankHead(path, config);
  const weights = new Weights(path, config, tensors);
  const contextWindow =
    purpose === "embedding" ? readSentencePipeline(path, config).maxTokens : positionsOf(config);
  return {
    contextWindow,
    dtype: config.dtype === "float16" || config.dtype === "bfloat16" ? config.dtype : "float32",
    weightBytes: weights.bytes,
    build(kernels, more) {
      const folder: EncoderFolder = {
        config,
        has: (name) => weights.has(name),
        labels: labelsOf(config),
        head,
      };
      try {
        const spec = FAMILIES[modelType as EncoderArchitecture](folder);
        return buildEncoder(spec, weights, kernels, more);
      } catch (error) {
        kernels.dispose();
        weights.dispose();
        throw error;
      }
    },
  };
}

function vectorHead(
  path: string,
  config: ModelConfig,
  tensors: ReadonlyMap<string, TensorInfo>,
): HeadSpec {
  const pipeline = readSentencePipeline(path, config);
  const { pooling, normalizes } = pipeline;
  const own = pipeline.dense.map(
    (module): HeadMatrixSpec => ({ ...module, path: "linear", tensors: readTensors(module.path) }),
  );
  const inputs = pooling.length * config.hiddenSize;
  const dense = own.length > 0 ? own : denseOfModel(inputs, pipeline, tensors);
  const tokens = findTokenHeads(path, tensors).map(
    (head): TokenHeadSpec => ({
      ...head,
      inputs: config.hiddenSize,
      outputs: head.width,
      activation: head.output === "lexical" ? "relu" : "identity",
      normalizes: head.output === "colbert",
    }),
  );
  return { kind: "vector", pooling, dense, normalizes, tokens };
}

/** MLX's converters put the matrices behind the pooling among the model's own: "dense.0", "dense.1". */
function denseOfModel(
  inputs: number,
  { lostDense }: SentencePipeline,
  tensors: ReadonlyMap<string, TensorInfo>,
): HeadMatrixSpec[] {
  const found: HeadMatrixSpec[] = [];
  for (let width = inputs; ; ) {
    const path = `dense.${found.length}`;
    const outputs = tensors.get(`${path}.weight`)?.shape[0];
    if (outputs === undefined) break;
    found.push({ path, tensors: null, inputs: width, outputs, activation: "identity" });
    width = outputs;
  }
  const lost = lostDense[found.length];
  if (lost === undefined) return found;
  throw loadError(`the module "${lost}" of modules.json is neither a folder nor in the weights`);
}

/** null: the checkpoint's own classifier. A model that generates answers with the tokens "yes" and "no". */
function rerankHead(path: string, config: ModelConfig): HeadSpec | null {
  if (!config.architectures.some((name) => name.endsWith("ForCausalLM"))) return null;
  const [yes, no] = ["yes", "no"].map((token) => tokenId(path, token)) as [number, number];
  return { kind: "nextToken", yes, no };
}

function tokenId(path: string, token: string): number {
  const model = readJsonFile(join(path, "tokenizer.json"))?.["model"];
  const vocabulary = isObject(model) ? model["vocab"] : undefined;
  const id = isObject(vocabulary) ? vocabulary[token] : undefined;
  if (typeof id === "number") return id;
  throw loadError(
    `its tokenizer has no token "${token}", which a reranker of this kind answers with`,
  );
}

/** One label unless the file says otherwise; transformers leaves out what is its own default of two. */
function labelsOf({ raw }: ModelConfig): number {
  if (typeof raw["num_labels"] === "number") return raw["num_labels"];
  const names = raw["id2label"];
  return isObject(names) ? Object.keys(names).length : 2;
}

function loadError(found: string): OmlxError {
  return new OmlxError({ code: "model_load", message: `Cannot load the model: ${found}` });
}
