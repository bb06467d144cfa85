import type { ModelEntry } from "#core/contract";
import { inspectGguf, type ModelConfig, readModelFolder } from "#core/formats";
import { isGguf } from "./conversions.ts";

/**
 * What a model's files say beyond its entry, as label and text. Reads small files and headers.
 *
 * @throws {OmlxError} model_load
 */
export function describeModel(entry: ModelEntry): readonly (readonly [string, string])[] {
  if (isGguf(entry.path)) {
    const { changes } = inspectGguf(entry.path);
    const how = changes.length === 0 ? "without loss" : changes.join(", ");
    return [["format", `GGUF; converted at its first request: ${how}`]];
  }
  const { config, eosIds, generation } = readModelFolder(entry.path);
  const defaults = Object.entries(generation)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => `${key} ${value}`);
  return [
    ["format", `safetensors; ${numbersOf(config)}`],
    ["layers", `${config.numLayers} of ${config.hiddenSize}, ${headsOf(config)}`],
    ["vocabulary", `${config.vocabSize} tokens; ends with ${eosIds.join(", ") || "none"}`],
    ...(defaults.length > 0 ? [["sampling", defaults.join(", ")] as const] : []),
  ];
}

function numbersOf({ quantization, dtype }: ModelConfig): string {
  if (quantization === null) return dtype ?? "dense";
  const { bits, groupSize, mode } = quantization.default;
  const others = [...quantization.byPath.values()].filter((spec) => spec?.bits !== bits).length;
  const mixed = others > 0 ? `, ${others} of the matrices otherwise` : "";
  return `${mode} ${bits}-bit in groups of ${groupSize}${mixed}`;
}

function headsOf({ numHeads, numKvHeads, headDim }: ModelConfig): string {
  const shared = numKvHeads === numHeads ? "" : ` over ${numKvHeads} of keys and values`;
  return `${numHeads} heads${shared}, ${headDim} wide`;
}
