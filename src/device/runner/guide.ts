import type { ThinkingBudget, TokenRequest } from "#core/contract";
import type { Allowed, Matcher } from "#device/grammar";

/** What a request's next token may be. */
export type Guidance =
  /** Anything but these. */
  | { readonly kind: "free"; readonly bannedIds: readonly number[] }
  | { readonly kind: "masked"; readonly mask: Int32Array }
  /** These, in this order; where `isEnd`, the text is complete after them. */
  | { readonly kind: "forced"; readonly ids: readonly number[]; readonly isEnd: boolean };

/** Leads one request's tokens: thoughts up to their budget, then the grammar. Every token has to be told by take(). */
export class Guide {
  readonly #matcher: Matcher | null;
  readonly #after: readonly number[] | null;
  readonly #stopIds: readonly number[];
  readonly #budget: ThinkingBudget | null;
  /** The last ids, as many as the longest marker has. */
  #tail: number[] = [];
  #numThoughts = 0;
  #isThinking: boolean;
  #isFree: boolean;
  /** The grammar's answer to the last token. */
  #allowed: Allowed | undefined;
  /** How many of its forced ids were taken. */
  #numTaken = 0;

  constructor(request: TokenRequest, matcher: Matcher | null) {
    this.#matcher = matcher;
    this.#after = request.constraint?.after ?? null;
    this.#stopIds = request.stopIds;
    this.#budget = request.thinkingBudget;
    this.#isThinking = this.#budget !== null;
    this.#isFree = matcher === null || (this.#after !== null && this.#after.length > 0);
  }

  /**
   * Waits for the grammar, if it is not ready.
   *
   * @throws {OmlxError} internal: the grammar is lost, or cannot go on
   */
  next(): Guidance {
    const budget = this.#budget;
    if (this.#isThinking && budget !== null && this.#numThoughts >= budget.maxTokens)
      return { kind: "forced", ids: this.#restOf(budget.endIds), isEnd: false };
    // A text that ends in its thoughts would lack what the grammar demands.
    if (this.#isFree)
      return { kind: "free", bannedIds: this.#matcher === null ? [] : this.#stopIds };
    this.#allowed ??= (this.#matcher as Matcher).next();
    const { forced, mask, isEnd } = this.#allowed;
    if (forced.length > this.#numTaken || isEnd)
      return { kind: "forced", ids: forced.slice(this.#numTaken), isEnd };
    return { kind: "masked", mask };
  }

  /** The text goes on with this token. */
  take(id: number): void {
    if (this.#isThinking || this.#isFree) {
      this.#think(id);
      return;
    }
    const numForced = this.#allowed?.forced.length ?? 0;
    if (this.#numTaken < numForced) {
      this.#numTaken++; // the grammar has it already
      return;
    }
    this.#matcher?.accept(id);
    this.#allowed = undefined;
    this.#numTaken = 0;
  }

  /** Gives the grammar's state back. */
  close(): void {
    this.#matcher?.close();
  }

  #think(id: number): void {
    this.#numThoughts++;
    const longest = Math.max(this.#after?.length ?? 0, this.#budget?.endIds.length ?? 0);
    this.#tail = [...this.#tail, id].slice(-longest);
    if (this.#budget !== null && endsWith(this.#tail, this.#budget.endIds))
      this.#isThinking = false;
    if (this.#after !== null && endsWith(this.#tail, this.#after)) {
      this.#isFree = this.#matcher === null;
      this.#isThinking = false;
    }
  }

  /** The ids of an end that are still to come: its beginning may stand at the end of the text. */
  #restOf(endIds: readonly number[]): readonly number[] {
    for (let n = Math.min(this.#tail.length, endIds.length - 1); n > 0; n--)
      if (endsWith(this.#tail, endIds.slice(0, n))) return endIds.slice(n);
    return endIds;
  }
}

function endsWith(ids: readonly number[], end: readonly number[]): boolean {
  const from = ids.length - end.length;
  return from >= 0 && end.every((id, i) => ids[from + i] === id);
}
