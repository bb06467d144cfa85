import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  GREEDY,
  OmlxError,
  type TokenEvent,
  type TokenLogprob,
  type TokenRequest,
} from "#core/contract";
// The files themselves, not the room's door: the door also opens the native library.
import { type Plan, type Sampled, Scheduler } from "../../../src/device/runner/scheduler.ts";

/** Ids are below this; the last one is the stop id. */
const VOCABULARY = 50;
const STOP = VOCABULARY - 1;

/** The next id as a function of all ids before it. */
const nextId = (history: readonly number[]): number =>
  (history.reduce((hash, id) => Math.imul(hash ^ id, 0x01000193) >>> 0, history.length) >>> 7) %
  VOCABULARY;

/** What a request must give, worked out without a scheduler. */
function alone(request: TokenRequest): number[] {
  const ids = [...request.promptIds];
  const out: number[] = [];
  while (out.length < request.maxTokens) {
    const id = nextId(ids);
    if (request.stopIds.includes(id) && out.length >= request.minTokens) break;
    ids.push(id);
    out.push(id);
  }
  return out;
}

/** A storage of token ids in the place of keys and values: what a sequence reads back must be its own text. */
interface Storage {
  open(seq: number, blocks: readonly number[], numTokens: number): void;
  write(plan: Plan): void;
  read(plan: Plan, span: Plan["batch"]["spans"][number]): number[];
  seal(seq: number, index: number, block: number): void;
  close(seq: number): void;
  drop(blocks: readonly number[]): void;
  readonly held: number;
}

/** Ids live in blocks, found through block tables. */
class PagedIds implements Storage {
  readonly #blocks = new Map<number, number[]>();
  readonly #open = new Set<number>();
  readonly blockTokens: number;
  constructor(blockTokens: number) {
    this.blockTokens = blockTokens;
  }
  open(seq: number): void {
    this.#open.add(seq);
  }
  write({ batch }: Plan): void {
    for (const span of batch.spans) {
      expect(this.#open.has(span.seq)).toBe(true);
      for (let i = 0; i < span.rows; i++) {
        const at = span.offset + i;
        const block = span.blocks[Math.floor(at / this.blockTokens)] as number;
        const ids = this.#blocks.get(block) ?? [];
        expect(ids.length).toBe(at % this.blockTokens); // a full or foreign block is never written
        ids.push(batch.ids[span.start + i] as number);
        this.#blocks.set(block, ids);
      }
    }
  }
  read(_plan: Plan, span: Plan["batch"]["spans"][number]): number[] {
    const used = Math.ceil((span.offset + span.rows) / this.blockTokens);
    return span.blocks.slice(0, used).flatMap((block) => this.#blocks.get(block) ?? []);
  }
  seal(): void {}
  close(seq: number): void {
    expect(this.#open.delete(seq)).toBe(true);
  }
  drop(blocks: readonly number[]): void {
    for (const block of blocks) this.#blocks.delete(block);
  }
  get held(): number {
    return this.#open.size;
  }
}

/** Every sequence has a buffer of its own; full blocks are copied out and joined again. */
class ContiguousIds implements Storage {
  readonly #buffers = new Map<number, number[]>();
  readonly #blocks = new Map<number, number[]>();
  readonly blockTokens: number;
  constructor(blockTokens: number) {
    this.blockTokens = blockTokens;
  }
  open(seq: number, blocks: readonly number[], numTokens: number): void {
    const ids = blocks.flatMap((block) => this.#blocks.get(block) ?? []);
    expect(ids.length).toBe(numTokens);
    this.#buffers.set(seq, ids);
  }
  write({ batch }: Plan): void {
    for (const span of batch.spans) {
      const buffer = this.#buffers.get(span.seq) as number[];
      expect(buffer.length).toBe(span.offset);
      buffer.push(...batch.ids.slice(span.start, span.start + span.rows));
    }
  }
  read(_plan: Plan, span: Plan["batch"]["spans"][number]): number[] {
    return this.#buffers.get(span.seq) as number[];
  }
  seal(seq: number, index: number, block: number): void {
    const buffer = this.#buffers.get(seq) as number[];
    const ids = buffer.slice(index * this.blockTokens, (index + 1) * this.blockTokens);
    expect(ids.length).toBe(this.blockTokens);
    this.#blocks.set(block, ids);
  }
  close(seq: number): void {
    expect(this.#buffers.delete(seq)).toBe(true);
  }
  drop(blocks: readonly number[]): void {
    for (const block of blocks) this.#blocks.delete(block);
  }
  get held(): number {
    return this.#buffers.size;
  }
}

interface RigOptions {
  readonly blockTokens?: number;
  readonly numBlocks?: number;
  readonly contextWindow?: number;
  readonly maxRunning?: number;
  readonly maxWaiting?: number;
  readonly contiguous?: boolean;
  /** Time that a step takes, in ms. */
  readonly cost?: (prefillRows: number, decodeRows: number) => number;
}

/** Drives a scheduler with the fake model: the next id is worked out from what the storage holds. */
class Rig {
  readonly scheduler: Scheduler;
  readonly storage: Storage;
  readonly plans: Plan[] = [];
  readonly tokens = new Map<string, number[]>();
  readonly events = new Map<string, TokenEvent[]>();
  /** Ids of requests whose next token is an error. */
  readonly poisoned = new Set<string>();
  nowMs = 0;
  readonly #cost: (prefillRows: number, decodeRows: number) => number;

  constructor(options: RigOptions = {}) {
    const blockTokens = options.blockTokens ?? 4;
    this.#cost = options.cost ?? ((prefill, decode) => 1 + prefill + 0.1 * decode);
    this.storage = options.contiguous ? new ContiguousIds(blockTokens) : new PagedIds(blockTokens);
    this.scheduler = new Scheduler({
      blockTokens,
      numBlocks: options.numBlocks ?? 64,
      contextWindow: options.contextWindow ?? 10_000,
      maxRunning: options.maxRunning ?? 4,
      ...(options.maxWaiting === undefined ? {} : { maxWaiting: options.maxWaiting }),
      prefillTargetMs: 100,
    });
  }

  submit(
    request: Partial<TokenRequest> & { id: string; promptIds: readonly number[] },
  ): TokenRequest {
    const full: TokenRequest = {
      maxTokens: 8,
      minTokens: 0,
      stopIds: [STOP],
      sampling: GREEDY,
      lane: "interactive",
      topLogprobs: null,
      constraint: null,
      thinkingBudget: null,
      ...request,
    };
    this.scheduler.submit(full, this.nowMs);
    return full;
  }

  cancel(id: string): boolean {
    const found = this.scheduler.cancel(id);
    this.#apply();
    return found;
  }

  /** One step; false if there was nothing to do. */
  step(): boolean {
    const plan = this.scheduler.next(this.nowMs);
    this.#apply();
    if (!plan) return false;
    this.plans.push(plan);
    this.storage.write(plan);
    const { batch } = plan;
    const sampled: Sampled[] = [];
    for (const span of batch.spans) {
      expect([...batch.positions.slice(span.start, span.start + span.rows)]).toEqual(
        Array.from({ length: span.rows }, (_, i) => span.offset + i),
      );
      const last = span.start + span.rows - 1;
      if (!plan.uses.some(({ row, isSampled }) => isSampled && row === last)) continue;
      const sequence = plan.sampled[sampled.length];
      const history = this.storage.read(plan, span);
      expect(history).toEqual(sequence?.ids as number[]);
      sampled.push(
        this.poisoned.has(sequence?.request.id ?? "")
          ? { error: { code: "native", message: "NaN" } }
          : { ids: [nextId(history)] },
      );
    }
    const decodeRows = plan.work.filter((w) => !w.sequence.isPrefill).length;
    const elapsedMs = this.#cost(batch.ids.length - decodeRows, decodeRows);
    this.nowMs += elapsedMs;
    expect(plan.uses.map(({ row }) => row)).toEqual([...batch.logitRows]);
    const scores = new Map<Plan["sampled"][number], TokenLogprob[]>();
    for (const { sequence, position, isScored } of plan.uses) {
      if (!isScored) continue;
      const score = { id: sequence.ids[position + 1] as number, logprob: -position, top: [] };
      scores.set(sequence, [...(scores.get(sequence) ?? []), score]);
    }
    const { events } = this.scheduler.settle(plan, sampled, elapsedMs, this.nowMs, scores);
    this.#apply();
    for (const { id, events: mine } of events) {
      this.events.set(id, [...(this.events.get(id) ?? []), ...mine]);
      const ids = mine.flatMap((event) => (event.kind === "tokens" ? event.ids : []));
      this.tokens.set(id, [...(this.tokens.get(id) ?? []), ...ids]);
    }
    return true;
  }

  /** Runs until nothing is open; the books must add up then. */
  drain(maxSteps = 20_000): void {
    for (let i = 0; this.step(); i++) if (i > maxSteps) throw new Error("no end in sight");
    expect(this.scheduler.isIdle).toBe(true);
    this.scheduler.check();
    expect(this.storage.held).toBe(0);
    const { freeBlocks, treeBlocks, totalBlocks } = this.scheduler.stats;
    expect(freeBlocks + treeBlocks).toBe(totalBlocks);
  }

  finish(id: string) {
    const last = this.events.get(id)?.at(-1);
    return last?.kind === "finish" ? last : undefined;
  }

  #apply(): void {
    for (const effect of this.scheduler.takeEffects()) {
      if (effect.kind === "open") this.storage.open(effect.seq, effect.blocks, effect.numTokens);
      else if (effect.kind === "seal") this.storage.seal(effect.seq, effect.index, effect.block);
      else if (effect.kind === "close") this.storage.close(effect.seq);
      else this.storage.drop(effect.blocks);
    }
  }
}

const prompt = (length: number, from = 0) =>
  Array.from({ length }, (_, i) => (from + i * 7) % (VOCABULARY - 1));

const thrown = (action: () => unknown): OmlxError => {
  try {
    action();
  } catch (error) {
    if (error instanceof OmlxError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
};

describe("Scheduler, one request", () => {
  test("a request gives the tokens of its own text, then a finish with usage", () => {
    const rig = new Rig();
    const request = rig.submit({ id: "a", promptIds: prompt(10), maxTokens: 20 });
    rig.drain();
    expect(rig.tokens.get("a")).toEqual(alone(request));
    expect(rig.finish("a")?.usage).toEqual({
      promptTokens: 10,
      cachedTokens: 0,
      completionTokens: alone(request).length,
    });
  });

  test("a scored prompt is computed anew, and every token of it is scored once, in order", () => {
    const rig = new Rig({ numBlocks: 200, cost: () => 1 });
    const promptIds = prompt(200);
    const plain = rig.submit({ id: "plain", promptIds, maxTokens: 3 });
    rig.drain();
    const ids = ["a", "b", "c"];
    for (const id of ids) {
      rig.submit({ id, promptIds, maxTokens: 3, topLogprobs: 0, scoresPrompt: true });
    }
    rig.drain();
    for (const id of ids) {
      expect(rig.tokens.get(id)).toEqual(alone(plain));
      expect(rig.finish(id)?.usage.cachedTokens).toBe(0);
      const scores = (rig.events.get(id) ?? []).flatMap((event) =>
        event.kind === "prefill" ? (event.logprobs ?? []) : [],
      );
      expect(scores.map((score) => score.id)).toEqual(promptIds.slice(1));
      expect(scores.map((score) => -score.logprob)).toEqual([...promptIds.slice(1).keys()]);
    }
    for (const { work } of rig.plans) {
      for (const { sequence, rows } of work) {
        if (sequence.request.scoresPrompt) expect(rows).toBeLessThanOrEqual(128);
      }
    }
  });

  test("a stop id ends the text and is not part of it", () => {
    const rig = new Rig();
    const promptIds = prompt(5);
    const [first = 0, second = 0] = alone({
      ...rig.submit({ id: "probe", promptIds, stopIds: [], maxTokens: 3 }),
    });
    rig.drain();
    rig.submit({ id: "a", promptIds, stopIds: [second, 1000] });
    rig.drain();
    expect(rig.tokens.get("a")).toEqual([first]);
    expect(rig.finish("a")).toMatchObject({ reason: "stop", stopId: second });
  });

  test("stop ids are banned until minTokens are there", () => {
    const rig = new Rig();
    rig.submit({ id: "a", promptIds: prompt(5), minTokens: 2, maxTokens: 4, stopIds: [STOP] });
    const banned: (readonly number[])[] = [];
    for (;;) {
      const plan = rig.scheduler.next(0);
      if (!plan) break;
      const [sequence] = plan.sampled;
      if (sequence) banned.push(sequence.bannedIds);
      rig.scheduler.settle(
        plan,
        plan.sampled.map(() => ({ ids: [3] })),
        1,
        0,
      );
    }
    expect(banned).toEqual([[STOP], [STOP], [], []]);
  });

  test("maxTokens is clamped to the window", () => {
    const rig = new Rig({ contextWindow: 16 });
    rig.submit({ id: "a", promptIds: prompt(10), maxTokens: 100_000, stopIds: [] });
    rig.drain();
    expect(rig.finish("a")).toMatchObject({ reason: "length" });
    expect(rig.tokens.get("a")).toHaveLength(6);
  });

  test("maxTokens is clamped to what the whole cache can hold", () => {
    const rig = new Rig({ numBlocks: 4, blockTokens: 4 });
    rig.submit({ id: "a", promptIds: prompt(10), maxTokens: 100_000, stopIds: [] });
    rig.drain();
    expect(rig.tokens.get("a")).toHaveLength(7); // 16 computed tokens and the one they give
  });

  test("a prompt is read in chunks, with progress told after each", () => {
    const rig = new Rig({ numBlocks: 200, cost: (prefill) => prefill });
    rig.submit({ id: "a", promptIds: prompt(300), maxTokens: 1 });
    rig.drain();
    const progress = (rig.events.get("a") ?? []).flatMap((e) => (e.kind === "prefill" ? [e] : []));
    expect(progress.length).toBeGreaterThan(2);
    expect(progress.every((e) => e.total === 300)).toBe(true);
    expect(progress.map((e) => e.done)).toEqual(progress.map((e) => e.done).sort((a, b) => a - b));
    expect(progress.at(-1)?.done).toBe(300);
  });
});

describe("Scheduler.submit()", () => {
  test("a prompt longer than the window is refused with both numbers", () => {
    const rig = new Rig({ contextWindow: 10 });
    const error = thrown(() => rig.submit({ id: "a", promptIds: prompt(10) }));
    expect(error.code).toBe("context_length");
    expect(error.data).toEqual({ numTokens: 10, maxTokens: 10 });
  });

  test("a prompt longer than the cache is refused with both numbers, a smaller one is not", () => {
    const rig = new Rig({ numBlocks: 2, blockTokens: 4 });
    const error = thrown(() => rig.submit({ id: "a", promptIds: prompt(9) }));
    expect(error.code).toBe("out_of_memory");
    expect(error.data).toEqual({ numTokens: 9, maxTokens: 8 });
    const request = rig.submit({ id: "b", promptIds: prompt(8), maxTokens: 1, stopIds: [] });
    rig.drain();
    expect(rig.tokens.get("b")).toEqual(alone(request));
  });

  test("a full queue is an overload that says when to come back", () => {
    const rig = new Rig({ maxRunning: 2, maxWaiting: 3 });
    for (let i = 0; i < 5; i++) rig.submit({ id: `r${i}`, promptIds: prompt(4, i) });
    const error = thrown(() => rig.submit({ id: "late", promptIds: prompt(4) }));
    expect(error.code).toBe("overloaded");
    expect(error.data?.["retryAfterMs"]).toBeGreaterThanOrEqual(1000);
    rig.drain();
    rig.submit({ id: "late", promptIds: prompt(4) });
    rig.drain();
    expect(rig.finish("late")).toBeDefined();
  });

  test("an id that is open, an empty prompt and maxTokens 0 are refused", () => {
    const rig = new Rig();
    rig.submit({ id: "a", promptIds: prompt(4) });
    expect(thrown(() => rig.submit({ id: "a", promptIds: prompt(4) })).code).toBe(
      "invalid_request",
    );
    expect(thrown(() => rig.submit({ id: "b", promptIds: [] })).code).toBe("invalid_request");
    expect(thrown(() => rig.submit({ id: "c", promptIds: [1], maxTokens: 0 })).code).toBe(
      "invalid_request",
    );
  });
});

describe("Scheduler, many requests", () => {
  test("one step holds decode rows of all answers and prefill chunks of several prompts", () => {
    const rig = new Rig({ numBlocks: 200, cost: () => 1 });
    rig.submit({ id: "a", promptIds: prompt(5), maxTokens: 50, stopIds: [] });
    while (!rig.tokens.get("a")?.length) rig.step();
    rig.submit({ id: "b", promptIds: prompt(20, 3), maxTokens: 2 });
    rig.submit({ id: "c", promptIds: prompt(30, 5), maxTokens: 2 });
    rig.step();
    const work = rig.plans.at(-1)?.work.map((w) => [w.sequence.request.id, w.rows, w.isSampled]);
    expect(work).toEqual([
      ["a", 1, true],
      ["b", 20, true],
      ["c", 30, true],
    ]);
    rig.drain();
  });

  test("every answer that runs gets a row in every step, also while long prompts are read", () => {
    const rig = new Rig({ numBlocks: 2000, cost: (p, d) => 2 * p + d });
    for (const id of ["a", "b"])
      rig.submit({ id, promptIds: prompt(6, 1), maxTokens: 40, stopIds: [] });
    while ((rig.tokens.get("b")?.length ?? 0) < 3) rig.step();
    rig.submit({ id: "long", promptIds: prompt(2000, 2), maxTokens: 1 });
    const before = rig.plans.length;
    while (!rig.finish("a") || !rig.finish("b")) rig.step();
    for (const plan of rig.plans.slice(before)) {
      const rows = plan.work.filter((w) => w.sequence.request.id !== "long").map((w) => w.rows);
      expect(rows.every((n) => n === 1)).toBe(true);
      expect(rows.length).toBeGreaterThanOrEqual(1);
    }
    expect(rig.tokens.get("a")).toHaveLength(40);
    rig.drain();
  });

  test("answers keep about half of the time while a long prompt is read", () => {
    const rig = new Rig({ numBlocks: 2000, cost: (p, d) => p + 5 * d });
    rig.submit({ id: "a", promptIds: prompt(6), maxTokens: 5000, stopIds: [] });
    while ((rig.tokens.get("a")?.length ?? 0) < 20) rig.step();
    const start = { tokens: rig.tokens.get("a")?.length ?? 0, nowMs: rig.nowMs };
    rig.submit({ id: "long", promptIds: prompt(3000, 2), maxTokens: 1 });
    while (!rig.finish("long")) rig.step();
    const speed = ((rig.tokens.get("a")?.length ?? 0) - start.tokens) / (rig.nowMs - start.nowMs);
    expect(speed * 5).toBeGreaterThan(0.45);
    expect(speed * 5).toBeLessThan(0.65);
  });

  test("the more prompts wait beside an answer, the less of the time it keeps, but a quarter", () => {
    const shares = [1, 2, 3, 7].map((prompts) => {
      const rig = new Rig({ numBlocks: 4000, maxRunning: 8, cost: (p, d) => p + 5 * d });
      rig.submit({ id: "a", promptIds: prompt(6), maxTokens: 9000, stopIds: [] });
      while ((rig.tokens.get("a")?.length ?? 0) < 20) rig.step();
      for (let i = 0; i < prompts; i++)
        rig.submit({ id: `long ${i}`, promptIds: prompt(1500, 2 + i), maxTokens: 1 });
      for (let i = 0; i < 10; i++) rig.step();
      const start = { tokens: rig.tokens.get("a")?.length ?? 0, nowMs: rig.nowMs };
      while (!Array.from({ length: prompts }, (_, i) => i).some((i) => rig.finish(`long ${i}`)))
        rig.step();
      const tokens = (rig.tokens.get("a")?.length ?? 0) - start.tokens;
      return (5 * tokens) / (rig.nowMs - start.nowMs);
    });
    for (const [i, share] of [1 / 2, 1 / 3, 1 / 4, 1 / 4].entries())
      expect(Math.abs((shares[i] as number) - share)).toBeLessThan(0.08);
  });

  for (const [beside, targetMs] of [
    ["a running answer", 100],
    ["nothing", 200],
  ] as const) {
    test(`beside ${beside} no step with a prefill chunk takes longer than ${targetMs} ms, once the speed is known`, () => {
      for (const msPerRow of [0.05, 0.5, 5]) {
        const rig = new Rig({ numBlocks: 4000, cost: (p) => 1 + msPerRow * p });
        if (beside === "a running answer") {
          rig.submit({ id: "answer", promptIds: prompt(6), maxTokens: 100_000, stopIds: [] });
          while (!rig.tokens.get("answer")?.length) rig.step();
        }
        const length = Math.min(9000, (20 * targetMs) / msPerRow);
        rig.submit({ id: "a", promptIds: prompt(length, 2), maxTokens: 1 });
        const times: number[] = [];
        while (!rig.finish("a")) {
          const last = rig.nowMs;
          rig.step();
          if (rig.plans.at(-1)?.work.some(({ rows }) => rows > 1)) times.push(rig.nowMs - last);
        }
        expect(Math.max(...times.slice(2))).toBeLessThanOrEqual(
          Math.max(1.1 * targetMs, 17 * msPerRow),
        );
        // Nor are chunks needlessly small.
        const best = Math.min(targetMs, 1 + 2048 * msPerRow);
        expect(times.length).toBeGreaterThan(3);
        expect(times.slice(3, -1).every((ms) => ms > 0.6 * best)).toBe(true);
      }
    });
  }

  test("a speed that falls with depth is followed", () => {
    const rig = new Rig({ numBlocks: 8000, cost: (p) => 0.1 * p });
    let slow = 1;
    const plans: number[] = [];
    rig.submit({ id: "a", promptIds: prompt(20_000 / 4), maxTokens: 1 });
    for (;;) {
      const plan = rig.scheduler.next(0);
      if (!plan) break;
      slow *= 1.1;
      const elapsed = 0.3 * slow * plan.batch.ids.length;
      plans.push(elapsed);
      rig.scheduler.settle(
        plan,
        plan.sampled.map(() => ({ ids: [1] })),
        elapsed,
        0,
      );
    }
    expect(plans.length).toBeGreaterThan(5);
    expect(Math.max(...plans.slice(1))).toBeLessThan(250);
  });

  test("a short prompt goes before long ones, and long ones still get on", () => {
    const rig = new Rig({ numBlocks: 4000, maxRunning: 8, cost: (p) => p });
    rig.submit({ id: "long 1", promptIds: prompt(1000, 1), maxTokens: 1 });
    rig.submit({ id: "long 2", promptIds: prompt(1000, 2), maxTokens: 1 });
    for (let i = 0; i < 4; i++) rig.step();
    rig.submit({ id: "short", promptIds: prompt(20, 3), maxTokens: 1 });
    rig.step();
    expect(rig.finish("short")).toBeDefined();
    const rows = rig.plans.at(-1)?.work.map((w) => w.sequence.request.id) ?? [];
    expect(rows.length).toBeGreaterThan(1);
    rig.drain();
    const firstChunks = rig.plans.slice(0, 8).map((p) => p.work[0]?.sequence.request.id);
    expect(firstChunks).toContain("long 1");
    expect(firstChunks).toContain("long 2"); // they take turns
  });

  test("a stream of short prompts does not starve a long one", () => {
    const rig = new Rig({ numBlocks: 4000, maxRunning: 16, maxWaiting: 500, cost: (p) => p });
    rig.submit({ id: "long", promptIds: prompt(600, 1), maxTokens: 1 });
    for (let i = 0; !rig.finish("long"); i++) {
      for (let k = 0; k < 5; k++) {
        const promptIds = [i, k, ...prompt(28, i + k)];
        rig.submit({ id: `s${i}-${k}`, promptIds, maxTokens: 1 });
      }
      rig.step();
      expect(i).toBeLessThan(40);
    }
  });

  test("background work waits for interactive work, but not for ever", () => {
    const rig = new Rig({ numBlocks: 400, maxRunning: 1, maxWaiting: 100, cost: () => 100 });
    rig.submit({ id: "bg", promptIds: prompt(8, 1), maxTokens: 2, lane: "background" });
    for (let i = 0; !rig.finish("bg"); i++) {
      if (i % 2 === 0)
        rig.submit({ id: `i${i}`, promptIds: prompt(8, i + 2), maxTokens: 2, stopIds: [] });
      rig.step();
      expect(i).toBeLessThan(400);
    }
    expect(rig.nowMs).toBeGreaterThan(9_000);
    expect(rig.finish("i0")).toBeDefined();
    rig.drain();
  });

  test("background work that interactive work waits for counts as interactive", () => {
    const rig = new Rig({ numBlocks: 2000, cost: (p) => p });
    const shared = prompt(600, 1);
    rig.submit({ id: "bg", promptIds: shared, maxTokens: 1, lane: "background" });
    rig.step();
    rig.submit({ id: "twin", promptIds: shared, maxTokens: 1 });
    rig.submit({ id: "long", promptIds: prompt(2000, 2), maxTokens: 1 });
    while (!rig.finish("twin")) rig.step();
    expect(rig.finish("long")).toBeUndefined();
    expect(rig.nowMs).toBeLessThan(10_000); // not by aging
    rig.drain();
  });

  test("8 requests with a huge maxTokens run side by side", () => {
    const rig = new Rig({ numBlocks: 64, blockTokens: 4, maxRunning: 8 });
    for (let i = 0; i < 8; i++)
      rig.submit({ id: `r${i}`, promptIds: prompt(6, i), maxTokens: 100_000, stopIds: [] });
    for (let i = 0; i < 4; i++) rig.step();
    expect(rig.scheduler.stats.running).toBe(8);
    expect(rig.plans.at(-1)?.work).toHaveLength(8);
  });
});

describe("Scheduler, shared prefixes", () => {
  test("a second turn reuses all full blocks, also those of the answer", () => {
    const rig = new Rig({ blockTokens: 4 });
    const first = rig.submit({ id: "a", promptIds: prompt(10), maxTokens: 7, stopIds: [] });
    rig.drain();
    const second = rig.submit({
      id: "b",
      promptIds: [...first.promptIds, ...alone(first), ...prompt(3, 5)],
    });
    rig.drain();
    // 17 tokens, the last of them never computed: 16 in 4 full blocks.
    expect(rig.finish("b")?.usage.cachedTokens).toBe(16);
    expect(rig.tokens.get("b")).toEqual(alone(second));
  });

  test("an identical prompt computes its last token again", () => {
    const rig = new Rig({ blockTokens: 4 });
    for (const id of ["a", "b"]) {
      rig.submit({ id, promptIds: prompt(8), maxTokens: 1 });
      rig.drain();
    }
    expect(rig.finish("b")?.usage.cachedTokens).toBe(4);
  });

  test("an identical retry waits for the running prefill and attaches to it", () => {
    const rig = new Rig({ numBlocks: 400, cost: (p) => p });
    const first = rig.submit({ id: "a", promptIds: prompt(301), maxTokens: 4, stopIds: [] });
    rig.step();
    rig.submit({ id: "b", promptIds: first.promptIds, maxTokens: 4, stopIds: [] });
    rig.submit({ id: "other", promptIds: prompt(9, 33), maxTokens: 1 });
    rig.drain();
    expect(rig.finish("b")?.usage.cachedTokens).toBe(300);
    expect(rig.tokens.get("b")).toEqual(alone(first));
    const prefilled = rig.plans
      .flatMap((p) => p.work)
      .filter((w) => w.sequence.request.id === "b")
      .reduce((sum, w) => sum + w.rows, 0);
    expect(prefilled).toBe(1 + 3);
    // The waiting twin did not hold up anybody else.
    const order = rig.plans.flatMap((p) => p.work.map((w) => w.sequence.request.id));
    expect(order.indexOf("other")).toBeLessThan(order.indexOf("b"));
  });

  test("a prompt that shares only its beginning waits for the shared blocks, not for the rest", () => {
    const rig = new Rig({ numBlocks: 400, cost: (p) => p });
    const system = prompt(40, 9);
    rig.submit({ id: "a", promptIds: [...system, ...prompt(600, 1)], maxTokens: 1 });
    rig.submit({ id: "b", promptIds: [...system, ...prompt(10, 2)], maxTokens: 1 });
    rig.drain();
    expect(rig.finish("b")?.usage.cachedTokens).toBe(40);
    const lastOf = (id: string) =>
      rig.plans.findLastIndex((p) => p.work.some((w) => w.sequence.request.id === id));
    expect(lastOf("b")).toBeLessThan(lastOf("a"));
  });

  test("an aborted prefill keeps what it computed", () => {
    const rig = new Rig({ numBlocks: 400, cost: (p) => p });
    rig.submit({ id: "a", promptIds: prompt(800), maxTokens: 4 });
    for (let i = 0; i < 3; i++) rig.step();
    const done = (rig.events.get("a") ?? []).flatMap((e) => (e.kind === "prefill" ? [e.done] : []));
    expect(rig.cancel("a")).toBe(true);
    expect(rig.cancel("a")).toBe(false);
    rig.submit({ id: "b", promptIds: prompt(800), maxTokens: 4 });
    rig.drain();
    const kept = 4 * Math.floor((done.at(-1) ?? 0) / 4);
    expect(kept).toBeGreaterThan(100);
    expect(rig.finish("b")?.usage.cachedTokens).toBe(kept);
  });

  test("the oldest prefix goes when the pool is full", () => {
    const rig = new Rig({ numBlocks: 10, blockTokens: 4 });
    for (const [i, id] of ["a", "b", "c"].entries()) {
      rig.submit({ id, promptIds: prompt(17, i), maxTokens: 1 });
      rig.drain();
    }
    rig.submit({ id: "c again", promptIds: prompt(17, 2), maxTokens: 1 });
    rig.drain();
    expect(rig.finish("c again")?.usage.cachedTokens).toBe(16);
    rig.submit({ id: "a again", promptIds: prompt(17, 0), maxTokens: 1 });
    rig.drain();
    expect(rig.finish("a again")?.usage.cachedTokens).toBeLessThan(16);
  });
});

describe("Scheduler, a full pool", () => {
  for (const contiguous of [false, true]) {
    test(`a preempted answer goes on with the same tokens (${contiguous ? "contiguous" : "paged"})`, () => {
      const rig = new Rig({ numBlocks: 16, blockTokens: 4, maxRunning: 4, contiguous });
      const requests = [0, 1, 2, 3].map((i) =>
        rig.submit({ id: `r${i}`, promptIds: prompt(6, i), maxTokens: 40, stopIds: [] }),
      );
      rig.drain();
      expect(rig.scheduler.stats.preemptions).toBeGreaterThan(0);
      for (const request of requests) {
        expect(rig.tokens.get(request.id)).toEqual(alone(request));
        expect(rig.finish(request.id)?.usage.completionTokens).toBe(40);
      }
    });
  }

  test("the youngest gives way, the oldest is never preempted", () => {
    const rig = new Rig({ numBlocks: 16, blockTokens: 4, maxRunning: 4 });
    for (const i of [0, 1, 2, 3])
      rig.submit({ id: `r${i}`, promptIds: prompt(6, i), maxTokens: 40, stopIds: [] });
    rig.drain();
    const seqsOf = (id: string) =>
      new Set(
        rig.plans.flatMap((p) =>
          p.work.flatMap((w, i) => (w.sequence.request.id === id ? [p.batch.spans[i]?.seq] : [])),
        ),
      );
    expect(seqsOf("r0").size).toBe(1);
    expect(seqsOf("r3").size).toBeGreaterThan(1);
  });

  test("a preempted answer is preferred to requests that came later", () => {
    const rig = new Rig({ numBlocks: 12, blockTokens: 4, maxRunning: 2 });
    for (const i of [0, 1, 2])
      rig.submit({ id: `r${i}`, promptIds: prompt(6, i), maxTokens: 30, stopIds: [] });
    rig.drain();
    expect(rig.scheduler.stats.preemptions).toBeGreaterThan(0);
    const firstOf = (id: string) =>
      rig.plans.findIndex((p) => p.work.some((w) => w.sequence.request.id === id));
    const lastOf = (id: string) =>
      rig.plans.findLastIndex((p) => p.work.some((w) => w.sequence.request.id === id));
    expect(firstOf("r2")).toBeGreaterThan(lastOf("r0"));
    // r1 ran, gave way to r0, and was back before r2 began.
    const gaps = rig.plans.map((p) => p.work.some((w) => w.sequence.request.id === "r1"));
    const away = gaps.indexOf(false, gaps.indexOf(true));
    expect(away).toBeLessThan(gaps.indexOf(true, away));
    expect(gaps.indexOf(true, away)).toBeLessThan(firstOf("r2"));
  });
});

describe("Scheduler, errors", () => {
  test("an error of one row ends that request only, and its blocks are not reused", () => {
    const rig = new Rig();
    const good = rig.submit({ id: "good", promptIds: prompt(9, 1), stopIds: [] });
    // Long enough that blocks of it are stored before its first token fails.
    rig.submit({ id: "bad", promptIds: prompt(150, 2), stopIds: [] });
    rig.poisoned.add("bad");
    rig.drain();
    expect(rig.tokens.get("good")).toEqual(alone(good));
    expect(rig.finish("bad")).toBeUndefined();
    rig.poisoned.clear();
    rig.submit({ id: "bad again", promptIds: prompt(150, 2) });
    rig.drain();
    expect(rig.finish("bad again")?.usage.cachedTokens).toBe(0);
  });

  test("Scheduler.abandon() ends the requests of the step and keeps the books", () => {
    const rig = new Rig({ maxRunning: 2 });
    for (const i of [0, 1, 2]) rig.submit({ id: `r${i}`, promptIds: prompt(9, i), stopIds: [] });
    const plan = rig.scheduler.next(0);
    expect(plan && rig.scheduler.abandon(plan)).toEqual(["r0", "r1"]);
    rig.scheduler.takeEffects();
    rig.scheduler.check();
    expect(rig.scheduler.stats).toMatchObject({ running: 0, waiting: 1, freeBlocks: 64 });
  });

  test("Scheduler.settle() refuses a wrong number of tokens", () => {
    const rig = new Rig();
    rig.submit({ id: "a", promptIds: prompt(4) });
    const plan = rig.scheduler.next(0) as Plan;
    expect(() => rig.scheduler.settle(plan, [], 1, 1)).toThrow("0 tokens for 1 sequences");
  });
});

describe("Scheduler, any history", () => {
  const arrival = fc.record({
    kind: fc.constant("submit" as const),
    // Few beginnings, so that prompts share prefixes.
    family: fc.nat(2),
    length: fc.integer({ min: 1, max: 40 }),
    tail: fc.array(fc.nat(VOCABULARY - 2), { maxLength: 6 }),
    maxTokens: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constant(40)),
    minTokens: fc.nat(5),
    background: fc.boolean(),
  });
  const action = fc.oneof(
    { weight: 3, arbitrary: arrival },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("cancel" as const), pick: fc.nat() }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant("steps" as const), count: fc.nat(12) }) },
  );

  test("every request gives the same tokens as alone, under any arrivals, cancels and preemptions", () => {
    let preemptions = 0;
    let reused = 0;
    fc.assert(
      fc.property(
        fc.array(action, { minLength: 8, maxLength: 40 }),
        // A single request always fits: 46 + 40 tokens.
        fc.integer({ min: 22, max: 30 }),
        fc.integer({ min: 1, max: 8 }),
        fc.boolean(),
        fc.integer({ min: 1, max: 20 }),
        (actions, numBlocks, maxRunning, contiguous, msPerRow) => {
          const rig = new Rig({
            numBlocks,
            maxRunning,
            contiguous,
            maxWaiting: 1000,
            cost: (p, d) => 1 + msPerRow * p + d,
          });
          const open = new Map<string, TokenRequest>();
          const cancelled = new Set<string>();
          let count = 0;
          for (const act of actions) {
            if (act.kind === "submit") {
              const id = `r${count++}`;
              open.set(
                id,
                rig.submit({
                  id,
                  promptIds: [...prompt(act.length, act.family), ...act.tail],
                  maxTokens: act.maxTokens,
                  minTokens: act.minTokens,
                  stopIds: act.tail.length > 3 ? [STOP, 0] : [],
                  lane: act.background ? "background" : "interactive",
                }),
              );
            } else if (act.kind === "cancel") {
              const ids = [...open.keys()];
              const id = ids[act.pick % Math.max(1, ids.length)];
              if (id && rig.cancel(id)) cancelled.add(id);
            } else {
              for (let i = 0; i < act.count; i++) rig.step();
            }
            rig.scheduler.check();
          }
          rig.drain();
          for (const [id, request] of open) {
            const expected = alone(request);
            const got = rig.tokens.get(id) ?? [];
            if (cancelled.has(id)) expect(expected.slice(0, got.length)).toEqual(got);
            else {
              expect(got).toEqual(expected);
              expect(rig.finish(id)?.usage.completionTokens).toBe(expected.length);
            }
          }
          preemptions += rig.scheduler.stats.preemptions;
          reused += rig.scheduler.stats.cachedTokens;
        },
      ),
      { numRuns: 300 },
    );
    // The histories did reach what they are meant to test.
    expect(preemptions).toBeGreaterThan(20);
    expect(reused).toBeGreaterThan(1000);
  }, 60_000);
});
