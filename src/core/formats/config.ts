import { Fields, isObject, type JsonObject, loadError } from "./fields.ts";

/** How positions beyond the trained window are reached. */
export type RopeScaling =
  | { readonly kind: "default" }
  | { readonly kind: "linear"; readonly factor: number }
  | { readonly kind: "dynamic"; readonly factor: number; readonly originalMaxPositions: number }
  | {
      readonly kind: "llama3";
      readonly factor: number;
      readonly lowFreqFactor: number;
      readonly highFreqFactor: number;
      readonly originalMaxPositions: number;
    }
  | {
      readonly kind: "yarn";
      readonly factor: number;
      readonly originalMaxPositions: number;
      readonly betaFast: number;
      readonly betaSlow: number;
      /** Present only where the file states them; the default follows from `factor`. */
      readonly mscale?: number | undefined;
      readonly mscaleAllDim?: number | undefined;
      readonly attentionFactor?: number | undefined;
      /** Whether the ramp's borders are rounded to whole dimensions. */
      readonly truncate: boolean;
    }
  /** Each inverse frequency is divided by its own factor; written by the GGUF converter. */
  | { readonly kind: "factors"; readonly factors: readonly number[] }
  /** A kind that is not read here; a model that needs it must refuse. */
  | { readonly kind: "other"; readonly name: string; readonly raw: JsonObject };

/** Rotary positions of one kind of layer. */
export interface RopeConfig {
  readonly theta: number;
  /** Leading dimensions of a head that rotate, even. */
  readonly dims: number;
  readonly scaling: RopeScaling;
}

/** MLX quantization of one matrix. */
export interface QuantSpec {
  readonly groupSize: number;
  readonly bits: number;
  /** "affine", "mxfp4", "mxfp8", "nvfp4". */
  readonly mode: string;
}

/** What config.json says about quantized matrices; shapes are the truth for a path that is not listed. */
export interface QuantizationTable {
  readonly default: QuantSpec;
  /** By module path ("model.layers.0.mlp.up_proj"); null: this matrix is not quantized. */
  readonly byPath: ReadonlyMap<string, QuantSpec | null>;
}

export type LayerType = "full_attention" | "sliding_attention" | (string & {});

/** A model's shape in one dialect, whatever dialect its config.json was written in. */
export interface ModelConfig {
  readonly modelType: string;
  readonly architectures: readonly string[];
  readonly hiddenSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly intermediateSize: number;
  readonly vocabSize: number;
  /** Epsilon of the norms. */
  readonly eps: number;
  readonly hiddenAct: string;
  readonly rope: RopeConfig;
  /** Rotary positions of sliding layers where they differ from `rope`. */
  readonly slidingRope: RopeConfig | null;
  readonly tieWordEmbeddings: boolean;
  readonly attentionBias: boolean;
  readonly mlpBias: boolean;
  /** Tokens that a sliding layer sees; null: none stated, or switched off. */
  readonly slidingWindow: number | null;
  /** One per layer, where the file states or implies them. */
  readonly layerTypes: readonly LayerType[] | null;
  /** Positions the model was made for. */
  readonly maxPositions: number;
  readonly quantization: QuantizationTable | null;
  /** Another library's quantization ("fp8", "gptq", …). */
  readonly quantMethod: string | null;
  readonly eosIds: readonly number[];
  readonly bosId: number | null;
  readonly padId: number | null;
  /** Of the unquantized weights, as written ("bfloat16"); null: not stated. */
  readonly dtype: string | null;
  /** The file's own fields, a wrapper's text_config merged over them. */
  readonly raw: JsonObject;
}

/**
 * config.json of any dialect as one record. Values that are absent get the defaults that transformers gives to every
 * family of plain decoders.
 *
 * @throws {OmlxError} model_load, naming the field
 * @see transformers configuration_utils.py, modeling_rope_utils.py — the dialects
 */
export function normalizeConfig(file: JsonObject): ModelConfig {
  const inner = file["text_config"];
  const raw = isObject(inner) ? merged(file, inner) : file;
  const c = new Fields(raw, "config.json");
  const modelType = c.text("model_type");
  if (modelType === undefined) throw loadError('Cannot read config.json: "model_type" is missing');
  const hiddenSize = c.requireInt(1, "hidden_size", "n_embd", "d_model");
  const numLayers = c.requireInt(1, "num_hidden_layers", "n_layer", "num_layers");
  const numHeads = c.requireInt(1, "num_attention_heads", "n_head");
  const numKvHeads = c.int(1, "num_key_value_heads") ?? numHeads;
  const headDim = c.int(1, "head_dim") ?? Math.floor(hiddenSize / numHeads);
  if (headDim < 1) throw loadError("Cannot read config.json: hidden_size < num_attention_heads");
  if (numHeads % numKvHeads !== 0) {
    throw loadError(
      `Cannot read config.json: ${numHeads} attention heads cannot share ${numKvHeads} key-value heads`,
    );
  }
  const maxPositions = c.int(1, "max_position_embeddings", "n_positions", "max_seq_len") ?? 2048;
  const sliding = c.bool("use_sliding_window") === false ? null : c.int(0, "sliding_window");
  const slidingWindow = sliding === undefined || sliding === 0 ? null : sliding;
  const { rope, slidingRope } = readRope(c, headDim, maxPositions);
  return {
    modelType,
    architectures: (c.list("architectures") ?? []).filter((a) => typeof a === "string"),
    hiddenSize,
    numLayers,
    numHeads,
    numKvHeads,
    headDim,
    intermediateSize: c.requireInt(1, "intermediate_size", "n_inner", "ffn_dim"),
    vocabSize: c.requireInt(1, "vocab_size"),
    eps: c.number("rms_norm_eps", "norm_eps", "layer_norm_eps", "layer_norm_epsilon") ?? 1e-6,
    hiddenAct: c.text("hidden_act", "hidden_activation", "activation_function") ?? "silu",
    rope,
    slidingRope,
    tieWordEmbeddings: c.bool("tie_word_embeddings") ?? false,
    attentionBias: c.bool("attention_bias", "use_qkv_bias") ?? false,
    mlpBias: c.bool("mlp_bias") ?? false,
    slidingWindow,
    layerTypes: readLayerTypes(c, numLayers, slidingWindow),
    maxPositions,
    quantization: readQuantization(c),
    quantMethod: c.object("quantization_config")?.text("quant_method") ?? null,
    eosIds: unique([...ids(file["eos_token_id"]), ...ids(raw["eos_token_id"])]),
    bosId: ids(raw["bos_token_id"])[0] ?? null,
    padId: ids(raw["pad_token_id"])[0] ?? null,
    dtype: c.text("dtype", "torch_dtype") ?? null,
    raw,
  };
}

/** Why a model's weights cannot be read: another library packed them. undefined: they are plain, or MLX's own. */
export function foreignQuantization(config: ModelConfig): string | undefined {
  const { quantMethod, quantization } = config;
  if (quantMethod === null || quantization !== null) return undefined;
  return `its weights are quantized by ${JSON.stringify(quantMethod)}, which is not supported; MLX affine quantization, plain float weights and GGUF are`;
}

/** A token id or a list of them, as numbers; anything else is none. */
export function ids(value: unknown): readonly number[] {
  const list = Array.isArray(value) ? value : [value];
  return list.filter((id) => Number.isInteger(id) && id >= 0);
}

export function unique<T>(values: readonly T[]): readonly T[] {
  return [...new Set(values)];
}

/** A wrapper keeps some facts of its text model at the top level. */
function merged(file: JsonObject, inner: JsonObject): JsonObject {
  const { text_config: _, ...outer } = file;
  const out: Record<string, unknown> = { ...outer };
  for (const [key, value] of Object.entries(inner)) {
    if (value !== null || !Object.hasOwn(out, key)) out[key] = value;
  }
  return out;
}

/** Old dialect: rope_theta beside rope_scaling. New: rope_parameters, flat or one record per layer type. */
function readRope(
  c: Fields,
  headDim: number,
  maxPositions: number,
): { rope: RopeConfig; slidingRope: RopeConfig | null } {
  const parameters = c.object("rope_parameters");
  const full = parameters?.object("full_attention");
  const sliding = parameters?.object("sliding_attention");
  const scaling = full ?? sliding ?? parameters ?? c.object("rope_scaling");
  const rope = ropeOf(c, scaling, headDim, maxPositions);
  if (sliding !== undefined && full !== undefined) {
    return { rope, slidingRope: ropeOf(c, sliding, headDim, maxPositions) };
  }
  const localTheta = c.number("rope_local_base_freq");
  if (localTheta === undefined) return { rope, slidingRope: null };
  return { rope, slidingRope: { ...rope, theta: localTheta, scaling: { kind: "default" } } };
}

function ropeOf(
  c: Fields,
  scaling: Fields | undefined,
  headDim: number,
  maxPositions: number,
): RopeConfig {
  const theta = scaling?.number("rope_theta") ?? c.number("rope_theta", "rotary_emb_base") ?? 10000;
  if (!(theta > 0))
    throw loadError(`Cannot read config.json: rope_theta must be > 0, got ${theta}`);
  const share =
    scaling?.number("partial_rotary_factor") ??
    c.number("partial_rotary_factor", "rotary_pct") ??
    1;
  const dims = c.int(2, "rotary_dim") ?? Math.floor(headDim * share);
  if (dims < 2 || dims > headDim || dims % 2 !== 0) {
    throw loadError(`Cannot read config.json: ${dims} of ${headDim} head dimensions cannot rotate`);
  }
  return { theta, dims, scaling: scalingOf(c, scaling, maxPositions) };
}

function scalingOf(c: Fields, s: Fields | undefined, maxPositions: number): RopeScaling {
  const name = s?.text("rope_type", "type") ?? "default";
  if (s === undefined || name === "default" || name === "mrope") return { kind: "default" };
  if (name === "factors") return { kind: "factors", factors: factorsOf(s) };
  const original =
    s.int(1, "original_max_position_embeddings") ??
    c.int(1, "original_max_position_embeddings") ??
    maxPositions;
  const factor = s.number("factor") ?? maxPositions / original;
  if (!(factor > 0)) {
    throw loadError(`Cannot read config.json: rope factor must be > 0, got ${factor}`);
  }
  switch (name) {
    case "linear":
      return { kind: "linear", factor };
    case "dynamic":
      return { kind: "dynamic", factor, originalMaxPositions: original };
    case "llama3":
      return {
        kind: "llama3",
        factor,
        lowFreqFactor: s.number("low_freq_factor") ?? 1,
        highFreqFactor: s.number("high_freq_factor") ?? 4,
        originalMaxPositions: original,
      };
    case "yarn":
      return {
        kind: "yarn",
        factor,
        originalMaxPositions: original,
        betaFast: s.number("beta_fast") ?? 32,
        betaSlow: s.number("beta_slow") ?? 1,
        mscale: s.number("mscale"),
        mscaleAllDim: s.number("mscale_all_dim"),
        attentionFactor: s.number("attention_factor"),
        truncate: s.bool("truncate") ?? true,
      };
    default:
      return { kind: "other", name, raw: s.raw };
  }
}

function factorsOf(s: Fields): readonly number[] {
  const factors = (s.list("factors") ?? []).filter((f) => typeof f === "number" && f > 0);
  if (factors.length > 0) return factors as readonly number[];
  throw loadError("Cannot read config.json: rope factors must be numbers > 0");
}

function readLayerTypes(
  c: Fields,
  numLayers: number,
  window: number | null,
): readonly LayerType[] | null {
  const stated = c.list("layer_types");
  if (stated !== undefined) {
    const types = stated.filter((t): t is string => typeof t === "string");
    if (types.length < numLayers) {
      throw loadError(
        `Cannot read config.json: layer_types has ${types.length} entries for ${numLayers} layers`,
      );
    }
    return types.slice(0, numLayers);
  }
  const every = (isFull: (layer: number) => boolean): readonly LayerType[] =>
    Array.from({ length: numLayers }, (_, i) =>
      isFull(i) ? "full_attention" : "sliding_attention",
    );
  const found = c.find("sliding_window_pattern");
  if (found !== undefined && typeof found.value === "number" && found.value >= 1) {
    const period = found.value;
    return every((i) => (i + 1) % period === 0);
  }
  if (found !== undefined && typeof found.value === "string" && found.value.length > 0) {
    const pattern = found.value;
    return every((i) => pattern[i % pattern.length] !== "L");
  }
  const firstSliding = c.int(0, "max_window_layers");
  if (c.bool("use_sliding_window") === true && window !== null && firstSliding !== undefined) {
    return every((i) => i < firstSliding);
  }
  return null;
}

function readQuantization(c: Fields): QuantizationTable | null {
  const own = c.object("quantization");
  const other = c.object("quantization_config");
  const table = own ?? (other !== undefined && !other.has("quant_method") ? other : undefined);
  if (table === undefined) return null;
  const global = specOf(table, null);
  const byPath = new Map<string, QuantSpec | null>();
  for (const [path, value] of Object.entries(table.raw)) {
    if (value === false) byPath.set(path, null);
    else if (value === true) byPath.set(path, global);
    else if (isObject(value)) {
      byPath.set(path, specOf(new Fields(value, `config.json (quantization of ${path})`), global));
    }
  }
  return { default: global, byPath };
}

function specOf(f: Fields, base: QuantSpec | null): QuantSpec {
  return {
    groupSize: f.int(1, "group_size") ?? base?.groupSize ?? 64,
    bits: f.int(1, "bits") ?? base?.bits ?? 4,
    mode: f.text("mode") ?? base?.mode ?? "affine",
  };
}
