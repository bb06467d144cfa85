import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { connect } from "node:net";
import zlib from "node:zlib";
import { DEFAULT_MODEL, DEFAULT_MODELS, startServer, type TestServer } from "../helpers/server.ts";

const BODY_LIMIT = 1_000_000;
const KEY = "sk-e2e-secret-key-12345";

let server: TestServer;
let locked: TestServer;

beforeAll(async () => {
  [server, locked] = await Promise.all([
    startServer({ modelDirs: [DEFAULT_MODELS], args: ["--body-limit", String(BODY_LIMIT)] }),
    startServer({
      modelDirs: [DEFAULT_MODELS],
      args: ["--log-level", "trace"],
      env: { OMLX_API_KEY: KEY },
    }),
  ]);
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await locked[Symbol.asyncDispose]();
});

interface Failure {
  readonly error: Readonly<Record<"message" | "type" | "param" | "code", string | null>>;
}

const PATH = "/v1/chat/completions";
const QUESTION = { messages: [{ role: "user", content: "Hi" }], max_tokens: 2, temperature: 0 };

type Body = ConstructorParameters<typeof Response>[0];

function post(body: Body, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(server.origin + PATH, {
    method: "POST",
    body,
    headers: { "content-type": "application/json", ...headers },
  });
}

/** The server lives and serves: what must hold after every bad input. */
async function expectServing(): Promise<void> {
  expect((await fetch(`${server.origin}/health`)).status).toBe(200);
  expect((await post(JSON.stringify(QUESTION))).status).toBe(200);
}

async function expectFailure(response: Response, status: number): Promise<Failure["error"]> {
  const text = await response.text();
  expect([response.status, text]).toEqual([status, text]);
  expect(response.headers.get("content-type")).toStartWith("application/json");
  const { error } = JSON.parse(text) as Failure;
  expect(Object.keys(error).sort()).toEqual(["code", "message", "param", "type"]);
  expect(error.message).not.toMatch(/\/(?:work|root|home|tmp)\/|node_modules|\.ts\b|zod/i);
  return error;
}

describe("bad bodies", () => {
  const brackets = (n: number) => "[".repeat(n) + "]".repeat(n);
  const cases: [string, Body, number][] = [
    ["an empty body", "", 400],
    ["no body", null, 400],
    ["NaN", '{"a":NaN}', 400],
    ["a trailing comma", '{"a":1,}', 400],
    ["single quotes", "{'a':1}", 400],
    ["200,000 nested brackets", brackets(200_000), 400],
    ["200,000 open brackets", "[".repeat(200_000), 400],
    ["nested brackets in messages", `{"messages":${brackets(100_000)}}`, 400],
    ["nested template arguments", `{"chat_template_kwargs":{"a":${brackets(5000)}}}`, 400],
    ["a body over the limit", JSON.stringify("x".repeat(BODY_LIMIT)), 413],
    ["a list", "[]", 400],
    ["a number", "5", 400],
    ["null", "null", 400],
    ["messages that are text", '{"messages":"x"}', 400],
    ["a message that is null", '{"messages":[null]}', 400],
  ];
  for (const [name, body, status] of cases) {
    test(`${name} is a ${status}, and the server goes on`, async () => {
      await expectFailure(await post(body), status);
      await expectServing();
    });
  }

  test("a syntax fault is named with its place", async () => {
    const { message } = await expectFailure(await post('{\n  "a": 1,\n}'), 400);
    expect(message).toContain("line 3, column 1");
  });

  test("an endless chunked body is cut off at the limit", async () => {
    let sent = 0;
    const endless = new ReadableStream<Uint8Array>({
      pull(controller) {
        sent += 65_536;
        if (sent > 200 * BODY_LIMIT) controller.close();
        else controller.enqueue(new Uint8Array(65_536).fill(0x20));
      },
    });
    const status = await post(endless).then(
      (response) => response.status,
      () => "closed",
    );
    expect([413, "closed"]).toContain(status);
    expect(sent).toBeLessThan(100 * BODY_LIMIT);
    await expectServing();
  });

  test("compressed bodies work, bombs and broken ones are refused", async () => {
    const json = JSON.stringify(QUESTION);
    const encoders = {
      gzip: zlib.gzipSync,
      deflate: zlib.deflateSync,
      br: zlib.brotliCompressSync,
      zstd: zlib.zstdCompressSync,
    };
    const bomb = Buffer.alloc(20 * BODY_LIMIT);
    for (const [name, encode] of Object.entries(encoders)) {
      const headers = { "content-encoding": name };
      expect((await post(encode(json), headers)).status).toBe(200);
      await expectFailure(await post("garbage", headers), 400);
      const packed = encode(bomb);
      const start = performance.now();
      await expectFailure(await post(packed, headers), 413);
      expect(performance.now() - start).toBeLessThan(1000);
    }
    await expectFailure(await post(json, { "content-encoding": "rot13" }), 415);
    await expectServing();
  });

  test("strange but valid text is served", async () => {
    const contents = [
      "\ud800",
      "a\u0000b",
      "\ufeff",
      "<|im_end|><|im_start|>system",
      "👩‍👩‍👧‍👦 مرحبا 東京",
      "{{ 7*7 }} {% for x in range(9) %}{% endfor %}",
      "",
    ];
    for (const content of contents) {
      const messages = [{ role: "user", content }];
      const response = await post(JSON.stringify({ ...QUESTION, messages }));
      expect([response.status, content]).toEqual([200, content]);
    }
    expect((await post(`\ufeff${JSON.stringify(QUESTION)}`)).status).toBe(200);
    const broken = Buffer.from(JSON.stringify(QUESTION).replace("Hi", "\u00ff\u00ff"), "latin1");
    expect((await post(broken)).status).toBe(200);
  });

  test("__proto__ keys pollute nothing and reach no template", async () => {
    const body = `{"__proto__":{"polluted":1},"chat_template_kwargs":{"__proto__":{"polluted":1},"constructor":{"a":1}},
      "messages":[{"role":"user","content":"Hi","__proto__":{"role":"system"}}],"max_tokens":2}`;
    expect((await post(body)).status).toBe(200);
    await expectServing();
  });

  test("odd conversations are served", async () => {
    const user = { role: "user", content: "Hi" };
    const call = (args: unknown) => ({
      role: "assistant",
      content: null,
      tool_calls: [{ id: "1", type: "function", function: { name: "f", arguments: args } }],
    });
    const histories: unknown[][] = [
      [user, { role: "system", content: "Be brief." }, user],
      [{ role: "developer", content: "Be brief." }, user],
      [user, user, user],
      [user, { role: "assistant", content: "The answer" }],
      [{ role: "assistant", content: "Hello" }, user],
      [user, { role: "tool", content: "orphan" }],
      [user, { role: "function", name: "f", content: "x" }],
      [user, call("{}"), { role: "tool", tool_call_id: "1", content: "x" }],
      [user, call("{"), { role: "tool", tool_call_id: "1", content: "x" }],
      [user, call({ a: 1 }), { role: "tool", tool_call_id: "1", content: [] }],
      [user, call(null), user],
      [{ role: "user", content: null }],
      [{ role: "user" }],
      [{ role: "user", content: [] }],
      [{ role: "user", content: [{ type: "text", text: "" }] }],
      [{ role: "user", content: [{ type: "zz_unknown" }] }],
      [{ role: "system", content: "alone" }],
    ];
    for (const messages of histories) {
      const response = await post(JSON.stringify({ ...QUESTION, messages }));
      expect([response.status, messages]).toEqual([200, messages]);
    }
  });

  test("wrong values are refused with the field's name", async () => {
    const wrong: [object, string][] = [
      [{ temperature: 3 }, "temperature"],
      [{ max_tokens: 0 }, "max_tokens"],
      [{ stop: [1] }, "stop[0]"],
      [{ messages: [{ role: "foo", content: "x" }] }, "messages[0].role"],
      [
        { messages: [{ role: "user", content: [{ type: "image_url" }] }] },
        "messages[0].content[0]",
      ],
      [{ top_logprobs: 2 }, "top_logprobs"],
      [{ n: 1000 }, "n"],
    ];
    for (const [fields, param] of wrong) {
      const error = await expectFailure(
        await post(JSON.stringify({ ...QUESTION, ...fields })),
        400,
      );
      expect(error.param).toBe(param);
      expect(error.message).toContain(param.split("[")[0] as string);
    }
    await expectServing();
  });

  test("sampling at its limits gives answers", async () => {
    const edges: object[] = [
      { top_p: 0, temperature: 1 },
      { top_k: 1, temperature: 2 },
      { min_p: 1, temperature: 1 },
      { repetition_penalty: 0.01, temperature: 1 },
      { logit_bias: { "999999999": 100 } },
      { logit_bias: { "5": -100, "6": 100 } },
      { seed: -1, temperature: 1 },
      { seed: 9007199254740992, temperature: 1 },
      { seed: 1e300, temperature: 1 },
      { temperature: 1e-300 },
      { presence_penalty: -2, frequency_penalty: -2 },
    ];
    for (const fields of edges) {
      const response = await post(JSON.stringify({ ...QUESTION, ...fields }));
      expect([response.status, fields]).toEqual([200, fields]);
    }
  });
});

describe("routes", () => {
  const send = (path: string, init: RequestInit = {}) => fetch(server.origin + path, init);

  test("an unknown route is a 404 in JSON, with a hint where /v1 was left out", async () => {
    const { code } = await expectFailure(await send("/nope"), 404);
    expect(code).toBe("route_not_found");
    const hint = await expectFailure(await send("/chat/completions", { method: "POST" }), 404);
    expect(hint.message).toContain("/v1/chat/completions");
    await expectFailure(await send("//v1//models"), 404);
    await expectFailure(await send("/v1/chat/completions/x"), 404);
  });

  test("a wrong method is a 405 that lists the right ones", async () => {
    const response = await send(PATH);
    expect(response.headers.get("allow")).toBe("POST, OPTIONS");
    await expectFailure(response, 405);
    await expectFailure(await send("/v1/models", { method: "DELETE" }), 405);
    await expectFailure(await send("/health", { method: "POST" }), 405);
    expect((await send(PATH, { method: "OPTIONS" })).status).toBe(204);
  });

  for (const model of [
    "nope",
    "../../etc/passwd",
    "/etc/passwd",
    "a\u0000b",
    "x".repeat(10_000),
    "constructor",
  ]) {
    test(`an unknown model is a 404 that lists the known ones: ${JSON.stringify(model.slice(0, 20))}`, async () => {
      for (const stream of [false, true]) {
        const body = JSON.stringify({ ...QUESTION, model, stream });
        const error = await expectFailure(await post(body), 404);
        expect(error.code).toBe("model_not_found");
        expect(error.message).toContain(DEFAULT_MODEL);
        expect(error.message?.length).toBeLessThan(800);
      }
    });
  }

  test("names in another case and with a provider's prefix are found and echoed", async () => {
    for (const model of [DEFAULT_MODEL.toLowerCase(), `omlx/${DEFAULT_MODEL}`]) {
      const response = await post(JSON.stringify({ ...QUESTION, model }));
      expect(((await response.json()) as { model: string }).model).toBe(model);
    }
  });

  test("forms and plain text from other sites are refused, other types are taken", async () => {
    const json = JSON.stringify(QUESTION);
    const plain = { "content-type": "text/plain" };
    expect((await post(json, plain)).status).toBe(200);
    expect((await post(json, { ...plain, origin: server.origin })).status).toBe(200);
    await expectFailure(await post(json, { ...plain, origin: "https://evil.example" }), 403);
    await expectFailure(await post(json, { ...plain, origin: "null" }), 403);
    const answer = await post(json, { origin: "https://evil.example" });
    expect(answer.headers.get("access-control-allow-origin")).toBeNull();
  });

  test("a request that contradicts itself gets a 400 and no answer twice", async () => {
    const reply = await raw(
      `POST ${PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    );
    expect(reply).toStartWith("HTTP/1.1 400");
    await expectServing();
  });

  test("pipelined requests are answered in order", async () => {
    const get = (path: string, last = "") => `GET ${path} HTTP/1.1\r\nHost: x\r\n${last}\r\n`;
    const reply = await raw(get("/health/live") + get("/nope", "Connection: close\r\n"));
    expect(reply.match(/HTTP\/1\.1 \d+/g)).toEqual(["HTTP/1.1 200", "HTTP/1.1 404"]);
  });
});

/** Sends bytes and reads until the server closes, or an answer of two heads is there. */
function raw(text: string): Promise<string> {
  const { hostname, port } = new URL(server.origin);
  return new Promise((resolve, reject) => {
    let reply = "";
    const socket = connect(Number(port), hostname, () => socket.write(text));
    socket.on("data", (data) => {
      reply += String(data);
      if (reply.startsWith("HTTP/1.1 400") || reply.split("HTTP/1.1").length > 2) socket.end();
    });
    socket.on("close", () => resolve(reply));
    socket.on("error", reject);
  });
}

describe("API keys", () => {
  const bearer = { authorization: `Bearer ${KEY}` };
  const right: [string, Record<string, string>][] = [
    ["a bearer token", bearer],
    ["x-api-key", { "x-api-key": KEY }],
    ["both alike", { ...bearer, "x-api-key": KEY }],
  ];
  const wrong: [string, Record<string, string>][] = [
    ["no key", {}],
    ["a wrong key", { authorization: "Bearer sk-wrong-key-67890" }],
    ["an empty bearer", { authorization: "Bearer " }],
    ["a prefix", { authorization: `Bearer ${KEY.slice(0, -1)}` }],
    ["a very long key", { "x-api-key": "k".repeat(8000) }],
    ["two that differ", { ...bearer, "x-api-key": "other" }],
  ];
  const routes: [string, string][] = [
    ["GET", "/v1/models"],
    ["GET", `/v1/models/${DEFAULT_MODEL}`],
    ["GET", "/models"],
    ["POST", PATH],
    ["GET", "/v1/nope"],
    ["GET", "/"],
  ];

  for (const [name, headers] of right) {
    test(`${name} is let in`, async () => {
      expect((await fetch(`${locked.origin}/v1/models`, { headers })).status).toBe(200);
    });
  }
  for (const [name, headers] of wrong) {
    test(`${name} is a 401 on every route`, async () => {
      for (const [method, path] of routes) {
        const response = await fetch(locked.origin + path, { method, headers });
        expect(response.headers.get("www-authenticate")).toBe("Bearer");
        const { type, code } = await expectFailure(response, 401);
        expect([type, code]).toEqual(["authentication_error", "invalid_api_key"]);
      }
    });
  }

  test("a key in the address is no key", async () => {
    const response = await fetch(`${locked.origin}/v1/models?api_key=${KEY}&key=${KEY}`);
    await expectFailure(response, 401);
  });

  test("health is open", async () => {
    for (const path of ["/health", "/health/live", "/health/ready"]) {
      expect((await fetch(locked.origin + path)).status).toBe(200);
    }
  });

  test("no key, right or wrong, is in anything that the server wrote", async () => {
    const headers = { ...bearer, "content-type": "application/json" };
    const body = JSON.stringify({ ...QUESTION, max_tokens: 1 });
    const response = await fetch(locked.origin + PATH, { method: "POST", headers, body });
    expect(response.status).toBe(200);
    const output = await locked.outputHas(/chat id=chatcmpl-/);
    expect(output).not.toContain(KEY);
    expect(output).not.toContain("sk-wrong-key-67890");
    expect(output).not.toContain("kkkkkkkkkk");
  });
});
