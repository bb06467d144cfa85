import { afterEach, beforeEach, describe, expect, spyOn, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ENGINE_SUBCOMMAND, GREEDY, OmlxError, type TokenEvent } from "#core/contract";
import { setLogLevel } from "#core/log";
import { type Engine, engineCommand, startEngine } from "#front/engine";
import { backOffMs } from "../../../src/front/engine/supervisor.ts";
import { ANSWER, DIE, HANG, STREAM } from "./scripted-engine.ts";

const SCRIPT = join(import.meta.dir, "scripted-engine.ts");
const never = new AbortController().signal;

let folder = "";
let engines: Engine[] = [];
let lines: string[] = [];
let stderr: { mockRestore(): void };

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "omlx-engine-"));
  lines = [];
  stderr = spyOn(process.stderr, "write").mockImplementation((line) => {
    lines.push(String(line));
    return true;
  });
});
afterEach(async () => {
  await Promise.all(engines.map((engine) => engine.stop()));
  engines = [];
  stderr.mockRestore();
  rmSync(folder, { recursive: true });
});

/** An engine whose starts do what `loads` says, in turn. */
async function start(
  loads: string[] = [],
  more: {
    loadTimeoutMs?: number;
    stallTimeoutMs?: number;
    command?: string[];
    stopTimeoutMs?: number;
  } = {},
): Promise<Engine> {
  writeFileSync(join(folder, "loads"), loads.join("\n"));
  const engine = await startEngine({
    name: "toy",
    command: [process.execPath, SCRIPT],
    load: {
      modelPath: folder,
      kernels: "native",
      threads: 0,
      contextWindow: 0,
      cacheBytes: 0,
      maxRunning: 8,
      prefillTargetMs: 100,
    },
    maxQueue: 8,
    stallTimeoutMs: 10_000,
    loadTimeoutMs: 20_000,
    ...more,
  });
  engines.push(engine);
  return engine;
}

let ids = 0;
/** Events of one request, given to `onEvent` as they come. */
async function ask(
  engine: Engine,
  behaviour: number,
  onEvent: (event: TokenEvent) => void = () => {},
): Promise<TokenEvent[]> {
  const events: TokenEvent[] = [];
  const request = {
    id: `r${ids++}`,
    promptIds: [behaviour],
    maxTokens: 10,
    minTokens: 0,
    stopIds: [],
    sampling: GREEDY,
    lane: "interactive" as const,
    topLogprobs: null,
    constraint: null,
    thinkingBudget: null,
  };
  for await (const event of engine.generate(request, never)) {
    events.push(event);
    onEvent(event);
  }
  return events;
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

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

const heartbeats = () =>
  readdirSync(tmpdir()).filter((name) => name.startsWith(`omlx-${process.pid}-`));

describe("startEngine()", () => {
  test("loads, answers, and leaves neither process nor file after stop()", async () => {
    const engine = await start();
    expect(engine.state).toBe("ready");
    expect(engine.info.contextWindow).toBe(100);
    const events = await ask(engine, ANSWER);
    expect(events.map((event) => event.kind)).toEqual(["tokens", "finish"]);
    expect((await engine.stats()).steps).toBe(2);
    const { pid } = engine;
    expect(isAlive(pid)).toBe(true);
    await engine.stop();
    expect(isAlive(pid)).toBe(false);
    expect(heartbeats()).toEqual([]);
    expect((await errorOf(ask(engine, ANSWER))).code).toBe("engine_dead");
    expect((await errorOf(engine.stats())).code).toBe("engine_dead");
  });

  test("passes on why the engine refuses a model", async () => {
    const error = await errorOf(start(["refuse"]));
    expect(error.code).toBe("model_load");
    expect(error.message).toContain("tensor x is missing");
    expect(heartbeats()).toEqual([]);
  });

  test("says how an engine died that did not load", async () => {
    const error = await errorOf(start(["die"]));
    expect(error.code).toBe("model_load");
    expect(error.message).toContain('"toy"');
    expect(error.message).toContain("SIGSEGV");
  });

  test("ends an engine that neither loads nor fails", async () => {
    const error = await errorOf(start(["hang"], { loadTimeoutMs: 500 }));
    expect(error.code).toBe("model_load");
    expect(error.message).toContain("no progress for 0.5 s");
    expect(heartbeats()).toEqual([]);
  });

  test("says that a process cannot be started", async () => {
    const error = await errorOf(start([], { command: ["/no/such/program"] }));
    expect(error.code).toBe("model_load");
    expect(heartbeats()).toEqual([]);
  });

  test("ends a load when the signal aborts", async () => {
    const abort = new AbortController();
    writeFileSync(join(folder, "loads"), "hang");
    const engine = startEngine(
      {
        name: "toy",
        command: [process.execPath, SCRIPT],
        load: {
          modelPath: folder,
          kernels: "native",
          threads: 0,
          contextWindow: 0,
          cacheBytes: 0,
          maxRunning: 8,
          prefillTargetMs: 100,
        },
        maxQueue: 8,
        stallTimeoutMs: 10_000,
        loadTimeoutMs: 20_000,
      },
      abort.signal,
    );
    abort.abort();
    expect((await errorOf(engine)).code).toBe("model_load");
    expect(heartbeats()).toEqual([]);
  });

  test("puts the engine's output into the log, line by line, at its level", async () => {
    setLogLevel("info");
    try {
      const engine = await start();
      await engine.stop();
    } finally {
      setLogLevel("error");
    }
    expect(lines.some((line) => / info +plain line model=toy engine=\d+\n$/.test(line))).toBe(true);
    expect(lines.some((line) => / error +told by the engine key=value model=toy/.test(line))).toBe(
      true,
    );
  });
});

describe("Engine", () => {
  test("fails every open request when its process dies, then serves again", async () => {
    const engine = await start();
    const { pid } = engine;
    const other = errorOf(ask(engine, STREAM));
    const seen: TokenEvent[] = [];
    const error = await errorOf(ask(engine, DIE, (event) => seen.push(event)));
    expect(seen).toEqual([{ kind: "tokens", ids: [7] }]);
    for (const e of [error, await other]) {
      expect(e.code).toBe("engine_dead");
      expect(e.message).toContain("SIGABRT");
    }
    expect(engine.state).toBe("restarting");
    expect(await ask(engine, ANSWER)).toHaveLength(2);
    expect(engine.state).toBe("ready");
    expect(engine.pid).not.toBe(pid);
    expect(engine.deaths).toBe(1);
    expect(heartbeats()).toEqual([]);
  });

  test.each(["SIGKILL", "SIGSEGV", "SIGABRT"] as const)(
    "survives %s from outside",
    async (signal) => {
      const engine = await start();
      const error = await errorOf(ask(engine, STREAM, () => process.kill(engine.pid, signal)));
      expect(error.message).toContain(signal);
      expect(await ask(engine, ANSWER)).toHaveLength(2);
    },
  );

  test("kills a process that is stopped or hangs while someone waits, then serves again", async () => {
    const engine = await start([], { stallTimeoutMs: 400 });
    const stopping = errorOf(ask(engine, STREAM, () => process.kill(engine.pid, "SIGSTOP")));
    const isStalled = () => engine.isStalled;
    while (!isStalled()) await Bun.sleep(5);
    expect(engine.state).toBe("ready");
    const stopped = await stopping;
    expect(isStalled()).toBe(false);
    expect(stopped.code).toBe("engine_dead");
    expect(stopped.message).toContain("no progress for 0.4 s");
    expect(await ask(engine, ANSWER)).toHaveLength(2);
    const hung = await errorOf(ask(engine, HANG));
    expect(hung.message).toContain("no progress");
    expect(await ask(engine, ANSWER)).toHaveLength(2);
  });

  test("does not kill a process that streams for longer than the stall time", async () => {
    const engine = await start([], { stallTimeoutMs: 400 });
    let numTokens = 0;
    const begun = performance.now();
    const request = ask(engine, STREAM, () => {
      numTokens++;
      if (performance.now() - begun > 1000) throw new OmlxError({ code: "cancelled", message: "" });
    });
    expect((await errorOf(request)).code).toBe("cancelled");
    expect(numTokens).toBeGreaterThan(10);
    expect(engine.deaths).toBe(0);
  });

  test("is dead when it does not load again, and says why", async () => {
    const engine = await start(["ok", "refuse", "die", "refuse"]);
    await errorOf(ask(engine, DIE));
    const error = await errorOf(ask(engine, ANSWER));
    expect(error.code).toBe("engine_dead");
    expect(error.message).toContain("tensor x is missing");
    expect(engine.state).toBe("dead");
    expect((await errorOf(ask(engine, ANSWER))).message).toContain("tensor x is missing");
  });

  test("refuses the request that it died on three times, and serves others", async () => {
    const engine = await start();
    for (let i = 0; i < 3; i++) expect((await errorOf(ask(engine, DIE))).code).toBe("engine_dead");
    expect((await errorOf(ask(engine, DIE))).code).toBe("invalid_request");
    expect(await ask(engine, ANSWER)).toHaveLength(2);
  });

  test("ends a process that ignores shutdown and SIGTERM", async () => {
    const engine = await start([], {
      command: [process.execPath, SCRIPT, "--stubborn"],
      stopTimeoutMs: 50,
    });
    const open = errorOf(ask(engine, HANG));
    const { pid } = engine;
    await engine.stop();
    expect(isAlive(pid)).toBe(false);
    expect((await open).code).toBe("engine_dead");
  });
});

test("backOffMs() starts at once after one death and waits ever longer after more, up to 10 s", () => {
  expect([1, 2, 3, 4, 20].map(backOffMs)).toEqual([0, 250, 500, 1000, 10_000]);
});

test("engineCommand() names the script from source and only the subcommand in a binary", () => {
  const { execPath } = process;
  expect(engineCommand("/src/main.ts")).toEqual([execPath, "/src/main.ts", ENGINE_SUBCOMMAND]);
  expect(engineCommand("/$bunfs/root/omlx")).toEqual([execPath, ENGINE_SUBCOMMAND]);
});
