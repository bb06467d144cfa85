import { OmlxError } from "#core/contract";
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
  mx.evaluate(logits);
  const heads = isNative ? nativeHeads(logits, Float32Array.from(inverseTemperatures)) : null;
  return heads ?? plainRows(logits, inverseTemperatures);
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

/** null: some row cannot be ranked; the plain way tells which. */
function nativeHeads(logits: mx.MxArray, inverseTemperatures: Float32Array): LogitRow[] | null {
  const [numRows = 0, vocabSize = 0] = logits.shape;
  const count = Math.min(NUM_CANDIDATES, vocabSize);
  let found: mx.native.Candidates;
  try {
    found = mx.native.candidates(logits, inverseTemperatures, count);
  } catch (error) {
    if (error instanceof OmlxError && error.code === "native") return null;
    throw error;
  }
  return Array.from({ length: numRows }, (_, r) => {
    let copy: Float32Array | undefined;
    const full = () => {
      copy ??= mx.toFloat32(mx.slice(logits, [r, 0], [r + 1, vocabSize]));
      return copy;
    };
    return { ...headAt(found, r), vocabSize, full, rank: nativeRank };
  });
}

const headAt = ({ k, ids, values, maxLse }: mx.native.Candidates, r: number): Candidates => ({
  max: maxLse[3 * r] as number,
  lse: maxLse[3 * r + 1] as number,
  lseAtTemperature: maxLse[3 * r + 2] as number,
  ids: ids.subarray(r * k, (r + 1) * k),
  values: values.subarray(r * k, (r + 1) * k),
});

const nativeRank: Rank = (logits, inverseTemperature, count) => {
  if (count > MAX_NATIVE) return candidatesOf(logits, inverseTemperature, count);
  return mx.scope(() => {
    const row = mx.array(logits, [1, logits.length], "float32");
    const size = Math.min(count, logits.length);
    return headAt(mx.native.candidates(row, Float32Array.of(inverseTemperature), size), 0);
  });
};
