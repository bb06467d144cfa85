import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { GREEDY, OmlxError, type TokenRequest } from "#core/contract";
import { loadSettings, type Settings } from "#front/config";
import { engineCommand } from "#front/engine";
import { createPool, type Lease, type Pool } from "#front/pool";
import { setWorkerUrl } from "#front/text";

const ROOT = join(import.meta.dir, "../..");
const FIXTURES = join(ROOT, "test/fixtures/models");
const command = engineCommand(join(ROOT, "src/main.ts"));
const never = new AbortController().signal;

let folder = "";
let pools: Pool[] = [];

beforeAll(() => {
  setWorkerUrl(new URL("../../src/front/text/worker.ts", import.meta.url));
  folder = mkdtempSync(join(tmpdir(), "omlx-pool-"));
});
afterEach(async () => {
  await Promise.all(pools.map((pool) => pool.stop()));
  pools = [];
});
afterAll(() => rmSync(folder, { recursive: true }));

let folders = 0;
/** A new folder with copies of fixtures, by the names they get. */
function modelsFolder(models: Record<string, string>): string {
  const dir = join(folder, String(folders++));
  mkdirSync(dir);
  for (const [name, fixture] of Object.entries(models)) {
    cpSync(join(FIXTURES, fixture), join(dir, name), { recursive: true });
  }
  return dir;
}

async function open(dir: string, more: Partial<Settings> = {}, bundledDir?: string): Promise<Pool> {
  const { settings } = loadSettings(new Map(), { HOME: folder });
  const pool = await createPool({
    settings: { ...settings, modelDir: [dir], threads: 1, ...more },
    bundledDir,
    command,
  });
  pools.push(pool);
  return pool;
}

/** Tokens that a leased model answers some ids with. */
async function answer(lease: Lease): Promise<number[]> {
  const request: TokenRequest = {
    id: crypto.randomUUID(),
    promptIds: [1, 2, 3],
    maxTokens: 4,
    minTokens: 4,
    stopIds: [],
    sampling: GREEDY,
    lane: "interactive",
    topLogprobs: null,
    constraint: null,
    thinkingBudget: null,
  };
  const ids: number[] = [];
  for await (const event of lease.engine.generate(request, never)) {
    if (event.kind === "tokens") ids.push(...event.ids);
  }
  return ids;
}

async function errorOf(promise: Promise<unknown>): Promise<OmlxError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof OmlxError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

const stateOf = (pool: Pool, id: string) => pool.status().models.find((m) => m.id === id)?.state;

async function reaches(pool: Pool, id: string, state: string): Promise<void> {
  while (stateOf(pool, id) !== state) await Bun.sleep(5);
}

describe("Pool.lease()", () => {
  test("loads a model on demand, once for all who ask at the same time", async () => {
    const pool = await open(modelsFolder({ a: "llama-f32" }));
    expect(stateOf(pool, "a")).toBe("unloaded");
    const leases = await Promise.all(["a", "A", "omlx/a"].map((name) => pool.lease(name, never)));
    expect(new Set(leases.map((lease) => lease.engine.pid)).size).toBe(1);
    expect(pool.status().models[0]).toMatchObject({ state: "ready", leases: 3, deaths: 0 });
    expect(await answer(leases[0] as Lease)).toHaveLength(4);
    for (const lease of leases) {
      lease[Symbol.dispose]();
      lease[Symbol.dispose]();
    }
    expect(pool.status().models[0]).toMatchObject({ state: "ready", leases: 0 });
  });

  test("keeps several models loaded, each in its own process", async () => {
    const pool = await open(modelsFolder({ a: "llama-f32", "group/b": "qwen3-f32" }));
    using a = await pool.lease("a", never);
    using b = await pool.lease("group/b", never);
    expect(a.engine.pid).not.toBe(b.engine.pid);
    expect(await Promise.all([answer(a), answer(b)])).toEqual([
      expect.any(Array),
      expect.any(Array),
    ]);
    expect(a.entry.modelType).toBe("llama");
    expect(b.entry.modelType).toBe("qwen3");
  });

  test("unloads the idle model that was used longest ago when a new one needs its place", async () => {
    const pool = await open(modelsFolder({ a: "llama-f32", b: "llama-f32", c: "llama-f32" }), {
      maxLoadedModels: 2,
    });
    for (const name of ["a", "b", "a"]) (await pool.lease(name, never))[Symbol.dispose]();
    using _ = await pool.lease("c", never);
    expect(["a", "b", "c"].map((id) => stateOf(pool, id))).toEqual(["ready", "unloaded", "ready"]);
  });

  test("waits for a busy model to become idle, never takes it away", async () => {
    const pool = await open(modelsFolder({ a: "llama-f32", b: "llama-f32" }), {
      maxLoadedModels: 1,
    });
    const a = await pool.lease("a", never);
    const waiting = pool.lease("b", never);
    await reaches(pool, "b", "waiting");
    expect(await answer(a)).toHaveLength(4);
    expect(stateOf(pool, "b")).toBe("waiting");
    a[Symbol.dispose]();
    using b = await waiting;
    expect(await answer(b)).toHaveLength(4);
    expect(stateOf(pool, "a")).toBe("unloaded");
  });

  test("gives up waiting when the signal aborts, and serves the next one", async () => {
    const pool = await open(modelsFolder({ a: "llama-f32", b: "llama-f32" }), {
      maxLoadedModels: 1,
    });
    using a = await pool.lease("a", never);
    const abort = new AbortController();
    const waiting = errorOf(pool.lease("b", abort.signal));
    await reaches(pool, "b", "waiting");
    abort.abort();
    expect((await waiting).code).toBe("cancelled");
    await reaches(pool, "b", "unloaded");
    expect(await answer(a)).toHaveLength(4);
    expect((await errorOf(pool.lease("a", abort.signal))).code).toBe("cancelled");
  });

  test("gets its turn also where another model's leases never stop overlapping", async () => {
    const pool = await open(modelsFolder({ a: "llama-f32", b: "llama-f32" }), {
      maxLoadedModels: 1,
    });
    let isDone = false;
    let held = await pool.lease("a", never);
    const busy = (async () => {
      while (!isDone) {
        const next = pool.lease("a", never);
        await Promise.race([next, Bun.sleep(100)]); // at once, unless b has its turn
        held[Symbol.dispose]();
        held = await next;
      }
      held[Symbol.dispose]();
    })();
    using b = await pool.lease("b", AbortSignal.timeout(15_000));
    expect(await answer(b)).toHaveLength(4);
    isDone = true;
    b[Symbol.dispose]();
    await busy;
    expect(stateOf(pool, "a")).toBe("ready");
  }, 30_000);

  test("refuses a model that can never fit, with the numbers", async () => {
    const pool = await open(modelsFolder({ a: "llama-f32" }), { memoryLimit: 1000 });
    const error = await errorOf(pool.lease("a", never));
    expect(error.code).toBe("out_of_memory");
    expect(error.data?.["freeBytes"]).toBe(1000);
    expect(error.data?.["neededBytes"]).toBeGreaterThan(1000);
  });

  test("finds a model that was added, and no longer one that was taken away", async () => {
    const dir = modelsFolder({ a: "llama-f32" });
    const pool = await open(dir);
    expect((await errorOf(pool.lease("b", never))).code).toBe("model_not_found");
    renameSync(join(dir, "a"), join(dir, "b"));
    using b = await pool.lease("b", never);
    expect(b.entry.id).toBe("b");
    await pool.refresh();
    expect(pool.list().map((entry) => entry.id)).toEqual(["b"]);
    expect((await errorOf(pool.lease("a", never))).message).toContain("Available models: b");
  });

  test("says why a broken model is not served, and serves it once it is whole", async () => {
    const dir = modelsFolder({ a: "llama-f32", good: "llama-f32" });
    const tokenizer = join(dir, "a/tokenizer.json");
    renameSync(tokenizer, `${tokenizer}.away`);
    const pool = await open(dir);
    const error = await errorOf(pool.lease("a", never));
    expect(error.code).toBe("model_load");
    expect(error.message).toContain("tokenizer.json");
    (await pool.lease("good", never))[Symbol.dispose]();
    renameSync(`${tokenizer}.away`, tokenizer);
    (await pool.lease("a", never))[Symbol.dispose]();
  });

  test("does not try a failed load again until its folder changes", async () => {
    const dir = modelsFolder({ a: "llama-f32" });
    const config = join(dir, "a/config.json");
    const whole = await Bun.file(config).json();
    writeFileSync(config, JSON.stringify({ ...whole, num_hidden_layers: 50 }));
    const pool = await open(dir);
    const first = await errorOf(pool.lease("a", never));
    expect(first.code).toBe("model_load");
    expect(first.message).toContain('Cannot load model "a": tensor "model.layers.3.');
    expect(pool.status().models[0]).toMatchObject({ state: "unloaded", problem: first.message });
    const again = await errorOf(pool.lease("a", never));
    expect(again.message).toBe(first.message);
    expect(again.data?.["retryAfterMs"]).toBeGreaterThan(0);
    writeFileSync(config, JSON.stringify(whole));
    using lease = await pool.lease("a", never);
    expect(await answer(lease)).toHaveLength(4);
  });

  test("loads a folder that changed anew, once nobody uses the old one", async () => {
    const dir = modelsFolder({ a: "llama-f32" });
    const pool = await open(dir);
    const before = await pool.lease("a", never);
    const { pid } = before.engine;
    rmSync(join(dir, "a"), { recursive: true });
    cpSync(join(FIXTURES, "qwen3-f32"), join(dir, "a"), { recursive: true });
    await pool.refresh();
    before[Symbol.dispose]();
    using after = await pool.lease("a", never);
    expect(after.engine.pid).not.toBe(pid);
    expect(after.entry.modelType).toBe("qwen3");
  });
});

describe("the default model", () => {
  const defaultOf = async (pool: Pool) => {
    using lease = await pool.lease("", never);
    expect(pool.status().defaultModel).toBe(lease.entry.id);
    return lease.entry.id;
  };

  test("is the one that comes with the program, unless there is exactly one other", async () => {
    const bundled = modelsFolder({ bundled: "llama-f32" });
    const one = modelsFolder({ a: "llama-f32" });
    const two = modelsFolder({ a: "llama-f32", b: "llama-f32" });
    const none = modelsFolder({});
    expect(await defaultOf(await open(none, {}, bundled))).toBe("bundled");
    expect(await defaultOf(await open(one, {}, bundled))).toBe("a");
    expect(await defaultOf(await open(two, {}, bundled))).toBe("bundled");
    expect(await defaultOf(await open(two))).toBe("a");
    expect(await defaultOf(await open(two, { defaultModel: "B" }))).toBe("b");
  });

  test("is missing with a clear error where there is no model", async () => {
    const pool = await open(modelsFolder({}));
    const error = await errorOf(pool.lease("", never));
    expect(error.code).toBe("model_not_found");
    expect(error.message).toContain("--model-dir");
    expect(pool.status()).toMatchObject({ defaultModel: null, isReady: true, models: [] });
  });
});

test("a name never becomes a path", async () => {
  const dir = modelsFolder({ a: "llama-f32" });
  const outside = modelsFolder({ secret: "llama-f32" });
  symlinkSync(join(dir, "a"), join(dir, "link"));
  const pool = await open(dir);
  const names = [
    "../../etc/passwd",
    join(outside, "secret"),
    `../${outside.split("/").at(-1)}/secret`,
  ];
  for (const name of [...names, "a/../a", "./a\0", "a/"]) {
    const error = await errorOf(pool.lease(name, never));
    expect(error.code).toBe("model_not_found");
  }
  expect(pool.status().models.every((model) => model.state === "unloaded")).toBe(true);
});

test("Pool.stop() ends engines, also those that load, and leases no more", async () => {
  const pool = await open(modelsFolder({ a: "llama-f32", b: "llama-f32" }));
  const a = await pool.lease("a", never);
  const loading = pool.lease("b", never).catch((error) => error);
  await reaches(pool, "b", "loading");
  const { pid } = a.engine;
  await pool.stop();
  expect(() => process.kill(pid, 0)).toThrow();
  expect(await loading).toBeInstanceOf(OmlxError);
  expect((await errorOf(pool.lease("a", never))).code).toBe("overloaded");
});
