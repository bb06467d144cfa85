import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CHAT_DEFAULTS, type ChatRequest, OmlxError } from "#core/contract";
import { loadSettings } from "#front/config";
import { engineCommand } from "#front/engine";
import { createPool, type Lease, type Pool } from "#front/pool";
import { type ChoiceEvent, collectChoices, streamChoices, streamCompletions } from "#front/service";
import { setWorkerUrl } from "#front/text";
import { eventually } from "../helpers/server.ts";

const ROOT = join(import.meta.dir, "../..");
const MODEL = "llama-f32";
const never = new AbortController().signal;

let home: string;
let pool: Pool;
let lease: Lease;

beforeAll(async () => {
  setWorkerUrl(new URL("../../src/front/text/worker.ts", import.meta.url));
  home = mkdtempSync(join(tmpdir(), "omlx-choices-"));
  const { settings } = loadSettings(new Map(), { HOME: home });
  pool = await createPool({
    settings: { ...settings, modelDir: [join(ROOT, "test/fixtures/models")], threads: 1 },
    bundledDir: undefined,
    command: engineCommand(join(ROOT, "src/main.ts")),
  });
  lease = await pool.lease(MODEL, never);
});
afterAll(async () => {
  lease[Symbol.dispose]();
  await pool.stop();
  rmSync(home, { recursive: true });
});

const request = (text: string, maxTokens: number): ChatRequest => ({
  ...CHAT_DEFAULTS,
  model: MODEL,
  messages: [{ role: "user", parts: [{ kind: "text", text }] }],
  sampling: { temperature: 1, seed: 3 },
  maxTokens,
  ignoreEos: true,
});
const LONG = "Once upon a time there was a prompt. ".repeat(8);

const open = async () => {
  const { waiting, running } = await lease.engine.stats();
  return waiting + running;
};
const idle = () => eventually(async () => ((await open()) === 0 ? true : undefined), "no work");

describe("streamChoices()", () => {
  test("computes the prompt that its choices share once", async () => {
    const before = await lease.engine.stats();
    const events = streamChoices(pool, null, request(LONG, 3), 6, never);
    const { choices, usage } = await collectChoices(events, 6);
    const after = await lease.engine.stats();
    expect(choices).toHaveLength(6);
    expect(new Set(choices.map(({ text }) => text)).size).toBeGreaterThan(1);
    expect(usage.completionTokens).toBe(18);
    expect(usage.promptTokens).toBeGreaterThan(4 * lease.engine.info.blockTokens);
    const asked = after.promptTokens - before.promptTokens;
    const computed = asked - (after.cachedTokens - before.cachedTokens);
    expect(asked).toBe(6 * usage.promptTokens);
    // what does not fill a block is computed by each
    expect(computed).toBeLessThan(usage.promptTokens + 6 * lease.engine.info.blockTokens);
  });

  test("has no more than 16 choices in the engine at a time", async () => {
    let most = 0;
    const counts: number[] = new Array(40).fill(0);
    for await (const event of streamChoices(pool, null, request("x", 8), 40, never)) {
      if (event.kind === "end") counts[event.choice] = event.usage.completionTokens;
      most = Math.max(most, await open());
    }
    expect(counts).toEqual(new Array(40).fill(8));
    expect(most).toBeGreaterThan(4);
    expect(most).toBeLessThanOrEqual(16);
  });

  test("leaving early ends every choice and gives the lease back", async () => {
    const leases = () => pool.status().models.find(({ id }) => id === MODEL)?.leases;
    let seen: ChoiceEvent | undefined;
    for await (const event of streamChoices(pool, null, request("x", 400), 5, never)) {
      seen = event;
      if (event.kind === "text") break;
    }
    expect(seen?.kind).toBe("text");
    expect(leases()).toBe(1);
    await idle();
  });

  test("an abort ends every choice with one error", async () => {
    const control = new AbortController();
    const run = async () => {
      for await (const event of streamChoices(pool, null, request("x", 400), 5, control.signal)) {
        if (event.kind === "text") control.abort();
      }
    };
    const error = await run().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(OmlxError);
    expect((error as OmlxError).code).toBe("cancelled");
    await idle();
  });
});

describe("streamCompletions()", () => {
  test("a prompt that cannot be read fails before anything is computed", async () => {
    const { steps } = await lease.engine.stats();
    const events = streamCompletions(
      pool,
      {
        ...request("", 4),
        prompts: [
          { path: "prompt[0]", content: "fine" },
          { path: "prompt[1]", content: [1, 1e6] },
        ],
        n: 1,
        echo: null,
      },
      never,
    );
    const error = await events.next().catch((thrown: unknown) => thrown);
    expect((error as OmlxError).param).toBe("prompt[1][1]");
    expect((await lease.engine.stats()).steps).toBe(steps);
  });
});
