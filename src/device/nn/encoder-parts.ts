import * as mx from "#device/mlx";
import type { EncoderKernels, SumNorm } from "./encoder-kernels.ts";
import type { EncoderSpec } from "./encoder-spec.ts";
import type { Kernels, Linear, Matrix } from "./kernels.ts";
import type { Weights } from "./weights.ts";

/** What the parts of a model are built with. */
export interface EncoderParts {
  readonly weights: Weights;
  readonly kernels: Kernels;
  readonly more: EncoderKernels;
  /** Arrays that are made at load and live as long as the model. */
  readonly owned: mx.MxArray[];
}

/** Computes arrays in a scope of their own; they belong to the caller. */
export function scoped(make: () => mx.MxArray[]): mx.MxArray[] {
  return mx.scope(() => {
    const arrays = make();
    mx.evaluate(...arrays);
    return arrays.map((array) => mx.keep(array));
  });
}

/** The norm of a path; old checkpoints call weight and bias gamma and beta. null: none. */
export function buildNorm(
  path: string | null,
  size: number,
  { norm: { kind, eps, isOffset } }: EncoderSpec,
  { weights, kernels, more, owned }: EncoderParts,
): SumNorm | null {
  if (path === null) return null;
  const named = (...names: string[]) =>
    names.map((name) => `${path}.${name}`).find((name) => weights.has(name));
  let weight = weights.take(named("weight", "gamma") ?? `${path}.weight`, [size]);
  if (isOffset) {
    const plain = weight;
    [weight] = scoped(() => [mx.add(mx.astype(plain, "float32"), 1)]) as [mx.MxArray];
    owned.push(weight);
  }
  if (kind === "rms") {
    const normalize = kernels.rmsNorm(weight, eps);
    return (x, residual) => normalize(residual ? mx.add(x, residual) : x);
  }
  const bias = named("bias", "beta");
  return more.layerNorm(weight, bias === undefined ? null : weights.take(bias, [size]), eps);
}

/** A linear and its bias, if the file has one. */
export function buildLinear(
  path: string,
  rows: number,
  columns: number,
  { weights, kernels }: Pick<EncoderParts, "weights" | "kernels">,
): Linear {
  return kernels.linear(weights.matrix(path, rows, columns), weights.bias(path, rows));
}

/** Linears whose rows lie one after another in one matrix. */
export function splitLinear(
  path: string,
  rows: readonly number[],
  columns: number,
  { weights, kernels, owned }: EncoderParts,
): Linear[] {
  const total = rows.reduce((sum, n) => sum + n, 0);
  const whole = weights.matrix(path, total, columns);
  const bias = weights.bias(path, total);
  const cut = (array: mx.MxArray, from: number, to: number): mx.MxArray => {
    const start = array.shape.map((_, axis) => (axis === 0 ? from : 0));
    const stop = array.shape.map((size, axis) => (axis === 0 ? to : size));
    const [part] = scoped(() => [mx.slice(array, start, stop)]) as [mx.MxArray];
    owned.push(part);
    return part;
  };
  let from = 0;
  return rows.map((count) => {
    const to = from + count;
    const part: Matrix = {
      ...whole,
      weight: cut(whole.weight, from, to),
      scales: whole.scales && cut(whole.scales, from, to),
      biases: whole.biases && cut(whole.biases, from, to),
    };
    const linear = kernels.linear(part, bias && cut(bias, from, to));
    from = to;
    return linear;
  });
}
