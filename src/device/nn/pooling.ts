import type { PoolingMode } from "#core/formats";

/**
 * One row of a text's token rows. Sums are in double precision, in the order of the tokens.
 *
 * @param rows  (n, width), row-major
 * @param out   modes.length · width numbers
 */
export function poolRows(
  rows: Float32Array,
  width: number,
  modes: readonly PoolingMode[],
  out: Float32Array,
): void {
  const n = rows.length / width;
  modes.forEach((mode, m) => {
    const to = out.subarray(m * width, (m + 1) * width);
    switch (mode) {
      case "cls":
        to.set(rows.subarray(0, width));
        return;
      case "lastToken":
        to.set(rows.subarray((n - 1) * width));
        return;
      case "max":
        to.set(rows.subarray(0, width));
        for (let i = width; i < rows.length; i++) {
          const at = i % width;
          // a NaN must not get lost
          if (!((to[at] as number) >= (rows[i] as number))) to[at] = rows[i] as number;
        }
        return;
      case "mean":
        weighted(rows, width, to, () => 1, n);
        return;
      case "meanSqrtLength":
        weighted(rows, width, to, () => 1, Math.sqrt(n));
        return;
      case "weightedMean":
        weighted(rows, width, to, (i) => i + 1, (n * (n + 1)) / 2);
        return;
    }
  });
}

function weighted(
  rows: Float32Array,
  width: number,
  to: Float32Array,
  weightOf: (row: number) => number,
  total: number,
): void {
  const sums = new Float64Array(width);
  for (let row = 0, at = 0; at < rows.length; row++) {
    const weight = weightOf(row);
    for (let i = 0; i < width; i++) sums[i] = (sums[i] as number) + weight * (rows[at++] as number);
  }
  for (let i = 0; i < width; i++) to[i] = (sums[i] as number) / total;
}

/** Makes a vector's length 1, in place; a vector of zeros stays. */
export function normalizeRow(row: Float32Array): void {
  let square = 0;
  for (const x of row) square += x * x;
  const length = Math.max(Math.sqrt(square), 1e-12);
  for (let i = 0; i < row.length; i++) row[i] = (row[i] as number) / length;
}
