/** Many requests of every kind, some of which leave early: memory and arrays stay where they are. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { EngineClient } from "../device/runner/engine-client.ts";
import { sized } from "../helpers/long.ts";
import { childrenOf, startServer } from "../helpers/server.ts";

const MODEL = join(import.meta.dir, "..", "fixtures", "models", "llama-tied-4bit");
const SECONDS = sized(6, 240);
/** Warming up takes what it takes; after that half the time may not cost more than this. */
const GROWTH = 1.15;
const SLACK_MB = 24;

const residentMb = (pid: number): number => {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? 0) / 1024;
};

const TOPICS = ["sea", "table", "answer", "rain", "capital", "story", "tool", "sky"];
const text = (i: number, words: number): string =>
  Array.from({ length: words }, (_, w) => TOPICS[(i * 7 + w * w) % TOPICS.length]).join(" ");

describe("a long day", () => {
  test.if(process.platform === "linux")(
    "mixed requests and clients that leave do not make the server or its engine grow",
    async () => {
      await using server = await startServer({
        modelDirs: [MODEL],
        args: ["--cache-size", "16MB", "--log-level", "error"],
      });
      let count = 0;
      let wrong = 0;
      let left = 0;
      const one = async (): Promise<void> => {
        const i = count++;
        const leaves = i % 3 === 0;
        const stream = i % 2 === 0;
        const abort = new AbortController();
        const timer = leaves ? setTimeout(() => abort.abort(), (i * 13) % 60) : undefined;
        try {
          const response = await fetch(`${server.baseURL}/chat/completions`, {
            method: "POST",
            signal: abort.signal,
            body: JSON.stringify({
              messages: [{ role: "user", content: text(i % 50, 1 + (i % 120)) }],
              stream,
              max_tokens: i % 11 === 0 ? -1 : 1 + (i % 40),
              temperature: (i % 5) / 4,
              seed: i,
            }),
          });
          const body = await response.text();
          const isRight =
            i % 11 === 0
              ? response.status === 400
              : response.ok &&
                (stream ? body.endsWith("data: [DONE]\n\n") : body.includes('"usage"'));
          if (!isRight) wrong++;
        } catch (error) {
          if (!leaves) throw error;
          left++;
        } finally {
          clearTimeout(timer);
        }
      };
      const during = async (seconds: number): Promise<void> => {
        const until = performance.now() + seconds * 1000;
        const worker = async () => {
          while (performance.now() < until) await one();
        };
        await Promise.all(Array.from({ length: 6 }, worker));
      };
      await during(SECONDS / 2);
      const [engine = 0] = await childrenOf(server.pid);
      Bun.gc(true);
      const before = [residentMb(server.pid), residentMb(engine)];
      await during(SECONDS / 2);
      const after = [residentMb(server.pid), residentMb(engine)];
      expect(wrong).toBe(0);
      expect(left).toBeGreaterThan(0);
      expect(count).toBeGreaterThan(SECONDS);
      for (const [i, mb] of after.entries()) {
        expect(mb).toBeLessThan((before[i] ?? 0) * GROWTH + SLACK_MB);
      }
      // nothing is left running: health says so as soon as the last client is gone
      const open = async () => {
        const health = await (await fetch(`${server.origin}/health`)).json();
        return (health as { active_requests: number }).active_requests;
      };
      const deadline = performance.now() + 10_000;
      while ((await open()) > 0 && performance.now() < deadline) await Bun.sleep(20);
      expect(await open()).toBe(0);
      expect(await childrenOf(server.pid)).toEqual([engine]);
    },
    (SECONDS + 120) * 1000,
  );

  test(
    "an engine holds the same arrays after thousands of requests as before",
    async () => {
      const engine = new EngineClient({ modelPath: MODEL, cacheBytes: 4 << 20 });
      await engine.loaded;
      const prompt = (i: number) =>
        Array.from({ length: 1 + ((i * 37) % 150) }, (_, k) => 5 + ((i + k * k) % 300));
      const round = async (from: number): Promise<void> => {
        const started = Array.from({ length: 24 }, (_, k) => {
          const i = from + k;
          const request = engine.generate({ promptIds: prompt(i), maxTokens: 1 + (i % 20) });
          if (i % 4 === 0) void request.started.then(() => engine.cancel(request.id));
          if (i % 7 === 0) engine.cancel(request.id);
          return request.answer.then(
            () => {},
            () => {}, // cancelled
          );
        });
        await Promise.all(started);
      };
      await round(0);
      const before = await engine.stats();
      const rounds = sized(8, 400);
      for (let r = 1; r <= rounds; r++) await round(r * 24);
      const after = await engine.stats();
      expect(after.liveArrays).toBe(before.liveArrays);
      expect([after.running, after.waiting]).toEqual([0, 0]);
      expect(after.freeBlocks + after.treeBlocks).toBe(after.totalBlocks);
      expect(after.activeBytes).toBeLessThan(before.activeBytes * 1.05 + (1 << 20));
      expect(await engine.shutdown()).toBe(0);
    },
    sized(2, 15) * 60_000,
  );
});
