import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { GREEDY, OmlxError, type TokenEvent, type TokenRequest } from "#core/contract";
import * as mx from "#device/mlx";
import { type LoadedModel, loadModel } from "../../../src/device/runner/load.ts";
import { Scheduler } from "../../../src/device/runner/scheduler.ts";
import { applyEffects, type StepParts, step } from "../../../src/device/runner/step.ts";
import { readTiny, type TinyGolden } from "../../helpers/golden.ts";

let golden: TinyGolden;

beforeAll(async () => {
  golden = await readTiny("llama-f32");
});

for (const kernels of ["native", "stock"] as const) {
  describe(`step(), ${kernels}`, () => {
    let loaded: LoadedModel;

    beforeAll(async () => {
      loaded = await loadModel({
        modelPath: golden.path,
        kernels,
        threads: 2,
        contextWindow: 0,
        cacheBytes: 16 << 20,
        maxRunning: 8,
        prefillTargetMs: 100,
        heartbeatPath: "",
      });
    });

    afterAll(() => {
      loaded.cache.dispose();
      loaded.model.dispose();
    });

    /** The real model; `damage` may spoil what a step gives. */
    const partsOf = (damage: (logits: mx.MxArray | null) => mx.MxArray | null): StepParts => ({
      model: { forward: (batch, cache) => damage(loaded.model.forward(batch, cache)) },
      cache: loaded.cache,
      isNative: kernels === "native",
      scheduler: new Scheduler({
        blockTokens: loaded.info.blockTokens,
        numBlocks: loaded.numBlocks,
        contextWindow: loaded.info.contextWindow,
        maxRunning: 8,
        prefillTargetMs: 100,
      }),
    });

    /** Three prompts fit into the first chunk together, so that all have a row in the first step. */
    const request = (id: string, which: number, maxTokens = 12): TokenRequest => ({
      id,
      promptIds: [5, 6, 7, 8, 9, 10 + which],
      maxTokens,
      minTokens: 0,
      stopIds: [],
      sampling: { ...GREEDY, seed: 1 },
      lane: "interactive",
      topLogprobs: null,
      constraint: null,
      thinkingBudget: null,
    });

    const idsOf = (events: readonly TokenEvent[]) =>
      events.flatMap((event) => (event.kind === "tokens" ? event.ids : []));

    /** Runs until nothing is open; forgets the prefixes so that the storage is empty for the next test. */
    function drain(parts: StepParts) {
      const tokens = new Map<string, number[]>();
      const failed = new Map<string, string>();
      for (let result = step(parts); result; result = step(parts)) {
        for (const { id, events } of result.events)
          tokens.set(id, [...(tokens.get(id) ?? []), ...idsOf(events)]);
        for (const { id, error } of result.failed) failed.set(id, error.code);
      }
      parts.scheduler.check();
      expect(parts.scheduler.isIdle).toBe(true);
      loaded.cache.drop(Array.from({ length: loaded.numBlocks }, (_, block) => block));
      return { tokens, failed };
    }

    /** The answers to these prompts when nothing is damaged. */
    function answers(...which: number[]): Map<string, number[]> {
      const parts = partsOf((logits) => logits);
      for (const i of which) parts.scheduler.submit(request(`r${i}`, i), 0);
      return drain(parts).tokens;
    }

    test("NaN in one row ends that request only", () => {
      const clean = answers(0, 1, 2);
      // The second of three rows, once.
      let isSpoilt = false;
      const parts = partsOf((logits) => {
        if (isSpoilt || logits?.shape[0] !== 3) return logits;
        isSpoilt = true;
        const rows = mx.array([0, Number.NaN, 0], [3, 1], "float32");
        return mx.add(logits, rows);
      });
      for (const i of [0, 1, 2]) parts.scheduler.submit(request(`r${i}`, i), 0);
      const { tokens, failed } = drain(parts);
      expect([...failed]).toEqual([["r1", "native"]]);
      expect(tokens.get("r1") ?? []).toEqual([]);
      for (const id of ["r0", "r2"]) expect(tokens.get(id)).toEqual(clean.get(id) as number[]);
    });

    test("a step that fails ends its requests; the engine goes on and leaks nothing", () => {
      let isSpoilt = false;
      const parts = partsOf((logits) => {
        if (!isSpoilt && logits?.shape[0] === 2) {
          isSpoilt = true;
          throw new OmlxError({ code: "native", message: "out of luck" });
        }
        return logits;
      });
      const clean = answers(0);
      const before = mx.liveArrays();
      for (const i of [0, 1]) parts.scheduler.submit(request(`r${i}`, i), 0);
      expect([...drain(parts).failed]).toEqual([
        ["r0", "native"],
        ["r1", "native"],
      ]);
      parts.scheduler.submit(request("r0", 0), 0);
      const { tokens, failed } = drain(parts);
      expect(failed.size).toBe(0);
      expect(tokens).toEqual(clean);
      expect(mx.liveArrays()).toBe(before);
    });

    test("a fault in the books is not taken for an error of the requests", () => {
      const parts = partsOf(() => {
        throw new TypeError("a bug");
      });
      parts.scheduler.submit(request("a", 0), 0);
      expect(() => step(parts)).toThrow("a bug");
      parts.scheduler.cancel("a");
      applyEffects(loaded.cache, parts.scheduler.takeEffects());
    });

    test("a step gives nothing when nothing is open", () => {
      expect(step(partsOf((logits) => logits))).toBeNull();
    });

    test("arrays alive do not grow with the steps", () => {
      const live: number[] = [];
      const parts = partsOf((logits) => logits);
      parts.scheduler.submit(request("a", 0, 200), 0);
      for (let result = step(parts); result; result = step(parts)) live.push(mx.liveArrays());
      const sealed = Math.floor(200 / loaded.info.blockTokens) + 1;
      const perBlock = kernels === "native" ? 0 : 2 * loaded.model.layers;
      expect(Math.max(...live) - Math.min(...live)).toBeLessThanOrEqual(
        sealed * perBlock + 2 * loaded.model.layers,
      );
    });
  });
}
