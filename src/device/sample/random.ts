const ROTATIONS = [13, 15, 26, 6, 17, 29, 16, 24] as const;
const PARITY = 0x1bd11bda;

const rotate = (x: number, by: number): number => (x << by) | (x >>> (32 - by));

/**
 * The Threefry-2x32-20 block function: two 32-bit words of noise for a key and a counter.
 *
 * From Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
 */
export function threefry(
  key: readonly [number, number],
  counter: readonly [number, number],
): [number, number] {
  const keys = [key[0], key[1], PARITY ^ key[0] ^ key[1]] as const;
  let x0 = (counter[0] + keys[0]) | 0;
  let x1 = (counter[1] + keys[1]) | 0;
  for (let round = 0; round < 20; round++) {
    x0 = (x0 + x1) | 0;
    x1 = rotate(x1, ROTATIONS[round % 8] as number) ^ x0;
    if (round % 4 !== 3) continue;
    const group = (round + 1) / 4;
    x0 = (x0 + (keys[group % 3] as number)) | 0;
    x1 = (x1 + (keys[(group + 1) % 3] as number) + group) | 0;
  }
  return [x0 >>> 0, x1 >>> 0];
}

/** What a number decides, so that the decisions at one position are independent. */
export type Purpose = "token" | "xtc";
const PURPOSES: Readonly<Record<Purpose, number>> = { token: 0, xtc: 1 };

/**
 * The uniform number in [0, 1) that decides `purpose` at `position` of a text. A pure function: no state to carry, so a
 * request gives the same tokens alone, in a batch and after a preemption.
 *
 * @param seed any integer up to 2^53 in size
 */
export function uniformAt(seed: number, position: number, purpose: Purpose = "token"): number {
  const key = [seed | 0, Math.floor(seed / 2 ** 32) | 0] as const;
  const [high, low] = threefry(key, [position, PURPOSES[purpose]]);
  return ((high >>> 5) * 2 ** 26 + (low >>> 6)) / 2 ** 53;
}

/** A seed nobody can guess, for requests that bring none. */
export function randomSeed(): number {
  const [high = 0, low = 0] = crypto.getRandomValues(new Uint32Array(2));
  return (high >>> 11) * 2 ** 32 + low;
}
