import { type JsonObject, loadError } from "../fields.ts";
import type { GgufFile, GgufValue } from "../gguf.ts";

/** How GGUF names and stores one architecture. */
interface GgufArchitecture {
  readonly modelType: string;
  readonly architecture: string;
  /** Query and key rows are stored for rotation in pairs. */
  readonly hasPairedRows: boolean;
  /** Has biases only where it states them; else they belong to the architecture, or it has none. */
  readonly statesBiases: boolean;
}

/** tokenizer.ggml.token_type of tokens that are never text. */
export const CONTROL = 3;

/** By general.architecture. */
const ARCHITECTURES: Readonly<Record<string, GgufArchitecture>> = {
  llama: {
    modelType: "llama",
    architecture: "LlamaForCausalLM",
    hasPairedRows: true,
    statesBiases: true,
  },
  qwen2: {
    modelType: "qwen2",
    architecture: "Qwen2ForCausalLM",
    hasPairedRows: false,
    statesBiases: false,
  },
  qwen3: {
    modelType: "qwen3",
    architecture: "Qwen3ForCausalLM",
    hasPairedRows: false,
    statesBiases: true,
  },
};

export interface ConvertedConfig {
  readonly modelType: string;
  readonly maxPositions: number;
  /** Without the quantization, which the weights tell. */
  readonly json: JsonObject;
  readonly headDim: number;
  readonly hasPairedRows: boolean;
  readonly numLayers: number;
  readonly bosId: number | null;
  readonly padId: number | null;
  readonly eosIds: readonly number[];
}

/** Metadata by key, typed. */
export class Metadata {
  readonly #file: GgufFile;

  constructor(file: GgufFile) {
    this.#file = file;
  }

  number(key: string): number | undefined {
    const value = this.#file.metadata.get(key);
    return typeof value === "number" ? value : undefined;
  }

  requireNumber(key: string): number {
    const value = this.number(key);
    if (value === undefined) throw loadError(`Cannot convert the GGUF file: "${key}" is missing`);
    return value;
  }

  text(key: string): string | undefined {
    const value = this.#file.metadata.get(key);
    return typeof value === "string" ? value : undefined;
  }

  bool(key: string): boolean | undefined {
    const value = this.#file.metadata.get(key);
    return typeof value === "boolean" ? value : undefined;
  }

  list(key: string): readonly GgufValue[] | undefined {
    const value = this.#file.metadata.get(key);
    return Array.isArray(value) ? value : undefined;
  }
}

/**
 * config.json of a GGUF file.
 *
 * @param ropeFactors the values of its rope_freqs.weight, if it has that tensor
 * @throws {OmlxError} model_load for an architecture or a position scaling that is not known
 * @see gguf-py constants.py — the keys
 */
export function convertConfig(
  file: GgufFile,
  ropeFactors: readonly number[] | null,
): ConvertedConfig {
  const meta = new Metadata(file);
  const name = meta.text("general.architecture") ?? "";
  const known = Object.hasOwn(ARCHITECTURES, name) ? ARCHITECTURES[name] : undefined;
  if (known === undefined) {
    throw loadError(
      `Cannot convert the GGUF file: architecture "${name}" is not known (known: ${Object.keys(ARCHITECTURES).join(", ")})`,
    );
  }
  const of = (key: string) => `${name}.${key}`;
  if ((meta.number(of("expert_count")) ?? 0) > 0) {
    throw loadError("Cannot convert the GGUF file: mixtures of experts are not supported");
  }
  const hidden = meta.requireNumber(of("embedding_length"));
  const heads = meta.requireNumber(of("attention.head_count"));
  const headDim = meta.number(of("attention.key_length")) ?? hidden / heads;
  const numLayers = meta.requireNumber(of("block_count"));
  const vocab = file.tensors.find((t) => t.name === "token_embd.weight")?.shape[0];
  if (vocab === undefined) throw loadError("Cannot convert the GGUF file: it has no embedding");
  const id = (key: string) => meta.number(`tokenizer.ggml.${key}_token_id`);
  const stated = [id("eos"), id("eot"), id("eom")];
  const eosIds = [...new Set([...stated, ...endsOfTurn(meta)])].filter((x) => x !== undefined);
  const rotated = meta.number(of("rope.dimension_count")) ?? headDim;
  if (rotated !== headDim && known.hasPairedRows) {
    throw loadError(
      `Cannot convert the GGUF file: it rotates ${rotated} of ${headDim} head dimensions, which is not supported for ${name}`,
    );
  }
  const has = (tensor: string) => file.tensors.some((t) => t.name === tensor);
  const biases = known.statesBiases
    ? { attention_bias: has("blk.0.attn_q.bias"), mlp_bias: has("blk.0.ffn_gate.bias") }
    : {};
  const bosId = id("bos") ?? null;
  const padId = id("padding") ?? null;
  const maxPositions = meta.requireNumber(of("context_length"));
  return {
    modelType: known.modelType,
    maxPositions,
    json: {
      architectures: [known.architecture],
      model_type: known.modelType,
      ...biases,
      hidden_act: "silu",
      hidden_size: hidden,
      intermediate_size: meta.requireNumber(of("feed_forward_length")),
      num_hidden_layers: numLayers,
      num_attention_heads: heads,
      num_key_value_heads: meta.number(of("attention.head_count_kv")) ?? heads,
      head_dim: headDim,
      max_position_embeddings: maxPositions,
      rms_norm_eps: shortest(meta.requireNumber(of("attention.layer_norm_rms_epsilon"))),
      rope_theta: shortest(meta.number(of("rope.freq_base")) ?? 10000),
      ...(rotated === headDim ? {} : { partial_rotary_factor: rotated / headDim }),
      rope_scaling: ropeScaling(meta, name, ropeFactors),
      tie_word_embeddings: !has("output.weight"),
      vocab_size: vocab,
      bos_token_id: bosId,
      eos_token_id: eosIds.length === 1 ? eosIds[0] : eosIds,
      pad_token_id: padId,
      torch_dtype: "float16",
    },
    headDim,
    hasPairedRows: known.hasPairedRows,
    numLayers,
    bosId,
    padId,
    eosIds,
  };
}

/** A file may name its end of a turn by the token's text alone. */
const END_OF_TURN = ["<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|eom_id|>"];

function endsOfTurn(meta: Metadata): readonly number[] {
  const tokens = meta.list("tokenizer.ggml.tokens") ?? [];
  const types = meta.list("tokenizer.ggml.token_type") ?? [];
  return END_OF_TURN.map((text) => tokens.indexOf(text)).filter(
    (id) => id >= 0 && types[id] === CONTROL,
  );
}

function ropeScaling(
  meta: Metadata,
  name: string,
  factors: readonly number[] | null,
): JsonObject | null {
  if (factors !== null) return { rope_type: "factors", factors };
  const key = (last: string) => `${name}.rope.scaling.${last}`;
  const type = meta.text(key("type")) ?? "none";
  const factor = meta.number(key("factor"));
  if (type === "none" || factor === undefined) return null;
  const attention = meta.number(key("attn_factor"));
  switch (type) {
    case "linear":
      return { rope_type: "linear", factor };
    case "yarn":
      return {
        rope_type: "yarn",
        factor,
        original_max_position_embeddings: meta.requireNumber(key("original_context_length")),
        ...(attention === undefined
          ? {}
          : { attention_factor: attention * (0.1 * Math.log(factor) + 1) }),
      };
    default:
      throw loadError(
        `Cannot convert the GGUF file: rope scaling ${JSON.stringify(type)} is not supported`,
      );
  }
}

/** The shortest decimal that is the same float32: 1e-5, not 9.999999747378752e-6. */
function shortest(value: number): number {
  for (let digits = 1; digits <= 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === Math.fround(value)) return short;
  }
  return value;
}
