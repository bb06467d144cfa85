import { OmlxError } from "#core/contract";
import type { RopeConfig } from "#core/formats";

/** Inverse frequencies (dims/2) and the factor on cos and sin. */
export interface RopeFrequencies {
  readonly inverse: Float32Array<ArrayBuffer>;
  readonly scale: number;
}

/**
 * Inverse frequencies of rotary embeddings (arXiv:2104.09864) with the scaling rules of transformers'
 * modeling_rope_utils: linear, llama3 and yarn (arXiv:2309.00071). Powers are rounded to float32 as there.
 *
 * @throws {OmlxError} model_load for a scaling kind that is not known
 */
export function ropeFrequencies(rope: RopeConfig): RopeFrequencies {
  const { dims } = rope;
  const plain = Float32Array.from({ length: dims / 2 }, (_, i) =>
    Math.fround(1 / Math.fround(rope.theta ** Math.fround((2 * i) / dims))),
  );
  const scaling = rope.scaling;
  switch (scaling.kind) {
    case "default":
    case "dynamic": // the base changes only beyond the trained window, which is the limit here
      return { inverse: plain, scale: 1 };
    case "linear":
      return { inverse: plain.map((f) => f / scaling.factor), scale: 1 };
    case "llama3":
      return { inverse: plain.map((f) => llama3(f, scaling)), scale: 1 };
    case "yarn":
      return yarn(plain, dims, rope.theta, scaling);
    case "factors":
      return { inverse: divided(plain, scaling.factors), scale: 1 };
    case "other":
      throw new OmlxError({
        code: "model_load",
        message: `Cannot load the model: rope scaling "${scaling.name}" is not supported`,
      });
  }
}

function divided(
  plain: Float32Array<ArrayBuffer>,
  factors: readonly number[],
): Float32Array<ArrayBuffer> {
  if (factors.length === plain.length) return plain.map((f, i) => f / (factors[i] ?? 1));
  throw new OmlxError({
    code: "model_load",
    message: `Cannot load the model: ${factors.length} rope factors where ${plain.length} are expected`,
  });
}

type Scaling<K extends RopeConfig["scaling"]["kind"]> = Extract<RopeConfig["scaling"], { kind: K }>;

function llama3(inverse: number, s: Scaling<"llama3">): number {
  const wavelength = (2 * Math.PI) / inverse;
  if (wavelength < s.originalMaxPositions / s.highFreqFactor) return inverse;
  if (wavelength > s.originalMaxPositions / s.lowFreqFactor) return inverse / s.factor;
  const smooth =
    (s.originalMaxPositions / wavelength - s.lowFreqFactor) / (s.highFreqFactor - s.lowFreqFactor);
  return (1 - smooth) * (inverse / s.factor) + smooth * inverse;
}

function yarn(
  plain: Float32Array<ArrayBuffer>,
  dims: number,
  base: number,
  s: Scaling<"yarn">,
): RopeFrequencies {
  const dimOf = (rotations: number) =>
    (dims * Math.log(s.originalMaxPositions / (rotations * 2 * Math.PI))) / (2 * Math.log(base));
  const whole = (round: (x: number) => number, x: number) => (s.truncate ? round(x) : x);
  const low = Math.max(whole(Math.floor, dimOf(s.betaFast)), 0);
  const high = Math.min(whole(Math.ceil, dimOf(s.betaSlow)), dims - 1);
  const width = high === low ? 0.001 : high - low;
  const inverse = plain.map((f, i) => {
    const ramp = Math.min(Math.max((i - low) / width, 0), 1); // 0 keeps the frequency, 1 interpolates
    return (f / s.factor) * ramp + f * (1 - ramp);
  });
  const mscale = (factor: number, m: number) => (factor <= 1 ? 1 : 0.1 * m * Math.log(factor) + 1);
  const scale =
    s.attentionFactor ?? mscale(s.factor, s.mscale ?? 1) / mscale(s.factor, s.mscaleAllDim ?? 0);
  return { inverse, scale };
}
