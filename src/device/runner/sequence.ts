import type { TokenRequest, TokenUsage } from "#core/contract";
import type { TreeNode } from "#device/cache";
import type { Guide } from "./guide.ts";

/** How a request's tokens are led. */
export interface Steering {
  readonly guide: Guide | null;
  /** Why the constraint is not enforced. */
  readonly relaxed?: string | undefined;
}

const UNGUIDED: Steering = { guide: null };

/** One request downstairs: its token ids and what the cache holds of them. The scheduler alone changes it. */
export class Sequence {
  readonly request: TokenRequest;
  /** Order of arrival, kept for life: who is older never changes. */
  readonly order: number;
  readonly arrivedMs: number;
  /** Generated tokens at most: the request's wish, clamped to the window and to the cache. */
  readonly maxTokens: number;
  /** The prompt, then what was generated. */
  readonly ids: number[];
  /** Of a constraint or a thinking budget. */
  readonly guide: Guide | null;
  /** Why the constraint is not enforced, as long as nobody was told. */
  relaxed: string | undefined;

  isRunning = false;
  /** Background work that waited long enough, or that interactive work waits for. */
  isPromoted = false;
  /** Key in the cache storage; a new one for each opening. */
  seq = -1;
  /** Ids `[0, computed)` have their keys and values in the cache. */
  computed = 0;
  /** Rows below this one are prefill, also when they were generated before a preemption. */
  prefillEnd = 0;
  /** Block ids that cover `[0, computed)` and what the current step adds. */
  blocks: number[] = [];
  /** Blocks `[0, sealed)` are in the tree. */
  sealed = 0;
  /** Deepest tree node on the way, pinned while running. */
  node: TreeNode | null = null;
  /** Prompt tokens that the tree gave at the first admission. */
  cachedTokens = -1;
  /** Prompt tokens before this one whose successor's log-probability was reported. */
  scored = 0;
  /** Number of the last step that prefilled this sequence. */
  servedStep = -1;
  /** Whole blocks shared with other sequences, by their `seq`. */
  readonly sharedBlocks = new Map<number, number>();

  constructor(
    request: TokenRequest,
    order: number,
    arrivedMs: number,
    maxTokens: number,
    { guide, relaxed }: Steering = UNGUIDED,
  ) {
    this.request = request;
    this.order = order;
    this.arrivedMs = arrivedMs;
    this.maxTokens = maxTokens;
    this.ids = [...request.promptIds];
    this.guide = guide;
    this.relaxed = relaxed;
  }

  get promptTokens(): number {
    return this.request.promptIds.length;
  }

  get generated(): number {
    return this.ids.length - this.promptTokens;
  }

  /** Ids that are known but not yet computed: one of an answer that runs, or more where a grammar forced some. */
  get pending(): number {
    return this.ids.length - this.computed;
  }

  get isPrefill(): boolean {
    return this.computed < this.prefillEnd;
  }

  /** Whether log-probabilities of the prompt are still owed. */
  get scoresPrompt(): boolean {
    const { scoresPrompt, topLogprobs } = this.request;
    return scoresPrompt === true && topLogprobs !== null && this.scored < this.promptTokens - 1;
  }

  /** Ids that the next token must not be. */
  get bannedIds(): readonly number[] {
    return this.generated < this.request.minTokens ? this.request.stopIds : [];
  }

  get usage(): TokenUsage {
    return {
      promptTokens: this.promptTokens,
      cachedTokens: Math.max(0, this.cachedTokens),
      completionTokens: this.generated,
    };
  }

  /** Smaller runs first: interactive work, then who came first. */
  isBefore(other: Sequence): boolean {
    return this.lane === other.lane ? this.order < other.order : this.lane < other.lane;
  }

  /** 0: interactive, or background that was promoted. 1: background. */
  get lane(): 0 | 1 {
    return this.request.lane === "interactive" || this.isPromoted ? 0 : 1;
  }
}

/** For sort(): who runs first comes first. */
export const byAge = (a: Sequence, b: Sequence): number => (a.isBefore(b) ? -1 : 1);
