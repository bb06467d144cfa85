import type { ModelKind } from "./model.ts";

/** Every model_type that device/zoo can build, and what it is for. */
export const ARCHITECTURES = {
  llama: "llm",
  mistral: "llm",
  qwen2: "llm",
  qwen3: "llm",
} as const satisfies Record<string, ModelKind>;

export type Architecture = keyof typeof ARCHITECTURES;

export function isArchitecture(modelType: string): modelType is Architecture {
  return Object.hasOwn(ARCHITECTURES, modelType);
}
