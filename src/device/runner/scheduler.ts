import {
  type ErrorData,
  invalidRequest,
  OmlxError,
  type StepEvent,
  type TokenEvent,
  type TokenLogprob,
  type TokenRequest,
} from "#core/contract";
import { type Batch, BlockPool, PrefixTree, type TreeNode } from "#device/cache";
import { assembleBatch, type LogitUse, logitUses, type PlannedRows } from "./batch.ts";
import { Pace } from "./pace.ts";
import { byAge, Sequence, type Steering } from "./sequence.ts";

/** Rows of one step at most: bounds the memory of activations. */
const MAX_BATCH_ROWS = 2048;
/** Rows of a chunk whose logits are all wanted, at most: bounds their memory. */
const MAX_SCORED_ROWS = 128;
/** Tokens that every running sequence should be able to add before the pool is full, at most. */
const RESERVE_TOKENS = 256;
/** A short prompt goes before long ones; it fits into this share of a chunk. */
const SHORT_SHARE = 0.5;
/** Background work that waited so long counts as interactive. */
const AGING_MS = 10_000;

export interface SchedulerOptions {
  readonly blockTokens: number;
  readonly numBlocks: number;
  /** Tokens of prompt and answer together. */
  readonly contextWindow: number;
  readonly maxRunning: number;
  /** Requests that may wait beside the running ones; default 4 per running one, at least 32. */
  readonly maxWaiting?: number;
  readonly prefillTargetMs: number;
  /** Separates texts in the prefix tree: model, adapter. */
  readonly salt?: string;
}

/** What the cache storage has to be told, in this order. */
export type CacheEffect =
  | {
      readonly kind: "open";
      readonly seq: number;
      readonly blocks: readonly number[];
      readonly numTokens: number;
    }
  | {
      readonly kind: "seal";
      readonly seq: number;
      readonly index: number;
      readonly block: number;
    }
  | { readonly kind: "close"; readonly seq: number }
  | { readonly kind: "drop"; readonly blocks: readonly number[] };

/** One step: decode rows of all running answers first, then prefill chunks. */
export interface Plan {
  readonly batch: Batch;
  readonly work: readonly PlannedRows[];
  /** What each of batch.logitRows is for. */
  readonly uses: readonly LogitUse[];
  /** The sequences that get a token, in the order of their rows. */
  readonly sampled: readonly Sequence[];
}

/** What the sampler made of one row. */
export type Sampled =
  | {
      /** One drawn token; or what a grammar forced, which may be nothing. */
      readonly ids: readonly number[];
      readonly logprobs?: readonly TokenLogprob[] | undefined;
      /** The grammar is complete after these. */
      readonly isEnd?: boolean | undefined;
    }
  | { readonly error: ErrorData };

/** What a step found of prompts that are scored. */
export type PromptScores = ReadonlyMap<Sequence, readonly TokenLogprob[]>;

export interface Settled {
  readonly events: readonly StepEvent[];
  readonly failed: readonly { readonly id: string; readonly error: ErrorData }[];
}

/**
 * Decides what runs in each step: waiting → running → finished. Knows no tensor and no clock.
 *
 * - Every running answer gets its row in every step; prompts are read in chunks sized by time.
 * - Blocks are taken as they fill. When none is free, the prefix tree gives back its oldest; then the youngest running
 *   sequence is preempted: its full blocks stay in the tree, its generated tokens are read again like a prompt.
 * - Who came first never loses a block to who came later, so the oldest always gets on.
 * - A prompt that shares an unfinished block with one that is being read waits for it, then attaches.
 * - Full blocks go into the tree at once, so that an aborted prompt keeps what it computed.
 *
 * After each call that changes something, the caller applies takeEffects() to the storage, before the next step runs.
 */
export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #pool: BlockPool;
  readonly #tree: PrefixTree;
  readonly #pace: Pace;
  readonly #maxWaiting: number;
  readonly #byId = new Map<string, Sequence>();
  #waiting: Sequence[] = [];
  #running: Sequence[] = [];
  #effects: CacheEffect[] = [];
  #order = 0;
  #seq = 0;
  #steps = 0;
  #preemptions = 0;
  #promptTokens = 0;
  #cachedTokens = 0;
  #generatedTokens = 0;
  /** Running mean of how long a request takes, for Retry-After. */
  #serviceMs = 1000;

  constructor(options: SchedulerOptions) {
    this.#options = options;
    this.#pool = new BlockPool(options.numBlocks);
    this.#tree = new PrefixTree(options.blockTokens);
    this.#pace = new Pace(options.prefillTargetMs, Math.max(MAX_BATCH_ROWS, options.maxRunning));
    this.#maxWaiting = options.maxWaiting ?? Math.max(32, 4 * options.maxRunning);
  }

  get isIdle(): boolean {
    return this.#byId.size === 0;
  }

  get stats() {
    return {
      waiting: this.#waiting.length,
      running: this.#running.length,
      steps: this.#steps,
      promptTokens: this.#promptTokens,
      cachedTokens: this.#cachedTokens,
      generatedTokens: this.#generatedTokens,
      freeBlocks: this.#pool.numFree,
      totalBlocks: this.#pool.numBlocks,
      treeBlocks: this.#tree.numBlocks,
      preemptions: this.#preemptions,
    };
  }

  /**
   * Queues a request; its guide is closed when it ends.
   *
   * @throws {OmlxError} context_length or out_of_memory if it can never fit, overloaded if the queue is full
   */
  submit(request: TokenRequest, nowMs: number, steering?: Steering): void {
    const numTokens = request.promptIds.length;
    if (this.#byId.has(request.id))
      throw invalidRequest(`Cannot start request "${request.id}": it is running already`);
    if (numTokens === 0) throw invalidRequest("Cannot continue an empty prompt");
    if (request.maxTokens < 1)
      throw invalidRequest(`Cannot generate ${request.maxTokens} tokens: at least 1 is needed`);
    const { contextWindow, numBlocks, blockTokens } = this.#options;
    if (numTokens >= contextWindow)
      throw new OmlxError({
        code: "context_length",
        message: `Cannot fit the prompt: ${numTokens} tokens leave no room for an answer in a window of ${contextWindow}`,
        data: { numTokens, maxTokens: contextWindow },
      });
    const capacity = numBlocks * blockTokens;
    if (numTokens > capacity)
      throw new OmlxError({
        code: "out_of_memory",
        message: `Cannot fit the prompt: ${numTokens} tokens need more than the ${capacity} tokens that the cache can hold`,
        data: { numTokens, maxTokens: capacity },
      });
    if (this.#byId.size >= this.#maxWaiting + this.#options.maxRunning) throw this.#overloaded();
    // The last token generated is never computed, hence + 1.
    const room = Math.min(contextWindow, capacity + 1) - numTokens;
    const maxTokens = Math.min(request.maxTokens, room);
    const sequence = new Sequence(request, this.#order++, nowMs, maxTokens, steering);
    this.#byId.set(request.id, sequence);
    this.#waiting.push(sequence);
  }

  /**
   * Ends a request between two steps; what it computed stays in the tree.
   *
   * @returns false if no such request is open
   */
  cancel(id: string): boolean {
    const sequence = this.#byId.get(id);
    if (!sequence) return false;
    this.#remove(sequence);
    return true;
  }

  /** The next step; null if there is nothing to do. */
  next(nowMs: number): Plan | null {
    for (const sequence of this.#byId.values())
      if (nowMs - sequence.arrivedMs >= AGING_MS) sequence.isPromoted = true;
    this.#admitWaiting();
    this.#running.sort(byAge);
    for (const sequence of [...this.#running])
      if (sequence.isRunning) this.#ensureNextRow(sequence);
    const decoding = this.#running.filter((s) => !s.isPrefill);
    const work: PlannedRows[] = decoding.map((sequence) => ({
      sequence,
      rows: sequence.pending,
      isSampled: true,
    }));
    work.push(...this.#planPrefill(work.reduce((sum, { rows }) => sum + rows, 0)));
    if (work.length === 0) return null;
    return {
      batch: assembleBatch(work),
      work,
      uses: logitUses(work),
      sampled: work.filter((w) => w.isSampled).map((w) => w.sequence),
    };
  }

  /**
   * Books a step that ran.
   *
   * @param sampled one per plan.sampled, in that order
   * @param nowMs   for the books on service time; elapsedMs is the step's own time
   * @param scores  log-probabilities of prompt tokens
   */
  settle(
    plan: Plan,
    sampled: readonly Sampled[],
    elapsedMs: number,
    nowMs: number,
    scores: PromptScores = new Map(),
  ): Settled {
    if (sampled.length !== plan.sampled.length)
      throw new Error(`${sampled.length} tokens for ${plan.sampled.length} sequences`);
    const decoding = plan.work.filter((w) => !w.sequence.isPrefill);
    const decodeRows = decoding.reduce((sum, { rows }) => sum + rows, 0);
    const prompts = this.#running.filter((s) => s.isPrefill).length;
    this.#pace.learn(plan.batch.ids.length - decodeRows, decodeRows, prompts, elapsedMs);
    const step = this.#steps++;
    const events: StepEvent[] = [];
    const failed: { id: string; error: ErrorData }[] = [];
    let at = 0;
    for (const { sequence, rows, isSampled } of plan.work) {
      const result = isSampled ? sampled[at++] : undefined;
      const { id } = sequence.request;
      if (result && "error" in result) {
        this.#removePoisoned(sequence);
        failed.push({ id, error: result.error });
        continue;
      }
      const wasPrefill = sequence.isPrefill;
      if (wasPrefill) sequence.servedStep = step;
      sequence.computed += rows;
      const logprobs = scores.get(sequence);
      sequence.scored += logprobs?.length ?? 0;
      this.#sealFull(sequence);
      const mine: TokenEvent[] = [];
      if (wasPrefill && sequence.generated === 0) {
        const { relaxed } = sequence;
        sequence.relaxed = undefined;
        mine.push({
          kind: "prefill",
          done: sequence.computed,
          total: sequence.promptTokens,
          cached: sequence.cachedTokens,
          ...(logprobs ? { logprobs } : {}),
          ...(relaxed === undefined ? {} : { relaxed }),
        });
      }
      if (result) mine.push(...this.#append(sequence, result, nowMs));
      if (mine.length > 0) events.push({ id, events: mine });
    }
    return { events, failed };
  }

  /**
   * Ends the requests of a step that could not run.
   *
   * @returns their ids
   */
  abandon(plan: Plan): string[] {
    for (const { sequence } of plan.work) this.#remove(sequence);
    return plan.work.map((w) => w.sequence.request.id);
  }

  /** What the storage has to be told since the last call. */
  takeEffects(): readonly CacheEffect[] {
    const effects = this.#effects;
    this.#effects = [];
    return effects;
  }

  /** @throws {Error} if blocks, references or pins do not add up: free + tree + sequences' own = all */
  check(): void {
    const owned = [...this.#tree.blocks(), ...this.#running.flatMap((s) => s.blocks)];
    this.#pool.check(owned);
    this.#tree.check();
    if (this.#running.length === 0 && this.#tree.numEvictable !== this.#tree.numBlocks)
      throw new Error(
        `${this.#tree.numBlocks - this.#tree.numEvictable} blocks are pinned by nobody`,
      );
  }

  // ---- admission

  #admitWaiting(): void {
    this.#waiting.sort(byAge);
    for (const sequence of [...this.#waiting]) {
      if (this.#running.length >= this.#options.maxRunning) return;
      if (this.#isHeld(sequence)) continue;
      if (!this.#admit(sequence)) return;
    }
  }

  /** Whether a running prefill is about to store a block that this prompt could reuse. */
  #isHeld(sequence: Sequence): boolean {
    if (sequence.scoresPrompt) return false;
    for (const other of this.#running) {
      if (!other.isPrefill || this.#sharedBlocks(sequence, other) <= other.sealed) continue;
      if (sequence.lane < other.lane) other.isPromoted = true;
      return true;
    }
    return false;
  }

  /** Whole blocks that both will have in the tree once `other` is read. */
  #sharedBlocks(sequence: Sequence, other: Sequence): number {
    const known = sequence.sharedBlocks.get(other.seq);
    if (known !== undefined) return known;
    const limit = Math.min(sequence.ids.length - 1, other.prefillEnd);
    let n = 0;
    while (n < limit && sequence.ids[n] === other.ids[n]) n++;
    const shared = Math.floor(n / this.#options.blockTokens);
    sequence.sharedBlocks.set(other.seq, shared);
    return shared;
  }

  /** @returns false if the cache has no room for it now */
  #admit(sequence: Sequence): boolean {
    // What was computed before has no logits any more.
    const known = sequence.scoresPrompt ? [] : sequence.ids;
    const { blocks, node } = this.#tree.match(known, this.#options.salt);
    this.#tree.pin(node);
    const available = this.#pool.numFree + this.#tree.numEvictable;
    const promised = this.#running.reduce((sum, s) => sum + this.#blocksToCome(s, s.blocks), 0);
    if (this.#running.length > 0 && promised + this.#blocksToCome(sequence, blocks) > available) {
      this.#tree.unpin(node);
      return false;
    }
    for (const block of blocks) this.#pool.retain(block);
    const numTokens = blocks.length * this.#options.blockTokens;
    sequence.seq = this.#seq++;
    sequence.blocks = [...blocks];
    sequence.node = node;
    sequence.sealed = blocks.length;
    sequence.computed = numTokens;
    sequence.prefillEnd = sequence.ids.length;
    sequence.isRunning = true;
    sequence.sharedBlocks.clear();
    this.#waiting = this.#waiting.filter((s) => s !== sequence);
    this.#running.push(sequence);
    if (sequence.cachedTokens < 0) {
      sequence.cachedTokens = numTokens;
      this.#promptTokens += sequence.promptTokens;
      this.#cachedTokens += numTokens;
    }
    this.#effects.push({ kind: "open", seq: sequence.seq, blocks, numTokens });
    return true;
  }

  /** Blocks that a sequence still needs for its known ids and a fair share of its answer. */
  #blocksToCome(sequence: Sequence, held: readonly number[]): number {
    const { numBlocks, blockTokens, maxRunning } = this.#options;
    const share = Math.floor((numBlocks * blockTokens) / (2 * maxRunning));
    const reserve = Math.min(RESERVE_TOKENS, share);
    const left = sequence.maxTokens - sequence.generated - 1;
    const tokens = sequence.ids.length + Math.min(left, reserve);
    return Math.max(0, Math.ceil(tokens / blockTokens) - held.length);
  }

  // ---- blocks

  /** Makes room for the rows to come; if the pool is full, whoever came last gives way, be it the sequence itself. */
  #ensureNextRow(sequence: Sequence): void {
    const rows = sequence.isPrefill ? 1 : sequence.pending;
    while (!this.#cover(sequence, sequence.computed + rows)) {
      const youngest = this.#running.reduce((a, b) => (a.isBefore(b) ? b : a));
      this.#preempt(youngest);
      if (youngest === sequence) return;
    }
  }

  /** Takes blocks until they cover `numTokens` tokens; false if there are not enough. */
  #cover(sequence: Sequence, numTokens: number): boolean {
    while (sequence.blocks.length * this.#options.blockTokens < numTokens) {
      const block = this.#takeBlock();
      if (block === undefined) return false;
      sequence.blocks.push(block);
    }
    return true;
  }

  #takeBlock(): number | undefined {
    if (this.#pool.numFree === 0) this.#release(this.#tree.evict(1));
    return this.#pool.take();
  }

  #release(blocks: readonly number[]): void {
    const dropped = blocks.filter((block) => this.#pool.release(block));
    if (dropped.length > 0) this.#effects.push({ kind: "drop", blocks: dropped });
  }

  /** Puts every full block of the sequence into the tree. */
  #sealFull(sequence: Sequence): void {
    const { blockTokens } = this.#options;
    while ((sequence.sealed + 1) * blockTokens <= sequence.computed) {
      const index = sequence.sealed++;
      const block = sequence.blocks[index] as number;
      const above = sequence.node as TreeNode;
      const node = this.#tree.extend(above, sequence.ids, index * blockTokens, block);
      this.#tree.pinChild(node);
      sequence.node = node;
      this.#pool.retain(node.block);
      if (node.block === block) {
        this.#effects.push({ kind: "seal", seq: sequence.seq, index, block });
      } else {
        // The same text was stored meanwhile: its block serves both.
        sequence.blocks[index] = node.block;
        this.#release([block]);
      }
    }
  }

  /** Gives up what a running sequence holds; its full blocks stay in the tree. */
  #close(sequence: Sequence): void {
    this.#running = this.#running.filter((s) => s !== sequence);
    this.#effects.push({ kind: "close", seq: sequence.seq });
    this.#release(sequence.blocks);
    this.#tree.unpin(sequence.node as TreeNode);
    sequence.isRunning = false;
    sequence.blocks = [];
    sequence.sealed = 0;
    sequence.computed = 0;
  }

  #preempt(sequence: Sequence): void {
    this.#close(sequence);
    this.#waiting.push(sequence);
    this.#preemptions++;
  }

  #remove(sequence: Sequence): void {
    this.#byId.delete(sequence.request.id);
    sequence.guide?.close();
    if (sequence.isRunning) this.#close(sequence);
    else this.#waiting = this.#waiting.filter((s) => s !== sequence);
  }

  /** Its keys and values may hold NaN: nobody else shall reuse them. */
  #removePoisoned(sequence: Sequence): void {
    const node = sequence.node as TreeNode;
    this.#remove(sequence);
    this.#release(this.#tree.prune(node));
  }

  // ---- prefill

  #planPrefill(decodeRows: number): PlannedRows[] {
    const reading = this.#running.filter((s) => s.isPrefill);
    let budget = reading.length > 0 ? this.#pace.chunkRows(decodeRows) : 0;
    const shortRows = Math.floor(budget * SHORT_SHARE);
    const rowsOf = new Map<Sequence, number>();
    const give = (sequences: readonly Sequence[], limit: number) => {
      let left = Math.min(limit, budget);
      for (const sequence of sequences) {
        const given = rowsOf.get(sequence) ?? 0;
        const rows = this.#affordableRows(sequence, given, left);
        if (rows === 0) continue;
        rowsOf.set(sequence, given + rows);
        left -= rows;
        budget -= rows;
      }
    };
    for (const lane of [0, 1]) {
      const mine = reading.filter((s) => s.lane === lane);
      const short = mine.filter((s) => s.pending <= shortRows);
      // Long prompts take turns.
      const long = mine.filter((s) => s.pending > shortRows);
      long.sort((a, b) => a.servedStep - b.servedStep || byAge(a, b));
      give(short, long.length > 0 ? shortRows : budget);
      give(long, budget);
      give(short, budget);
    }
    return reading
      .filter((s) => rowsOf.has(s))
      .map((sequence) => {
        const rows = rowsOf.get(sequence) as number;
        return { sequence, rows, isSampled: rows === sequence.pending };
      });
  }

  /** Up to `limit` further rows, as far as blocks go without preempting anybody. */
  #affordableRows(sequence: Sequence, given: number, limit: number): number {
    const most = sequence.scoresPrompt ? MAX_SCORED_ROWS - given : limit;
    const rows = Math.min(limit, most, sequence.pending - given);
    if (rows <= 0) return 0;
    const from = sequence.computed + given;
    this.#cover(sequence, from + rows);
    return Math.min(rows, sequence.blocks.length * this.#options.blockTokens - from);
  }

  // ---- tokens

  #append(
    sequence: Sequence,
    { ids, logprobs, isEnd }: Exclude<Sampled, { error: ErrorData }>,
    nowMs: number,
  ): TokenEvent[] {
    const { stopIds, minTokens } = sequence.request;
    const [only] = ids;
    if (ids.length === 1 && only !== undefined && stopIds.includes(only)) {
      if (sequence.generated >= minTokens) {
        this.#finish(sequence, nowMs);
        return [{ kind: "finish", reason: "stop", stopId: only, usage: sequence.usage }];
      }
    }
    const kept = ids.slice(0, sequence.maxTokens - sequence.generated);
    sequence.ids.push(...kept);
    this.#generatedTokens += kept.length;
    const events: TokenEvent[] = [];
    if (kept.length > 0)
      events.push({ kind: "tokens", ids: kept, ...(logprobs === undefined ? {} : { logprobs }) });
    const isComplete = isEnd === true && kept.length === ids.length;
    if (isComplete || sequence.generated >= sequence.maxTokens) {
      this.#finish(sequence, nowMs);
      const reason = isComplete ? "stop" : "length";
      events.push({ kind: "finish", reason, usage: sequence.usage });
    }
    return events;
  }

  #finish(sequence: Sequence, nowMs: number): void {
    this.#serviceMs += 0.2 * (nowMs - sequence.arrivedMs - this.#serviceMs);
    this.#remove(sequence);
  }

  #overloaded(): OmlxError {
    const { maxRunning } = this.#options;
    const waitMs = (this.#serviceMs * this.#byId.size) / maxRunning;
    const retryAfterMs = Math.round(Math.min(60_000, Math.max(1000, waitMs)));
    return new OmlxError({
      code: "overloaded",
      message: `Cannot queue the request: ${this.#byId.size} are running or waiting`,
      data: { retryAfterMs },
    });
  }
}
