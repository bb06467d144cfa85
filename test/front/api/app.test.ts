import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createApp, OpenRequests } from "#front/api";
import { loadSettings } from "#front/config";
import { createPool, type Pool } from "#front/pool";

const KEY = "sk-right";

let folder: string;
let pool: Pool;

/** A pool over an empty folder: everything but a model. */
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "omlx-app-"));
  const { settings } = loadSettings(new Map([["basePath", folder]]), {});
  pool = await createPool({ settings });
});
afterAll(async () => {
  await pool.stop();
  rmSync(folder, { recursive: true });
});

function send(method: string, path: string, init: RequestInit = {}, apiKey = "") {
  const app = createApp({
    pool,
    apiKey,
    version: "1.2.3",
    keepAliveMs: 60_000,
    responsesFolder: "/nonexistent/responses",
    mcp: null,
    bodyLimit: 1000,
    requests: new OpenRequests(),
    shutdown: new AbortController().signal,
  });
  return app.handle(new Request(`http://localhost${path}`, { method, ...init }));
}

async function told(response: Response) {
  type Told = Record<"message" | "type" | "param" | "code", string | null>;
  const { error } = (await response.json()) as { error: Told };
  return { status: response.status, ...error };
}

const chat = (body: string, headers: Record<string, string> = {}, apiKey = "") =>
  send("POST", "/v1/chat/completions", { body, headers }, apiKey);

describe("createApp()", () => {
  test("createApp() answers what it does not know in OpenAI's shape", async () => {
    expect(await told(await send("GET", "/nope"))).toEqual({
      status: 404,
      message: 'No such route: GET "/nope"',
      type: "not_found_error",
      param: null,
      code: "route_not_found",
    });
    const wrong = await send("GET", "/v1/chat/completions");
    expect(wrong.headers.get("allow")).toBe("POST, OPTIONS");
    expect((await told(wrong)).status).toBe(405);
    expect((await send("OPTIONS", "/health")).status).toBe(204);
  });

  test("createApp() tells errors in Anthropic's shape on Anthropic's routes", async () => {
    const big = JSON.stringify({ text: "x".repeat(2000) });
    const field = JSON.stringify({ max_tokens: 1, messages: [{ role: "user", content: 5 }] });
    const no_limit = JSON.stringify({ messages: [{ role: "user", content: "x" }] });
    const model = JSON.stringify({ ...JSON.parse(no_limit), max_tokens: 1, model: "x" });
    const cases: [string, string, RequestInit, number, string, RegExp][] = [
      ["POST", "/v1/messages", { body: "{" }, 400, "invalid_request_error", /line 1, column 2/],
      ["POST", "/v1/messages", { body: field }, 400, "invalid_request_error", /content/],
      ["POST", "/v1/messages", { body: no_limit }, 400, "invalid_request_error", /max_tokens/],
      ["POST", "/v1/messages?beta=true", { body: model }, 404, "not_found_error", /"x" not found/],
      ["POST", "/v1/messages/count_tokens", { body: model }, 404, "not_found_error", /"x"/],
      ["POST", "/v1/messages", { body: big }, 413, "request_too_large", /larger than/],
      [
        "POST",
        "/v1/messages",
        { body: "{}", headers: { "content-encoding": "x" } },
        415,
        "invalid_request_error",
        /encoding/,
      ],
      ["GET", "/v1/messages", {}, 405, "invalid_request_error", /POST/],
      ["POST", "/v1/messages/batches", { body: "{}" }, 404, "not_found_error", /No such route/],
      [
        "POST",
        "/v1/messages",
        { body: "a=b", headers: { origin: "https://evil.example" } },
        403,
        "permission_error",
        /another site/,
      ],
    ];
    for (const [method, path, init, status, type, message] of cases) {
      const response = await send(method, path, init);
      const body = (await response.json()) as { request_id: string };
      expect<unknown[]>([path, response.status, body]).toEqual([
        path,
        status,
        {
          type: "error",
          error: { type, message: expect.stringMatching(message) },
          request_id: expect.stringMatching(/^req_[0-9a-f]{24}$/),
        },
      ]);
      expect(response.headers.get("request-id")).toBe(body.request_id);
    }
    for (const [type, code] of [
      ["create", "thread_unsupported_request"],
      ["continue", "thread_not_found"],
    ]) {
      for (const path of ["/v1/messages", "/v1/messages/count_tokens"]) {
        const body = JSON.stringify({ ...JSON.parse(model), thread: { type } });
        const response = await send("POST", path, { body });
        expect(response.status).toBe(400);
        expect(await response.json()).toMatchObject({
          error: { type: "invalid_request_error", details: { error_code: code } },
        });
      }
    }
    const locked = await send("POST", "/v1/messages", { body: "{}" }, KEY);
    expect(locked.status).toBe(401);
    expect(await locked.json()).toMatchObject({ error: { type: "authentication_error" } });
  });

  test("createApp() checks keys before anything else", async () => {
    for (const path of ["/v1/models", "/nope", "/v1/chat/completions"]) {
      expect((await told(await send("GET", path, {}, KEY))).status).toBe(401);
    }
    const headers = { authorization: `Bearer ${KEY}` };
    expect((await send("GET", "/v1/models", { headers }, KEY)).status).toBe(200);
    expect((await send("GET", "/health", {}, KEY)).status).toBe(200);
    expect((await told(await chat("{", {}, KEY))).status).toBe(401);
  });

  test("createApp() names the field at fault", async () => {
    const body = {
      messages: [
        { role: "user", content: "x" },
        { role: "user", content: 5 },
      ],
    };
    const error = await told(await chat(JSON.stringify(body)));
    expect(error).toEqual({
      status: 400,
      message:
        'Invalid value for "messages[1].content": expected string, received number; expected array, received number',
      type: "invalid_request_error",
      param: "messages[1].content",
      code: null,
    });
  });

  test("createApp() refuses broken, large and foreign bodies", async () => {
    expect((await told(await chat("{"))).status).toBe(400);
    expect((await told(await chat(`"${"x".repeat(1000)}"`))).status).toBe(413);
    expect((await told(await chat("{}", { "content-encoding": "zz" }))).status).toBe(415);
    const foreign = { origin: "https://evil.example", "content-type": "text/plain" };
    expect((await told(await chat("{}", foreign))).status).toBe(403);
  });

  test("createApp() says that there is no model, streamed or not", async () => {
    for (const stream of [false, true]) {
      const body = { messages: [{ role: "user", content: "x" }], stream };
      const error = await told(await chat(JSON.stringify(body)));
      expect([error.status, error.code]).toEqual([404, "model_not_found"]);
    }
    expect((await told(await send("GET", "/v1/models/a/b"))).code).toBe("model_not_found");
  });

  test("createApp() lists no models and is healthy without any", async () => {
    expect(await (await send("GET", "/v1/models")).json()).toEqual({ object: "list", data: [] });
    expect(await (await send("GET", "/health/live")).json()).toEqual({ status: "alive" });
    expect(await (await send("GET", "/health/ready")).json()).toEqual({ status: "ready" });
    expect(await (await send("GET", "/health")).json()).toEqual({
      status: "healthy",
      version: "1.2.3",
      auth: "none",
      default_model: null,
      active_requests: 0,
      engine_pool: {
        model_count: 0,
        loaded_count: 0,
        final_ceiling: expect.any(Number),
        current_model_memory: 0,
      },
      mcp: null,
    });
  });
});

describe("OpenRequests", () => {
  test("OpenRequests.idle() resolves when the last request has left", async () => {
    const open = new OpenRequests();
    await open.idle();
    const one = open.enter();
    const two = open.enter();
    let isIdle = false;
    const idle = open.idle().then(() => {
      isIdle = true;
    });
    one[Symbol.dispose]();
    one[Symbol.dispose]();
    expect(open.size).toBe(1);
    await Promise.resolve();
    expect(isIdle).toBe(false);
    two[Symbol.dispose]();
    await idle;
    expect(open.size).toBe(0);
  });
});
