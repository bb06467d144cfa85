import { existsSync } from "node:fs";
import { join } from "node:path";
import type { TokenOutput } from "#core/contract";
import { readSafetensorsHeader, type TensorInfo } from "./safetensors.ts";
import { readTorchTensors } from "./torch-file.ts";

/** A matrix over the rows of a text's tokens. */
export interface TokenHead {
  readonly output: TokenOutput;
  /** Its tensors' common name, before ".weight" and ".bias". */
  readonly path: string;
  /** In a file of its own; null: among the model's. */
  readonly tensors: ReadonlyMap<string, TensorInfo> | null;
  /** Numbers for each token. */
  readonly width: number;
}

const PATHS: Readonly<Record<TokenOutput, string>> = {
  lexical: "sparse_linear",
  colbert: "colbert_linear",
};

/**
 * The heads that BGE-M3 has beside its vectors: in the model's own file, or in one of their own (.safetensors, or .pt as
 * FlagEmbedding writes it).
 *
 * @param tensors the model's
 * @throws {OmlxError} model_load for a file that cannot be read
 */
export function findTokenHeads(
  folder: string,
  tensors: ReadonlyMap<string, TensorInfo>,
): readonly TokenHead[] {
  return (Object.keys(PATHS) as TokenOutput[]).flatMap((output) => {
    const path = PATHS[output];
    const own = tensors.has(`${path}.weight`) ? null : readOwnFile(folder, path);
    const width = (own ?? tensors).get(`${path}.weight`)?.shape[0];
    return width === undefined ? [] : [{ output, path, tensors: own, width }];
  });
}

/** Its tensors by their full names; without any if there is no such file. */
function readOwnFile(folder: string, path: string): ReadonlyMap<string, TensorInfo> {
  const named = (tensors: Iterable<TensorInfo>) =>
    new Map([...tensors].map((tensor) => [`${path}.${tensor.name}`, tensor] as const));
  const file = join(folder, path);
  if (existsSync(`${file}.safetensors`)) {
    return named(readSafetensorsHeader(`${file}.safetensors`).tensors);
  }
  return existsSync(`${file}.pt`) ? named(readTorchTensors(`${file}.pt`).values()) : new Map();
}
