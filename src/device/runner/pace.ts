/** Wall-clock limit of one prefill chunk, whatever the options say: it bounds how late a cancel is seen. */
const MAX_CHUNK_MS = 250;
/** So much longer may a chunk take while no answer runs: more rows at once take less time each. */
const ALONE_FACTOR = 2;
/** The first chunk, before any speed is known. */
const FIRST_CHUNK = 32;
/** Chunks never get smaller, however slow the machine. */
const MIN_CHUNK = 16;
/** Bounds of the share of the time that running answers keep while prompts are read. */
const DECODE_SHARE = { least: 0.25, most: 0.5 };
/** Prefill is never put off for longer than this. */
const MAX_DEBT_MS = 500;

/**
 * Sizes prefill chunks by time, from the measured speed.
 *
 * While answers run, prefill pays back what it took: after a chunk of x ms come decode-only steps of about x ms, so that
 * a long prompt at most halves the speed of the others. When more requests wait for their first token than get answers, the
 * steps take less: every request counts the same, but answers keep a quarter of the time.
 */
export class Pace {
  readonly #targetMs: number;
  readonly #aloneMs: number;
  readonly #maxRows: number;
  /** Prefill rows per ms; 0: not measured yet. */
  #rowsPerMs = 0;
  #decodeMs = 0;
  #debtMs = 0;

  constructor(targetMs: number, maxRows: number) {
    this.#targetMs = Math.min(targetMs, MAX_CHUNK_MS);
    this.#aloneMs = Math.min(ALONE_FACTOR * targetMs, MAX_CHUNK_MS);
    this.#maxRows = maxRows;
  }

  /** Prefill rows that the next step may hold. */
  chunkRows(decodeRows: number): number {
    if (decodeRows === 0) this.#debtMs = 0;
    if (this.#debtMs > 0) return 0;
    const targetMs = this.#targetFor(decodeRows);
    const wanted = this.#rowsPerMs ? Math.floor(this.#rowsPerMs * targetMs) : FIRST_CHUNK;
    const even = wanted > 64 ? wanted - (wanted % 16) : wanted;
    return Math.max(MIN_CHUNK, Math.min(even, this.#maxRows - decodeRows));
  }

  /**
   * A step ran.
   *
   * @param prompts how many are being read
   */
  learn(prefillRows: number, decodeRows: number, prompts: number, elapsedMs: number): void {
    if (prefillRows === 0) {
      this.#decodeMs = this.#decodeMs ? 0.8 * this.#decodeMs + 0.2 * elapsedMs : elapsedMs;
      this.#debtMs = Math.max(0, this.#debtMs - elapsedMs);
      return;
    }
    const decodeMs = decodeRows > 0 ? Math.min(this.#decodeMs, 0.9 * elapsedMs) : 0;
    const prefillMs = Math.max(elapsedMs - decodeMs, 0.01);
    const measured = prefillRows / prefillMs;
    const targetMs = this.#targetFor(decodeRows);
    const expected = this.#rowsPerMs * targetMs;
    if (this.#rowsPerMs === 0) this.#rowsPerMs = measured;
    else if (measured > this.#rowsPerMs) this.#rowsPerMs = 0.25 * this.#rowsPerMs + 0.75 * measured;
    // A small chunk is slow per row and says little about a full one.
    else if (prefillRows >= 0.5 * expected || prefillMs > targetMs)
      this.#rowsPerMs = 0.5 * this.#rowsPerMs + 0.5 * measured;
    if (decodeRows > 0) {
      const { least, most } = DECODE_SHARE;
      const share = Math.min(most, Math.max(least, decodeRows / (decodeRows + prompts)));
      const debt = (prefillMs * share) / (1 - share);
      this.#debtMs = Math.min(MAX_DEBT_MS, this.#debtMs + debt);
    }
  }

  #targetFor(decodeRows: number): number {
    return decodeRows === 0 ? this.#aloneMs : this.#targetMs;
  }
}
