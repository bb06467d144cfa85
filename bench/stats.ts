/** Values that were measured, by peer and round. */

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

export interface Summary {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  readonly count: number;
}

/** Undefined if there is nothing to summarize. */
export function summarize(values: readonly number[]): Summary | undefined {
  if (values.length === 0) return undefined;
  return {
    median: median(values),
    min: Math.min(...values),
    max: Math.max(...values),
    count: values.length,
  };
}

/** One measured value. `others`: CPU used meanwhile outside of the benchmark, 1 is one core. */
export interface Sample {
  readonly key: string;
  readonly peer: string;
  readonly round: number;
  readonly value: number;
  readonly others: number;
}

/** All values of a run. */
export class Samples {
  readonly all: Sample[] = [];

  add(sample: Sample): void {
    this.all.push(sample);
  }

  values(key: string, peer: string): number[] {
    return this.#of(key, peer).map(({ value }) => value);
  }

  summary(key: string, peer: string): Summary | undefined {
    return summarize(this.values(key, peer));
  }

  /**
   * a : b, one ratio per round that has both (of the round's medians), so that a slow minute of the machine is in both
   * terms. Keys may differ: two quantities of one peer.
   */
  ratio(a: Place, b: Place): Summary | undefined {
    const ratios: number[] = [];
    for (const round of new Set(this.all.map((sample) => sample.round))) {
      const top = this.#round(a, round);
      const bottom = this.#round(b, round);
      if (top.length > 0 && bottom.length > 0) ratios.push(median(top) / median(bottom));
    }
    return summarize(ratios);
  }

  #round({ key, peer }: Place, round: number): number[] {
    return this.#of(key, peer)
      .filter((sample) => sample.round === round)
      .map(({ value }) => value);
  }

  #of(key: string, peer: string): Sample[] {
    return this.all.filter((sample) => sample.key === key && sample.peer === peer);
  }
}

/** A quantity of a peer. */
export interface Place {
  readonly key: string;
  readonly peer: string;
}
