import {
  ARCHITECTURES,
  ENCODERS,
  encoderFamily,
  isArchitecture,
  isSupported,
  type ModelKind,
} from "#core/contract";
import { isObject, type JsonObject } from "#core/formats";

export interface Classified {
  readonly kind: ModelKind;
  /** Of the outermost model. */
  readonly modelType: string;
  /** Why this server cannot run it. */
  readonly problem?: string | undefined;
}

/**
 * What a model is for, from its config.json and the names around it.
 *
 * @param config  config.json as written
 * @param folder  name of the model's folder
 * @param files   names of the files in it
 * @param asked   what the user says it is for; instead of what the files say
 */
export function classify(
  config: JsonObject,
  folder: string,
  files: readonly string[],
  asked?: ModelKind,
): Classified {
  const modelType = typeOf(config);
  const kind = asked ?? kindOf(config, folder, files, modelType);
  if (modelType === "") {
    return { kind, modelType, problem: 'Cannot read config.json: "model_type" is missing' };
  }
  const stranger = strangerOf(config, modelType);
  if (stranger !== null) return { kind, modelType, problem: `${stranger} is not supported` };
  if (isSupported(modelType, kind)) return { kind, modelType };
  const found = `model_type ${JSON.stringify(modelType)}`;
  if (isArchitecture(modelType) || encoderFamily(modelType)) {
    return { kind, modelType, problem: `${found} as ${kind} model is not supported` };
  }
  const all = [...Object.keys(ARCHITECTURES), ...Object.keys(ENCODERS)];
  const known = [...new Set(all)].filter((type) => isSupported(type, kind)).join(", ");
  return { kind, modelType, problem: `${found} is not supported; supported are ${known}` };
}

/** What makes a checkpoint another model than others of its type: it comes with code of its own. */
function strangerOf(config: JsonObject, modelType: string): string | null {
  const ranking = architecturesOf(config).find((name) => /ForRanking$/.test(name));
  if (ranking !== undefined) return `architecture ${JSON.stringify(ranking)}`;
  const positions = config["position_embedding_type"];
  const isLearned = typeof positions !== "string" || positions === "absolute";
  if (isLearned || !/^(?:bert|roberta|xlm-roberta)$/.test(modelType)) return null;
  return `position_embedding_type ${JSON.stringify(positions)}`;
}

function architecturesOf(config: JsonObject): string[] {
  const listed = config["architectures"];
  return Array.isArray(listed) ? listed.filter((name) => typeof name === "string") : [];
}

function typeOf(config: JsonObject): string {
  const inner = config["text_config"];
  const outer = config["model_type"] ?? (isObject(inner) ? inner["model_type"] : undefined);
  return typeof outer === "string" ? outer : "";
}

/**
 * Order of the tests: a classifier; a generating model whose name says what else it was trained for; a pipeline; a family
 * that only embeds; images; text. The folder's name counts only where the files leave it open.
 */
function kindOf(
  config: JsonObject,
  folder: string,
  files: readonly string[],
  modelType: string,
): ModelKind {
  const names = architecturesOf(config);
  const has = (pattern: RegExp) => names.some((name) => pattern.test(name));
  if (has(/For(?:SequenceClassification|Ranking)$/)) return "reranker";
  if (has(/ForCausalLM$/) && encoderFamily(modelType)?.isCausal) {
    if (/rerank/i.test(folder)) return "reranker";
    if (/embed/i.test(folder)) return "embedding";
  }
  if (files.includes("modules.json") || files.includes("config_sentence_transformers.json")) {
    return "embedding";
  }
  if (has(/(?:ForTextEmbedding|ForMaskedLM|[a-z]Model)$/)) return "embedding";
  if (Object.keys(config).some((key) => /^(?:vision|vit)_config$/.test(key))) return "vlm";
  if (isArchitecture(modelType)) return ARCHITECTURES[modelType];
  return encoderFamily(modelType) && !has(/ForCausalLM$/) ? "embedding" : "llm";
}
