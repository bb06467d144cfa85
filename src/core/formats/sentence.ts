import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { encoderFamily } from "#core/contract";
import type { ModelConfig } from "./config.ts";
import { Fields, isObject, type JsonObject, loadError, parseJsonObject } from "./fields.ts";
import { readJsonFile, readTextFile } from "./folder.ts";

/** How the rows of a text's tokens become one row; several are joined in the order given. */
export type PoolingMode =
  | "cls"
  | "max"
  | "mean"
  | "meanSqrtLength"
  /** Token i weighs i + 1. */
  | "weightedMean"
  | "lastToken";

/** A matrix after pooling. */
export interface DenseModule {
  /** Folder with its weights ("linear.weight"). */
  readonly path: string;
  readonly inputs: number;
  readonly outputs: number;
  readonly hasBias: boolean;
  readonly activation: "identity" | "tanh" | "gelu" | "relu" | "silu" | "sigmoid";
}

/** What an embedding model does around its encoder. */
export interface SentencePipeline {
  readonly pooling: readonly PoolingMode[];
  readonly dense: readonly DenseModule[];
  /** Matrices after those whose folders a conversion left out. */
  readonly lostDense: readonly string[];
  /** Vectors have length 1. */
  readonly normalizes: boolean;
  /** Tokens of one text, what the tokenizer puts around it included. */
  readonly maxTokens: number;
  /** Texts to put before an input, by name ("query", "document"). */
  readonly prompts: ReadonlyMap<string, string>;
  /** Put before every input that names no other. */
  readonly defaultPrompt: string | null;
}

/**
 * Reads sentence-transformers' files; what they do not say follows from the family, and for folders that lost them in a
 * conversion from well-known names.
 *
 * @throws {OmlxError} model_load for a module that is not known
 */
export function readSentencePipeline(folder: string, config: ModelConfig): SentencePipeline {
  const modules = readModules(folder);
  const paths = (type: string) => modules.filter((m) => m.type === type).map((m) => m.path);
  const settings = readJsonFile(join(folder, "config_sentence_transformers.json")) ?? {};
  const prompts = readPrompts(settings["prompts"]);
  const defaultName = settings["default_prompt_name"];
  const poolingFolder = paths("Pooling")[0] ?? "1_Pooling";
  const pooling = readJsonFile(join(folder, poolingFolder, "config.json"));
  const dense = paths("Dense");
  for (const { type } of modules) {
    if (!KNOWN_MODULES.has(type)) {
      throw loadError(`Cannot read modules.json: the module "${type}" is not supported`);
    }
  }
  return {
    pooling: pooling === null ? defaultPooling(folder, config) : readPooling(pooling),
    dense: dense.flatMap((path) => readDense(join(folder, path)) ?? []),
    lostDense: dense.filter((path) => !existsSync(join(folder, path, "config.json"))),
    normalizes: modules.length === 0 || paths("Normalize").length > 0,
    maxTokens: maxTokensOf(folder, config, paths("Transformer")[0] ?? ""),
    prompts,
    defaultPrompt: typeof defaultName === "string" ? (prompts.get(defaultName) ?? null) : null,
  };
}

const KNOWN_MODULES: ReadonlySet<string> = new Set([
  "Transformer",
  "Pooling",
  "Dense",
  "Normalize",
  "Dropout", // of training
]);

interface Module {
  /** Last part of its Python name. */
  readonly type: string;
  readonly path: string;
}

function readModules(folder: string): readonly Module[] {
  const text = readTextFile(join(folder, "modules.json"));
  if (text === null) return [];
  const list = parseJsonObject(`{"modules":${text}}`, "modules.json")["modules"];
  if (!Array.isArray(list)) throw loadError("Cannot read modules.json: expected a list");
  return list.filter(isObject).map((entry) => {
    const { type, path } = entry;
    if (typeof type !== "string" || (path !== undefined && typeof path !== "string")) {
      throw loadError("Cannot read modules.json: a module needs a type and a path");
    }
    const inside = path ?? "";
    if (inside.startsWith("/") || inside.split("/").includes("..")) {
      throw loadError(`Cannot read modules.json: "${inside}" leaves the model's folder`);
    }
    return { type: type.split(".").at(-1) ?? "", path: inside };
  });
}

function readPrompts(value: unknown): ReadonlyMap<string, string> {
  const entries = isObject(value) ? Object.entries(value) : [];
  return new Map(entries.filter((e): e is [string, string] => typeof e[1] === "string"));
}

/** In the order in which sentence-transformers joins them. */
const POOLING_FLAGS: readonly (readonly [flag: string, mode: PoolingMode])[] = [
  ["pooling_mode_cls_token", "cls"],
  ["pooling_mode_max_tokens", "max"],
  ["pooling_mode_mean_tokens", "mean"],
  ["pooling_mode_mean_sqrt_len_tokens", "meanSqrtLength"],
  ["pooling_mode_weightedmean_tokens", "weightedMean"],
  ["pooling_mode_lasttoken", "lastToken"],
];

const POOLING_NAMES: Readonly<Record<string, PoolingMode>> = {
  cls: "cls",
  max: "max",
  mean: "mean",
  mean_sqrt_len_tokens: "meanSqrtLength",
  weightedmean: "weightedMean",
  lasttoken: "lastToken",
};

function readPooling(raw: JsonObject): readonly PoolingMode[] {
  const stated = raw["pooling_mode"];
  if (stated !== undefined) {
    return (Array.isArray(stated) ? stated : [stated]).map((name) => {
      const mode = Object.hasOwn(POOLING_NAMES, String(name)) ? POOLING_NAMES[String(name)] : null;
      if (mode) return mode;
      throw loadError(`Cannot read the pooling's config.json: "${name}" is not supported`);
    });
  }
  const modes = POOLING_FLAGS.filter(([flag]) => raw[flag] === true).map(([, mode]) => mode);
  return modes.length > 0 ? modes : ["mean"];
}

/** Conversions often lose the file that says it. */
function defaultPooling(folder: string, config: ModelConfig): readonly PoolingMode[] {
  if (encoderFamily(config.modelType)?.isCausal) return ["lastToken"];
  return CLS_NAMES.test(basename(folder)) ? ["cls"] : ["mean"];
}

const CLS_NAMES = /bge-|snowflake-arctic|mxbai|gte-modernbert/i;

/** null: there is no such folder. */
function readDense(path: string): DenseModule | null {
  const raw = readJsonFile(join(path, "config.json"));
  if (raw === null) return null;
  const f = new Fields(raw, `${basename(path)}/config.json`);
  const name = (f.text("activation_function") ?? "Identity").split(".").at(-1)?.toLowerCase() ?? "";
  const activation = ACTIVATIONS[name];
  if (activation === undefined) {
    throw loadError(`Cannot read the module "${basename(path)}": unknown activation "${name}"`);
  }
  return {
    path,
    inputs: f.requireInt(1, "in_features"),
    outputs: f.requireInt(1, "out_features"),
    hasBias: f.bool("bias") ?? true,
    activation,
  };
}

const ACTIVATIONS: Readonly<Record<string, DenseModule["activation"]>> = {
  identity: "identity",
  tanh: "tanh",
  gelu: "gelu",
  relu: "relu",
  silu: "silu",
  sigmoid: "sigmoid",
};

/** The smallest of what the files say; a table of positions that begins behind the padding id has that many less. */
function maxTokensOf(folder: string, config: ModelConfig, transformer: string): number {
  const own = readJsonFile(join(folder, transformer, "sentence_bert_config.json")) ?? {};
  const tokenizer = readJsonFile(join(folder, "tokenizer_config.json")) ?? {};
  const limits = [positionsOf(config), own["max_seq_length"], tokenizer["model_max_length"]];
  return Math.min(...limits.filter((n): n is number => typeof n === "number" && n >= 1));
}

/** Tokens of one text that an encoder's positions reach. */
export function positionsOf({ modelType, maxPositions, padId }: ModelConfig): number {
  return encoderFamily(modelType)?.shiftsPositions ? maxPositions - (padId ?? 1) - 1 : maxPositions;
}
