import { ARCHITECTURES, isArchitecture, type ModelKind } from "#core/contract";
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
 */
export function classify(config: JsonObject, folder: string, files: readonly string[]): Classified {
  const modelType = typeOf(config);
  const kind = kindOf(config, folder, files, modelType);
  if (modelType === "") {
    return { kind, modelType, problem: 'Cannot read config.json: "model_type" is missing' };
  }
  if (!isArchitecture(modelType)) {
    const known = Object.keys(ARCHITECTURES).join(", ");
    const problem = `model_type ${JSON.stringify(modelType)} is not supported; supported are ${known}`;
    return { kind, modelType, problem };
  }
  if (kind !== ARCHITECTURES[modelType]) {
    return { kind, modelType, problem: `${modelType} as ${kind} model is not supported` };
  }
  return { kind, modelType };
}

function typeOf(config: JsonObject): string {
  const inner = config["text_config"];
  const outer = config["model_type"] ?? (isObject(inner) ? inner["model_type"] : undefined);
  return typeof outer === "string" ? outer : "";
}

/** Order of the tests: reranker, embedding, images, text; the folder's name only where the files say nothing. */
function kindOf(
  config: JsonObject,
  folder: string,
  files: readonly string[],
  modelType: string,
): ModelKind {
  const listed = config["architectures"];
  const names = Array.isArray(listed) ? listed.filter((a) => typeof a === "string") : [];
  if (names.some((a) => /For(?:SequenceClassification|Ranking)$/.test(a))) return "reranker";
  if (/rerank/i.test(folder)) return "reranker";
  if (files.includes("modules.json") || files.includes("config_sentence_transformers.json")) {
    return "embedding";
  }
  if (names.some((a) => /(?:ForTextEmbedding|ForMaskedLM|[a-z]Model)$/.test(a))) return "embedding";
  if (/embed/i.test(folder)) return "embedding";
  if (Object.keys(config).some((key) => /^(?:vision|vit)_config$/.test(key))) return "vlm";
  return isArchitecture(modelType) ? ARCHITECTURES[modelType] : "llm";
}
