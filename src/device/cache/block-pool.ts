/**
 * Hands out block ids and counts who holds them. Knows no tensor: a storage keeps what belongs to an id.
 *
 * Every id in `[0, numBlocks)` is either free or held by at least one owner.
 */
export class BlockPool {
  readonly numBlocks: number;
  readonly #refs: Uint32Array;
  /** A stack: the id freed last is given out first, while its memory is still warm. */
  readonly #free: number[];

  /** @throws {RangeError} if numBlocks is not a positive integer */
  constructor(numBlocks: number) {
    if (!Number.isInteger(numBlocks) || numBlocks < 1)
      throw new RangeError(`Cannot make a pool of ${numBlocks} blocks`);
    this.numBlocks = numBlocks;
    this.#refs = new Uint32Array(numBlocks);
    this.#free = Array.from({ length: numBlocks }, (_, i) => numBlocks - 1 - i);
  }

  get numFree(): number {
    return this.#free.length;
  }

  /** A free block, now held once; undefined if none is left. */
  take(): number | undefined {
    const block = this.#free.pop();
    if (block !== undefined) this.#refs[block] = 1;
    return block;
  }

  /** One more owner holds the block. */
  retain(block: number): void {
    this.#refs[block] = this.#held(block) + 1;
  }

  /**
   * One owner lets the block go.
   *
   * @returns true if it was the last one: the block is free, its content is to be dropped
   */
  release(block: number): boolean {
    const left = this.#held(block) - 1;
    this.#refs[block] = left;
    if (left === 0) this.#free.push(block);
    return left === 0;
  }

  /** How many owners hold the block; 0: free. */
  refs(block: number): number {
    return this.#refs[block] ?? 0;
  }

  /**
   * Compares the books with what the owners say they hold.
   *
   * @param owned every owner's blocks, one entry per reference
   * @throws {Error} naming the first block whose count differs, or the sum that does not add up
   */
  check(owned: Iterable<number>): void {
    const counted = new Uint32Array(this.numBlocks);
    for (const block of owned) counted[block] = (counted[block] ?? 0) + 1;
    let used = 0;
    for (let block = 0; block < this.numBlocks; block++) {
      if (counted[block] !== this.#refs[block])
        throw new Error(
          `block ${block} is counted ${this.#refs[block]} times but held ${counted[block]} times`,
        );
      if (counted[block] !== 0) used++;
    }
    if (used + this.#free.length !== this.numBlocks)
      throw new Error(`${used} used + ${this.#free.length} free != ${this.numBlocks} blocks`);
  }

  #held(block: number): number {
    const refs = this.#refs[block];
    if (!refs) throw new Error(`block ${block} is not held by anyone`);
    return refs;
  }
}
