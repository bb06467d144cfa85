import { OmlxError } from "#core/contract";
import type { ModelConfig } from "#core/formats";
import type { Activation, EncoderNorms, HeadSpec } from "#device/nn";

/** A model folder, as a family's record sees it. */
export interface EncoderFolder {
  readonly config: ModelConfig;
  /** Whether the checkpoint has a tensor. */
  has(name: string): boolean;
  /** A classifier's head: labels, and the class that the checkpoint was saved as. */
  readonly labels: number;
  /** The head that every family has in common; null: the family's own classifier. */
  readonly head: HeadSpec | null;
}

const ACTIVATIONS: Readonly<Record<string, Activation>> = {
  gelu: "gelu",
  gelu_python: "gelu",
  gelu_new: "geluTanh",
  gelu_fast: "geluTanh",
  gelu_pytorch_tanh: "geluTanh",
  gelu_tanh: "geluTanh",
  relu: "relu",
  silu: "silu",
  swish: "silu",
  swiglu: "silu",
  geglu: "gelu",
  tanh: "tanh",
};

/**
 * The activation that the first of some fields names.
 *
 * @throws {OmlxError} model_load for a name that is not known
 */
export function activationOf(
  { raw }: ModelConfig,
  fields: readonly string[],
  fallback: Activation,
): Activation {
  const name = fields.map((field) => raw[field]).find((value) => typeof value === "string");
  if (name === undefined) return fallback;
  const found = Object.hasOwn(ACTIVATIONS, name) ? ACTIVATIONS[name] : undefined;
  if (found) return found;
  throw new OmlxError({
    code: "model_load",
    message: `Cannot load the model: activation "${name}" is not supported`,
  });
}

/** What stands before every name: the first of `prefixes` under which the checkpoint has `name`. */
export function prefixOf(folder: EncoderFolder, name: string, prefixes: readonly string[]): string {
  return prefixes.find((prefix) => folder.has(prefix + name)) ?? (prefixes[0] as string);
}

export const norms = (
  input: string | null,
  output: string | null,
  sum: string | null,
): EncoderNorms => ({ in: input, out: output, sum });
