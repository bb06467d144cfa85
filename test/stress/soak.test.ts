/** Many requests of every kind, some of which leave early: memory and arrays stay where they are. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { EngineClient } from "../device/runner/engine-client.ts";
import { sized } from "../helpers/long.ts";
import { childrenOf, eventually, startServer } from "../helpers/server.ts";

const MODEL = join(import.meta.dir, "..", "fixtures", "models", "llama-tied-4bit");
const WARMING = sized(100, 6000);
/** Several turns of the collectors. */
const SAMPLED = sized(150, 3000);
const MEASURED = sized(200, 18_000);
/**
 * What a process may grow by while it is measured. After a long warm-up its code is compiled and its caches are full (keys
 * and values, remembered turns, grammars), and the lowest of some samples moves by a few MB only: 24 MB are 1.4 kB a request.
 * A short run is not warm by then and finds coarse leaks alone.
 */
const SLACK_MB = sized(80, 24);
const SAMPLE_EVERY = 50;
const AT_A_TIME = 6;

/** Memory of its own that a process has; files that it maps come and go. */
const anonymousMb = (pid: number): number => {
  const sums = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  return Number(/^Anonymous:\s+(\d+) kB/m.exec(sums)?.[1] ?? 0) / 1024;
};

const TOPICS = ["sea", "table", "answer", "rain", "capital", "story", "tool", "sky"];
const text = (i: number, words: number): string =>
  Array.from({ length: words }, (_, w) => TOPICS[(i * 7 + w * w) % TOPICS.length]).join(" ");

const schema = (i: number) => ({
  type: "object",
  properties: { name: { type: "string", maxLength: 8 }, [`n${i % 100}`]: { type: "integer" } },
  required: ["name"],
});
const ask = (i: number) => [{ role: "user", content: text(i % 50, 1 + (i % 120)) }];
const chat = (i: number) => ({
  messages: ask(i),
  stream: i % 2 === 0,
  max_tokens: 1 + (i % 40),
  temperature: (i % 5) / 4,
  seed: i,
});

interface Kind {
  readonly path: string;
  readonly body: (i: number) => unknown;
  readonly status?: number;
}

/** What clients send, over and over. */
const KINDS: readonly Kind[] = [
  { path: "/v1/chat/completions", body: chat },
  { path: "/v1/chat/completions", body: (i) => ({ ...chat(i), max_tokens: -1 }), status: 400 },
  {
    path: "/v1/chat/completions",
    body: (i) => ({
      ...chat(i),
      tools: [{ type: "function", function: { name: "look", parameters: schema(1) } }],
      tool_choice: i % 4 === 0 ? "required" : "auto",
    }),
  },
  {
    path: "/v1/chat/completions",
    body: (i) => ({
      ...chat(i),
      response_format: {
        type: "json_schema",
        json_schema: { name: "a", strict: true, schema: schema(i) },
      },
    }),
  },
  { path: "/v1/chat/completions", body: chat },
  {
    path: "/v1/messages",
    body: (i) => ({ model: "any", messages: ask(i), max_tokens: 8, stream: i % 2 === 0 }),
  },
  {
    path: "/v1/responses",
    body: (i) => ({ input: text(i % 50, 20), max_output_tokens: 16, stream: i % 2 === 0 }),
  },
  { path: "/v1/completions", body: (i) => ({ prompt: text(i, 30), max_tokens: 8, logprobs: 2 }) },
  { path: "/v1/messages/count_tokens", body: (i) => ({ model: "any", messages: ask(i) }) },
  { path: "/v1/chat/completions", body: () => "nonsense", status: 400 },
];

/** A client that sends all kinds of requests; every third of them leaves early. */
class Clients {
  readonly #origin: string;
  count = 0;
  left = 0;
  readonly wrong: string[] = [];

  constructor(origin: string) {
    this.#origin = origin;
  }

  /** Sends so many requests, some at a time; calls back now and then. */
  async send(number: number, every: () => void): Promise<void> {
    const end = this.count + number;
    const work = async () => {
      while (this.count < end) {
        if (this.count % SAMPLE_EVERY === 0) every();
        await this.#one(this.count++);
      }
    };
    await Promise.all(Array.from({ length: AT_A_TIME }, work));
  }

  async #one(i: number): Promise<void> {
    const { path, body, status = 200 } = KINDS[i % KINDS.length] as Kind;
    const round = Math.floor(i / KINDS.length);
    const abort = new AbortController();
    const leaves = i % 3 === 0;
    const timer = leaves ? setTimeout(() => abort.abort(), (i * 13) % 60) : undefined;
    try {
      const response = await fetch(`${this.#origin}${path}`, {
        method: "POST",
        signal: abort.signal,
        body: JSON.stringify(body(round)),
      });
      const answer = await response.text();
      const isWhole =
        /\[DONE\]\n\n$|message_stop"\}\n\n$|response\.(?:completed|incomplete)"|\}$/.test(answer);
      if (response.status !== status || !isWhole) {
        this.wrong.push(`${path} ${JSON.stringify(body(round))}: ${response.status} ${answer}`);
      }
    } catch (error) {
      if (!leaves) throw error;
      this.left++;
    } finally {
      clearTimeout(timer);
    }
  }
}

describe("a long day", () => {
  test.if(process.platform === "linux")(
    "mixed requests and clients that leave do not make the server or its engine grow",
    async () => {
      await using server = await startServer({
        modelDirs: [MODEL],
        args: ["--cache-size", "16MB", "--log-level", "error", "--model-fallback", "on"],
      });
      const clients = new Clients(server.origin);
      const samples: number[][] = [];
      let engine = 0;
      const sample = () => samples.push([anonymousMb(server.pid), anonymousMb(engine)]);
      /** The lowest of the last samples: what is needed, without what a collector has not looked at yet. */
      const needed = () => {
        const last = samples.slice(-SAMPLED / SAMPLE_EVERY);
        return [0, 1].map((i) => Math.min(...last.map((sample) => sample[i] as number)));
      };
      await clients.send(WARMING, () => {});
      [engine = 0] = await childrenOf(server.pid);
      await clients.send(SAMPLED, sample);
      const before = needed();
      await clients.send(MEASURED, sample);
      const after = needed();
      expect(clients.wrong.slice(0, 3)).toEqual([]);
      expect(clients.left).toBeGreaterThan(0);
      for (const [i, mb] of after.entries()) {
        expect(mb - (before[i] as number)).toBeLessThan(SLACK_MB);
      }
      // nothing is left running: health says so as soon as the last client is gone
      const open = async () => {
        const health = await (await fetch(`${server.origin}/health`)).json();
        return (health as { active_requests: number }).active_requests;
      };
      await eventually(async () => ((await open()) === 0 ? true : undefined), "no open request");
      expect(await childrenOf(server.pid)).toEqual([engine]);
    },
    sized(5, 60) * 60_000,
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
