import { type JsonObject, loadError } from "../fields.ts";
import type { GgufFile, GgufValue } from "../gguf.ts";

/** How GGUF names and stores one architecture. */
interface GgufArchitecture {
  readonly modelType: string;
  readonly architecture: string;
  /** Query and key rows are stored for rotation in pairs. */
  readonly hasPairedRows: boolean;
  /** Fields that config.json states beside the common ones. */
  readonly extra: JsonObject;
}

/** By general.architecture. */
const ARCHITECTURES: Readonly<Record<string, GgufArchitecture>> = {
  llama: {
    modelType: "llama",
    architecture: "LlamaForCausalLM",
    hasPairedRows: true,
    extra: { attention_bias: false, mlp_bias: false },
  },
  qwen2: {
    modelType: "qwen2",
    architecture: "Qwen2ForCausalLM",
    hasPairedRows: false,
    extra: {},
  },
  qwen3: {
    modelType: "qwen3",
    architecture: "Qwen3ForCausalLM",
    hasPairedRows: false,
    extra: { attention_bias: false },
  },
};

export interface ConvertedConfig {
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
 * @throws {OmlxError} model_load for an architecture or a position scaling that is not known
 * @see gguf-py constants.py — the keys
 */
export function convertConfig(file: GgufFile): ConvertedConfig {
  const meta = new Metadata(file);
  const name = meta.text("general.architecture") ?? "";
  const known = Object.hasOwn(ARCHITECTURES, name) ? ARCHITECTURES[name] : undefined;
  if (known === undefined) {
    throw loadError(
      `Cannot convert the GGUF file: architecture "${name}" is not known (known: ${Object.keys(ARCHITECTURES).join(", ")})`,
    );
  }
  const of = (key: string) => `${name}.${key}`;
  const scaling = meta.text(of("rope.scaling.type")) ?? "none";
  const isScaled = scaling !== "none" || file.tensors.some((t) => t.name === "rope_freqs.weight");
  if (isScaled) {
    throw loadError(
      "Cannot convert the GGUF file: it scales its rotary positions, which is not read",
    );
  }
  const hidden = meta.requireNumber(of("embedding_length"));
  const heads = meta.requireNumber(of("attention.head_count"));
  const headDim = meta.number(of("attention.key_length")) ?? hidden / heads;
  const numLayers = meta.requireNumber(of("block_count"));
  const vocab = file.tensors.find((t) => t.name === "token_embd.weight")?.shape[0];
  if (vocab === undefined) throw loadError("Cannot convert the GGUF file: it has no embedding");
  const id = (key: string) => meta.number(`tokenizer.ggml.${key}_token_id`);
  const eosIds = [...new Set([id("eos"), id("eot"), id("eom")])].filter((x) => x !== undefined);
  const bosId = id("bos") ?? null;
  const padId = id("padding") ?? null;
  return {
    json: {
      architectures: [known.architecture],
      model_type: known.modelType,
      ...known.extra,
      hidden_act: "silu",
      hidden_size: hidden,
      intermediate_size: meta.requireNumber(of("feed_forward_length")),
      num_hidden_layers: numLayers,
      num_attention_heads: heads,
      num_key_value_heads: meta.number(of("attention.head_count_kv")) ?? heads,
      head_dim: headDim,
      max_position_embeddings: meta.requireNumber(of("context_length")),
      rms_norm_eps: shortest(meta.requireNumber(of("attention.layer_norm_rms_epsilon"))),
      rope_theta: shortest(meta.number(of("rope.freq_base")) ?? 10000),
      rope_scaling: null,
      tie_word_embeddings: !file.tensors.some((t) => t.name === "output.weight"),
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

/** The shortest decimal that is the same float32: 1e-5, not 9.999999747378752e-6. */
function shortest(value: number): number {
  for (let digits = 1; digits <= 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === Math.fround(value)) return short;
  }
  return value;
}
