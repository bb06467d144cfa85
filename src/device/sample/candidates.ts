/** How many of a row's most probable tokens are looked at before the whole row is. */
export const NUM_CANDIDATES = 256;

/** exp(-40) of 150,000 tokens is below float32's resolution of any sum that has a 1 in it. */
const NEGLIGIBLE = -40;

/** The head of one row of logits. NaN in `lse` says that the row holds NaN or infinity, or only -infinity. */
export interface Candidates {
  readonly max: number;
  /** Log-sum-exp of the row. */
  readonly lse: number;
  /** Log-sum-exp of the row times the inverse temperature. */
  readonly lseAtTemperature: number;
  /** Token ids, most probable first; of equal ones the lower id first. */
  readonly ids: Int32Array;
  /** Their logits (before temperature). */
  readonly values: Float32Array;
}

/** Finds the head of a row; the CPU kernels have one of their own with the same answers. */
export type Rank = (logits: Float32Array, inverseTemperature: number, count: number) => Candidates;

/** So cold that only the largest logit is left. */
export const isGreedy = (temperature: number): boolean => temperature < 1e-5;

/** What the row of a request is multiplied by; argmax needs no temperature. */
export const inverseTemperature = (temperature: number): number =>
  isGreedy(temperature) ? 1 : 1 / temperature;

/**
 * The head of a row, in plain TypeScript.
 *
 * @param logits (V)
 * @param count  at most so many candidates
 */
export const candidatesOf: Rank = (logits, inverse, count) => {
  let max = Number.NEGATIVE_INFINITY;
  for (let id = 0; id < logits.length; id++) {
    const value = logits[id] as number;
    if (value > max) max = value;
  }
  let sum = 0;
  let sumAtTemperature = 0;
  for (let id = 0; id < logits.length; id++) {
    const below = (logits[id] as number) - max;
    // The comparisons are false for NaN, so that NaN reaches the sums.
    if (!(below < NEGLIGIBLE)) sum += Math.exp(below);
    if (inverse !== 1 && !(below * inverse < NEGLIGIBLE))
      sumAtTemperature += Math.exp(below * inverse);
  }
  const lse = Math.fround(max + Math.log(sum));
  const ids = largest(logits, Math.min(count, logits.length));
  return {
    max,
    lse,
    lseAtTemperature: inverse === 1 ? lse : Math.fround(max * inverse + Math.log(sumAtTemperature)),
    ids,
    values: Float32Array.from(ids, (id) => logits[id] as number),
  };
};

/** Ids of the `count` largest values, largest first, ties by lower id. NaN is never among them. */
function largest(logits: Float32Array, count: number): Int32Array {
  // A heap whose root is the worst of the best: smallest value, then highest id.
  const heap = new Int32Array(count);
  const isWorse = (a: number, b: number): boolean => {
    const x = logits[a] as number;
    const y = logits[b] as number;
    return x < y || (x === y && a > b);
  };
  const sink = (from: number, size: number, id: number) => {
    let at = from;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= size) break;
      if (child + 1 < size && isWorse(heap[child + 1] as number, heap[child] as number)) child++;
      if (!isWorse(heap[child] as number, id)) break;
      heap[at] = heap[child] as number;
      at = child;
    }
    heap[at] = id;
  };
  for (let id = 0; id < count; id++) heap[id] = id;
  for (let at = (count >> 1) - 1; at >= 0; at--) sink(at, count, heap[at] as number);
  let worst = logits[heap[0] as number] as number;
  for (let id = count; id < logits.length; id++) {
    // A later id loses a tie.
    if ((logits[id] as number) <= worst) continue;
    sink(0, count, id);
    worst = logits[heap[0] as number] as number;
  }
  return heap.sort((a, b) => (isWorse(a, b) ? 1 : -1));
}
