import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { HEARTBEAT, OmlxError, type SamplingParams } from "#core/contract";
import { readTiny, type TinyGolden } from "../../helpers/golden.ts";
import { EngineClient } from "./engine-client.ts";

const TIMEOUT_MS = 60_000;

const codeOf = async (promise: Promise<unknown>): Promise<string> => {
  try {
    await promise;
  } catch (error) {
    if (error instanceof OmlxError) return error.code;
    throw error;
  }
  return "no error";
};

const prompt = (length: number, from = 0) =>
  Array.from({ length }, (_, i) => 3 + ((from * 31 + i * 7) % 90));

/** A dead process whose new parent has not asked for its end yet counts as ended. */
const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  if (process.platform !== "linux") return true;
  try {
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false; // it went between the two questions
  }
};

for (const kernels of ["native", "stock"] as const) {
  describe(`engine process, ${kernels}`, () => {
    let engine: EngineClient;
    let golden: TinyGolden;

    beforeAll(async () => {
      golden = await readTiny("llama-f32");
      engine = new EngineClient({ modelPath: golden.path, kernels });
      expect((await engine.loaded).kernels).toBe(kernels);
    }, TIMEOUT_MS);

    afterAll(async () => {
      expect(await engine.shutdown()).toBe(0);
    });

    test("greedy answers are those of the reference, alone and side by side", async () => {
      const ask = (i: number) => {
        const { ids, greedy } = golden.prompts[i] as TinyGolden["prompts"][number];
        return engine.generate({ promptIds: ids, maxTokens: greedy.length }).answer;
      };
      for (const i of golden.prompts.keys())
        expect((await ask(i)).ids).toEqual(golden.prompts[i]?.greedy as number[]);
      const together = await Promise.all([...golden.prompts.keys()].map(ask));
      expect(together.map((answer) => answer.ids)).toEqual(golden.prompts.map((p) => p.greedy));
    });

    test("a seeded request gives the same tokens alone and beside seven others", async () => {
      const sampling: Partial<SamplingParams> = { temperature: 1.2, topP: 0.95, seed: 7 };
      const ask = () => engine.generate({ promptIds: prompt(40), sampling, maxTokens: 48 }).answer;
      const alone = (await ask()).ids;
      const others = Array.from({ length: 7 }, (_, i) =>
        engine.generate({
          promptIds: prompt(20 + 30 * i, i + 1),
          sampling: { temperature: 0.5 * (i % 3), seed: i, repetitionPenalty: 1 + 0.1 * (i % 2) },
          maxTokens: 20 + 10 * i,
        }),
      );
      const inBatch = (await ask()).ids;
      await Promise.all(others.map((other) => other.answer));
      expect(inBatch).toEqual(alone);
      const { answer } = engine.generate({
        promptIds: prompt(40),
        sampling: { ...sampling, seed: 8 },
        maxTokens: 48,
      });
      expect((await answer).ids).not.toEqual(alone);
    });

    test("a request without a seed gets one of its own each time", async () => {
      const ask = () =>
        engine.generate({ promptIds: prompt(9), sampling: { temperature: 2 }, maxTokens: 24 })
          .answer;
      expect((await ask()).ids).not.toEqual((await ask()).ids);
    });

    test("an identical prompt reuses its full blocks and gives the same answer", async () => {
      const promptIds = prompt(101, 20);
      const first = await engine.generate({ promptIds }).answer;
      const second = await engine.generate({ promptIds }).answer;
      expect(first.usage.cachedTokens).toBe(0);
      expect(second.usage).toEqual({ ...first.usage, cachedTokens: 96 });
      expect(second.ids).toEqual(first.ids);
    });

    test("stop ids end the answer, minTokens puts that off", async () => {
      const promptIds = prompt(12, 9);
      const free = await engine.generate({ promptIds, maxTokens: 16 }).answer;
      const stop = free.ids[4] as number;
      const at = free.ids.indexOf(stop);
      const stopped = await engine.generate({ promptIds, maxTokens: 16, stopIds: [stop] }).answer;
      expect(stopped.ids).toEqual(free.ids.slice(0, at));
      expect(stopped.events.at(-1)).toMatchObject({ kind: "finish", reason: "stop", stopId: stop });
      const longer = await engine.generate({
        promptIds,
        maxTokens: 16,
        stopIds: [stop],
        minTokens: at + 3,
      }).answer;
      expect(longer.ids.length).toBeGreaterThanOrEqual(at + 3);
      expect(longer.ids.slice(0, at + 3)).not.toContain(stop);
    });

    test("log-probabilities come with every token, the chosen one on top when greedy", async () => {
      const { ids, logprobs } = await engine.generate({ promptIds: prompt(8), topLogprobs: 3 })
        .answer;
      expect(logprobs.map((logprob) => logprob.id)).toEqual([...ids]);
      for (const { id, logprob, top } of logprobs) {
        expect(top).toHaveLength(3);
        expect(top[0]?.[0]).toBe(id);
        expect(top[0]?.[1]).toBe(logprob);
        expect(logprob).toBeLessThanOrEqual(0);
        expect(top.reduce((sum, [, lp]) => sum + Math.exp(lp), 0)).toBeLessThanOrEqual(1.0001);
      }
    });

    test("tokens of quick steps share a message, but the first one does not wait", async () => {
      const before = engine.messages.length;
      const { ids } = await engine.generate({ promptIds: prompt(8), maxTokens: 40 }).answer;
      const tokens = engine.messages
        .slice(before)
        .map((message) =>
          message.kind === "step"
            ? message.events.flatMap(({ events }) => events).filter(({ kind }) => kind === "tokens")
            : [],
        );
      const counts = tokens.map((events) => events.length).filter((count) => count > 0);
      expect(counts[0]).toBe(1);
      expect(Math.max(...counts)).toBeGreaterThan(1);
      expect(counts.reduce((sum, count) => sum + count, 0)).toBe(ids.length);
    });

    test("cancel ends a running answer between steps; others do not notice", async () => {
      const other = engine.generate({ promptIds: prompt(30, 2), maxTokens: 60 });
      const long = engine.generate({ promptIds: prompt(30, 1), maxTokens: 100_000 });
      await long.started;
      engine.cancel(long.id);
      expect(await codeOf(long.answer)).toBe("cancelled");
      expect((await other.answer).ids).toHaveLength(60);
      engine.cancel("nobody");
      expect(await engine.stats()).toMatchObject({ running: 0, waiting: 0 });
      const last = engine.messages.findLastIndex((m) => m.kind === "cancelled");
      const late = engine.messages
        .slice(last + 1)
        .some((m) => m.kind === "step" && m.events.some((event) => event.id === long.id));
      expect(late).toBe(false);
    });

    test("a refused request fails alone", async () => {
      const good = engine.generate({ promptIds: prompt(10, 3), maxTokens: 10 });
      const window = (await engine.loaded).contextWindow;
      const { answer } = engine.generate({ promptIds: prompt(window) });
      expect(await codeOf(answer)).toBe("context_length");
      expect((await good.answer).ids).toHaveLength(10);
    });

    test("a token id outside the vocabulary is refused", async () => {
      const { vocabSize } = await engine.loaded;
      for (const id of [vocabSize, -1, 1.5])
        expect(await codeOf(engine.generate({ promptIds: [1, id, 2] }).answer)).toBe(
          "invalid_request",
        );
    });

    test("arrays, blocks and heartbeat are as before when nothing runs", async () => {
      const before = await engine.stats();
      await Promise.all(
        [0, 1, 2].map((i) => engine.generate({ promptIds: prompt(5, i), maxTokens: 9 }).answer),
      );
      const after = await engine.stats();
      expect(after.liveArrays).toBe(before.liveArrays);
      expect(after.freeBlocks + after.treeBlocks).toBe(after.totalBlocks);
      expect(after.steps).toBeGreaterThan(before.steps);
      expect(after.generatedTokens - before.generatedTokens).toBe(27);
      expect(engine.heartbeat[HEARTBEAT.stepSlot]).toBeGreaterThanOrEqual(after.steps);
      expect(engine.heartbeat[HEARTBEAT.busySlot]).toBe(0);
      expect(engine.heartbeat[HEARTBEAT.batchSlot]).toBe(0);
    });
  });

  test(
    `answers are the same when the cache is too small for all of them (${kernels})`,
    async () => {
      const { path } = await readTiny("llama-f32");
      const requests = Array.from({ length: 6 }, (_, i) => ({
        promptIds: prompt(40 + 5 * i, i),
        sampling: { temperature: i % 2, seed: i },
        maxTokens: 120,
      }));
      const answersOf = async (cacheBytes: number) => {
        const engine = new EngineClient({ modelPath: path, kernels, cacheBytes });
        const { cacheBytes: used, blockTokens } = await engine.loaded;
        // The first step of a process is slow; the speeds are known after it.
        await engine.generate({ promptIds: prompt(64, 40), maxTokens: 8 }).answer;
        const answers = await Promise.all(requests.map((r) => engine.generate(r).answer));
        const stats = await engine.stats();
        expect(await engine.shutdown()).toBe(0);
        return { ids: answers.map((a) => a.ids), stats, used, blockTokens };
      };
      const roomy = await answersOf(64 << 20);
      expect(roomy.stats.preemptions).toBe(0);
      const bytesPerBlock = roomy.used / roomy.stats.totalBlocks;
      const tight = await answersOf(14 * bytesPerBlock);
      expect(tight.stats.preemptions).toBeGreaterThan(0);
      expect(tight.ids).toEqual(roomy.ids);
    },
    TIMEOUT_MS,
  );
}

describe("engine process, its end", () => {
  test(
    "a folder that is no model is a failed load, and the process ends by itself",
    async () => {
      const engine = new EngineClient({ modelPath: "/nowhere/at/all" });
      expect(await codeOf(engine.loaded)).toBe("model_load");
      expect(await engine.process.exited).toBe(0);
    },
    TIMEOUT_MS,
  );

  test(
    "a closed channel ends it, also in the middle of an answer",
    async () => {
      const { path } = await readTiny("llama-f32");
      const engine = new EngineClient({ modelPath: path });
      await engine.generate({ promptIds: prompt(5), maxTokens: 100_000 }).started;
      engine.process.disconnect();
      expect(await engine.process.exited).toBe(0);
    },
    TIMEOUT_MS,
  );

  test(
    "shutdown ends it in the middle of an answer",
    async () => {
      const { path } = await readTiny("llama-f32");
      const engine = new EngineClient({ modelPath: path });
      await engine.generate({ promptIds: prompt(5), maxTokens: 100_000 }).started;
      expect(await engine.shutdown()).toBe(0);
    },
    TIMEOUT_MS,
  );

  test(
    "kill -9 of its parent ends it",
    async () => {
      const { path } = await readTiny("llama-f32");
      const parent = Bun.spawn(
        [process.execPath, join(import.meta.dir, "engine-parent.ts"), path],
        {
          stdio: ["ignore", "pipe", "inherit"],
        },
      );
      const reader = parent.stdout.getReader();
      const { value } = await reader.read();
      const pid = Number(new TextDecoder().decode(value));
      expect(isAlive(pid)).toBe(true);
      // A stopped process sees no closed channel; only the system can end it. macOS has no such way.
      if (process.platform === "linux") process.kill(pid, "SIGSTOP");
      parent.kill("SIGKILL");
      await parent.exited;
      while (isAlive(pid)) await new Promise((resolve) => setImmediate(resolve));
      expect(isAlive(pid)).toBe(false);
    },
    TIMEOUT_MS,
  );
});
