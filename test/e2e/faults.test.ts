import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeScriptedModel } from "../helpers/scripted-model.ts";
import { childrenOf, eventually, startServer, type TestServer } from "../helpers/server.ts";

/** Talks for as long as it may. */
const TALKER = "talker";

let models = "";
let server: TestServer;

beforeAll(async () => {
  models = mkdtempSync(join(tmpdir(), "omlx-faults-"));
  const text = "Once upon a time there was a fox who never came to an end with his story";
  await writeScriptedModel(join(models, TALKER), { text, loop: true, window: 65_536 });
  server = await startServer({ modelDirs: [models] });
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(models, { recursive: true, force: true });
});

function post(body: Record<string, unknown>, origin = server.origin): Promise<Response> {
  return fetch(`${origin}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model: TALKER, ignore_eos: true, max_tokens: 60_000, ...body }),
  });
}

const say = (content: string) => ({ messages: [{ role: "user", content }] });

interface Frame {
  readonly choices?: { delta: { content?: string } }[];
  readonly error?: { code: string; type: string; message: string };
}

/** A stream as it comes: `started` resolves at its first text, `ended` with all frames when it closes. */
function stream(content: string, origin = server.origin) {
  const started = Promise.withResolvers<void>();
  const ended = (async () => {
    const frames: Frame[] = [];
    const response = await post({ ...say(content), stream: true }, origin);
    let rest = "";
    const decoder = new TextDecoder();
    for await (const bytes of response.body ?? []) {
      const events = (rest + decoder.decode(bytes, { stream: true })).split("\n\n");
      rest = events.pop() ?? "";
      for (const event of events) {
        if (!event.startsWith("data: {")) continue;
        const frame: Frame = JSON.parse(event.slice(6));
        frames.push(frame);
        if (frame.choices?.[0]?.delta.content) started.resolve();
      }
    }
    started.reject(new Error(`no text came: ${response.status} ${JSON.stringify(frames)}`));
    return frames;
  })();
  ended.catch(started.reject);
  return { started: started.promise, ended };
}

async function enginePid(of = server.pid): Promise<number> {
  const children = await childrenOf(of);
  expect(children).toHaveLength(1);
  return children[0] ?? 0;
}

/** A process that ended but was not collected yet is dead as well. */
function isAlive(pid: number): boolean {
  const { stdout } = Bun.spawnSync(["ps", "-o", "stat=", "-p", String(pid)]);
  return /^[^Z\s]/.test(stdout.toString().trim());
}

const isGone = (pid: number) =>
  eventually(() => (isAlive(pid) ? undefined : true), `end of ${pid}`);

describe("an engine process that dies while it answers", () => {
  for (const signal of ["SIGKILL", "SIGABRT", "SIGSEGV", "SIGSTOP"] as const) {
    test(`${signal}: every open request ends with an error, the next one is served`, async () => {
      const streams = ["one", "two"].map((name) => stream(`${signal} ${name}`));
      const whole = post(say(`${signal} three`));
      await Promise.all(streams.map(({ started }) => started));
      const pid = await enginePid();
      process.kill(pid, signal);
      const begun = performance.now();

      if (signal === "SIGSTOP") {
        const readiness = await eventually(async () => {
          const { status } = await fetch(`${server.origin}/health/ready`);
          return status === 200 ? undefined : status;
        }, "a server that is not ready");
        expect(readiness).toBe(503);
      }
      for (const { ended } of streams) {
        const error = (await ended).at(-1)?.error;
        expect(error).toMatchObject({ code: "engine_dead", type: "server_error" });
        expect(error?.message).toContain(signal === "SIGSTOP" ? "no progress" : signal);
      }
      const answer = (await (await whole).json()) as Frame;
      expect(answer.error?.code).toBe("engine_dead");
      expect(performance.now() - begun).toBeLessThan(15_000);

      expect((await fetch(`${server.origin}/health/live`)).status).toBe(200);
      const next = await post({ ...say(`after ${signal}`), max_tokens: 5 });
      expect(next.status).toBe(200);
      const { usage } = (await next.json()) as { usage: { completion_tokens: number } };
      expect(usage.completion_tokens).toBe(5);
      expect(await enginePid()).not.toBe(pid);
      expect((await fetch(`${server.origin}/health/ready`)).status).toBe(200);
    }, 30_000);
  }

  test("an engine that dies between requests is there again for the next one", async () => {
    const pid = await enginePid();
    process.kill(pid, "SIGKILL");
    await isGone(pid);
    expect((await post({ ...say("still there?"), max_tokens: 2 })).status).toBe(200);
  });

  test("a request that three engines died of is refused, others are served", async () => {
    for (let i = 0; i < 3; i++) {
      const poison = stream("poison");
      await poison.started;
      process.kill(await enginePid(), "SIGSEGV");
      expect((await poison.ended).at(-1)?.error?.code).toBe("engine_dead");
    }
    const refused = await post(say("poison"));
    expect(refused.status).toBe(400);
    const { error } = (await refused.json()) as Frame;
    expect(error?.type).toBe("invalid_request_error");
    expect(error?.message).toContain("three times");
    expect((await post({ ...say("medicine"), max_tokens: 2 })).status).toBe(200);
  }, 30_000);
});

describe("a server that is killed", () => {
  for (const isStopped of [false, true]) {
    test(`leaves no process and no file behind${isStopped ? ", also with a stopped engine" : ""}`, async () => {
      const victim = await startServer({ modelDirs: [models] });
      const talk = stream("on and on", victim.origin);
      await talk.started;
      const engine = await enginePid(victim.pid);
      if (isStopped) process.kill(engine, "SIGSTOP");
      const broken = talk.ended.catch(() => "broken");
      await victim.stop("SIGKILL");
      await isGone(engine);
      await broken;
      const left = readdirSync(tmpdir()).filter((name) => name.startsWith(`omlx-${victim.pid}-`));
      expect(left).toEqual([]);
    }, 30_000);
  }

  test("ends its engines when it is asked to end", async () => {
    const victim = await startServer({ modelDirs: [models] });
    expect((await post({ ...say("hello"), max_tokens: 1 }, victim.origin)).status).toBe(200);
    const engine = await enginePid(victim.pid);
    expect(await victim.stop("SIGTERM")).toBe(0);
    expect(isAlive(engine)).toBe(false);
  }, 30_000);
});
