import * as mx from "#device/mlx";
import { type Candidates, candidatesOf, NUM_CANDIDATES, type Rank } from "./candidates.ts";
import type { LogitRow } from "./sampler.ts";

/** As many candidates as the kernel gives at most. */
const MAX_NATIVE = 1024;

/**
 * Evaluates logits and reads the head of every row.
 *
 * @param logits              (R, V) float32
 * @param inverseTemperatures one per row
 * @param isNative            with the CPU kernels instead of plain TypeScript
 * @returns usable inside the scope that holds `logits`
 * @throws {OmlxError} native: the evaluation failed. A row with NaN does not throw here, sampleRow() does.
 */
export function readRows(
  logits: mx.MxArray,
  inverseTemperatures: readonly number[],
  isNative: boolean,
): LogitRow[] {
  return isNative
    ? nativeRows(logits, Float32Array.from(inverseTemperatures))
    : plainRows(logits, inverseTemperatures);
}

function plainRows(logits: mx.MxArray, inverseTemperatures: readonly number[]): LogitRow[] {
  const vocabSize = logits.shape[1] as number;
  const all = mx.toFloat32(logits);
  return inverseTemperatures.map((inverse, r) => {
    const row = all.subarray(r * vocabSize, (r + 1) * vocabSize);
    const head = candidatesOf(row, inverse, NUM_CANDIDATES);
    return { ...head, vocabSize, full: () => row, rank: candidatesOf };
  });
}

function nativeRows(logits: mx.MxArray, inverseTemperatures: Float32Array): LogitRow[] {
  const vocabSize = logits.shape[1] as number;
  const count = Math.min(NUM_CANDIDATES, vocabSize);
  return mx.native.candidates(logits, inverseTemperatures, count).map((head, r) => {
    let copy: Float32Array | undefined;
    const full = () => {
      copy ??= mx.toFloat32(mx.slice(logits, [r, 0], [r + 1, vocabSize]));
      return copy;
    };
    return { ...head, vocabSize, full, rank: nativeRank };
  });
}

const nativeRank: Rank = (logits, inverseTemperature, count) => {
  if (count > MAX_NATIVE) return candidatesOf(logits, inverseTemperature, count);
  return mx.scope(() => {
    const row = mx.array(logits, [1, logits.length], "float32");
    const size = Math.min(count, logits.length);
    const [head] = mx.native.candidates(row, Float32Array.of(inverseTemperature), size);
    return head as Candidates;
  });
};
