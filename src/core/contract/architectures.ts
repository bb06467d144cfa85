import type { ModelKind } from "./model.ts";

/** Every model_type that device/zoo can build, and what it is for. */
export const ARCHITECTURES = {
  llama: "llm",
  mistral: "llm",
  qwen2: "llm",
  qwen3: "llm",
} as const satisfies Record<string, ModelKind>;

/** What is known of a family of encoders before its files are read. */
export interface EncoderFamily {
  readonly kinds: readonly ModelKind[];
  /** Reads from left to right only, so the last token knows most. */
  readonly isCausal?: boolean;
  /** The first position is the one behind the padding id: the table of positions reaches that much less far. */
  readonly shiftsPositions?: boolean;
}

/** Families that turn texts into vectors or scores. */
export const ENCODERS = {
  bert: { kinds: ["embedding", "reranker"] },
  gemma3_text: { kinds: ["embedding"] },
  llama: { kinds: ["embedding"], isCausal: true },
  mistral: { kinds: ["embedding"], isCausal: true },
  modernbert: { kinds: ["embedding", "reranker"] },
  nomic_bert: { kinds: ["embedding"] },
  qwen2: { kinds: ["embedding", "reranker"], isCausal: true },
  qwen3: { kinds: ["embedding", "reranker"], isCausal: true },
  roberta: { kinds: ["embedding", "reranker"], shiftsPositions: true },
  "xlm-roberta": { kinds: ["embedding", "reranker"], shiftsPositions: true },
} as const satisfies Record<string, EncoderFamily>;

export type EncoderArchitecture = keyof typeof ENCODERS;

export function encoderFamily(modelType: string): EncoderFamily | undefined {
  return Object.hasOwn(ENCODERS, modelType)
    ? ENCODERS[modelType as EncoderArchitecture]
    : undefined;
}

/** Whether device/zoo can build this family for this purpose. */
export function isSupported(modelType: string, kind: ModelKind): boolean {
  if (kind === "embedding" || kind === "reranker") {
    return encoderFamily(modelType)?.kinds.includes(kind) ?? false;
  }
  return isArchitecture(modelType) && ARCHITECTURES[modelType] === kind;
}

export type Architecture = keyof typeof ARCHITECTURES;

export function isArchitecture(modelType: string): modelType is Architecture {
  return Object.hasOwn(ARCHITECTURES, modelType);
}
