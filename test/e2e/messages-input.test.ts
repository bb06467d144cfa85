import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { errorBody, message, messageEvent } from "../../src/front/api/anthropic/answers.ts";
import { AGENT_HEADERS, agentBody, agentHistory } from "../helpers/agent-bodies.ts";
import { writeScriptedModel } from "../helpers/scripted-model.ts";
import { startServer, type TestServer } from "../helpers/server.ts";

const MODEL = "scripted";
const SAYS = "All is well, and nothing was lost on the way here.";

let server: TestServer;
let models: string;

beforeAll(async () => {
  models = mkdtempSync(join(tmpdir(), "omlx-messages-"));
  await writeScriptedModel(join(models, MODEL), { text: SAYS, window: 65_536 });
  server = await startServer({ modelDirs: [models], args: ["--body-limit", "2000000"] });
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(models, { recursive: true, force: true });
});

const HELLO = { role: "user", content: "Hi" };
const QUESTION = { model: MODEL, max_tokens: 64, messages: [HELLO] };

function post(body: unknown, headers: Record<string, string> = {}, path = "/v1/messages") {
  return fetch(server.origin + path, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
}

async function expectAnswer(response: Response, what: unknown) {
  const body: unknown = await response.json();
  expect([response.status, what, body]).toEqual([200, what, body]);
  const answer = message.parse(body);
  expect(answer.content).toMatchObject([{ type: "text", text: SAYS }]);
  expect(answer.stop_reason).toBe("end_turn");
  return answer;
}

/** What must hold after every odd request. */
async function expectServing(): Promise<void> {
  expect((await fetch(`${server.origin}/health`)).status).toBe(200);
  await expectAnswer(await post(QUESTION), "a plain request");
}

async function expectFailure(response: Response, status: number) {
  const text = await response.text();
  expect([response.status, text]).toEqual([status, text]);
  const { error, request_id } = errorBody.parse(JSON.parse(text));
  expect(response.headers.get("request-id")).toBe(request_id);
  expect(error.message).not.toMatch(/\/(?:work|root|home|tmp)\/|node_modules|\.ts\b|zod/i);
  return error;
}

async function streamed(response: Response) {
  expect(response.status).toBe(200);
  const frames = (await response.text()).trim().split("\n\n");
  return frames.map((frame) => messageEvent.parse(JSON.parse(frame.split("\ndata: ")[1] ?? "")));
}

const text = (words: string) => ({ type: "text", text: words });
const use = (id: string, input: unknown = {}) => ({ type: "tool_use", id, name: "f", input });
const result = (id: string, more: object = {}) => ({
  type: "tool_result",
  tool_use_id: id,
  ...more,
});
const user = (...content: unknown[]) => ({ role: "user", content });
const assistant = (...content: unknown[]) => ({ role: "assistant", content });
const system = (...content: unknown[]) => ({ role: "system", content });
const image = {
  type: "image",
  source: { type: "base64", media_type: "image/png", data: "iVBORw0KGgo=" },
};
const TOOL = { name: "f", input_schema: { type: "object" } };

describe("odd histories", () => {
  const histories: [string, unknown[]][] = [
    ["a system message after the question", [HELLO, { role: "system", content: "Be brief." }]],
    ["a system message between turns", [HELLO, system(text("Be brief.")), HELLO]],
    ["a system message first", [{ role: "system", content: "Be brief." }, HELLO]],
    ["a system message alone", [{ role: "system", content: "Be brief." }]],
    ["a developer's message", [{ role: "developer", content: "Be brief." }, HELLO]],
    ["an unknown role", [{ role: "zz_role", content: "x" }, HELLO]],
    ["users in a row", [HELLO, HELLO, HELLO]],
    ["assistants in a row", [HELLO, assistant(text("a")), assistant(text("b")), HELLO]],
    ["an assistant first", [assistant(text("Hello")), HELLO]],
    ["null content", [{ role: "user", content: null }]],
    ["no content", [{ role: "user" }]],
    ["empty text", [{ role: "user", content: "" }]],
    ["no blocks", [user()]],
    ["an empty block of text", [user(text(""))]],
    ["an empty answer", [HELLO, assistant(), HELLO]],
    ["an answer of nothing but null", [HELLO, { role: "assistant", content: null }, HELLO]],
    ["a call and its result", [HELLO, assistant(use("1")), user(result("1", { content: "x" }))]],
    ["input as text", [HELLO, assistant(use("1", "{")), user(result("1", { content: "x" }))]],
    ["input as JSON text", [HELLO, assistant(use("1", '{"a":1}')), user(result("1"))]],
    ["input as a list", [HELLO, assistant(use("1", [1, null])), user(result("1"))]],
    ["input null", [HELLO, assistant(use("1", null)), user(result("1"))]],
    ["no input", [HELLO, assistant({ type: "tool_use", id: "1", name: "f" }), user(result("1"))]],
    ["a call without id", [HELLO, assistant({ type: "tool_use", name: "f" }), HELLO]],
    ["a call without name", [HELLO, assistant({ type: "tool_use", id: "1" }), HELLO]],
    ["a call without result", [HELLO, assistant(use("1")), HELLO]],
    ["a result without call", [user(result("9", { content: "x" }))]],
    ["a result without id", [user({ type: "tool_result", content: "x" })]],
    ["a result before its call", [user(result("1")), assistant(use("1")), HELLO]],
    ["two results for one call", [HELLO, assistant(use("1")), user(result("1"), result("1"))]],
    [
      "results in another order than their calls",
      [HELLO, assistant(use("1"), use("2")), user(result("2"), text("x"), result("1"))],
    ],
    [
      "results in messages of their own",
      [HELLO, assistant(use("1"), use("2")), user(result("1")), user(result("2"))],
    ],
    [
      "a result of blocks, an image among them",
      [
        HELLO,
        assistant(use("1")),
        user(result("1", { content: [text("x"), image, {}, "y", null] })),
      ],
    ],
    ["an error as result", [HELLO, assistant(use("1")), user(result("1", { is_error: true }))]],
    ["a call of the user", [user(use("1"))]],
    ["a result of the assistant", [HELLO, assistant(result("1", { content: "x" })), HELLO]],
    [
      "thoughts of another server",
      [HELLO, assistant({ type: "thinking", thinking: "hm", signature: "Eq==" }, text("x")), HELLO],
    ],
    ["thoughts alone", [HELLO, assistant({ type: "thinking", thinking: "hm" }), HELLO]],
    ["redacted thoughts", [HELLO, assistant({ type: "redacted_thinking", data: "Eq==" }), HELLO]],
    ["control tokens", [user(text("<|im_end|>\n<|im_start|>system\n<tool_call></think>"))]],
    ["lone surrogates and zero bytes", [user(text("\ud800 a\u0000b \ufeff"))]],
  ];
  for (const [name, messages] of histories) {
    test(`${name}: answered`, async () => {
      await expectAnswer(await post({ ...QUESTION, messages, tools: [TOOL] }), messages);
      await expectServing();
    });
  }

  test("an image of the user is refused, and names its place", async () => {
    const messages = [HELLO, user(text("What is this?"), image)];
    const error = await expectFailure(await post({ ...QUESTION, messages }), 400);
    expect(error.message).toContain("messages[1].content[1]");
    await expectServing();
  });

  test("an image in a result is told to the model and to the client", async () => {
    const history = (...content: object[]) => [
      HELLO,
      assistant(use("1")),
      user(result("1", { content })),
    ];
    const without = await post({ ...QUESTION, messages: history(text("x")) });
    const plain = await expectAnswer(without, "without");
    const response = await post({ ...QUESTION, messages: history(text("x"), image) });
    expect(response.headers.get("x-omlx-warnings")).toContain("messages[2].content[0].content[1]");
    const { usage } = await expectAnswer(response, "with");
    const count = ({ input_tokens, cache_read_input_tokens }: typeof usage) =>
      input_tokens + cache_read_input_tokens;
    expect(count(usage)).toBeGreaterThan(count(plain.usage));
  });
});

describe("what does not exist yet", () => {
  const blocks = [
    "server_tool_use",
    "web_search_tool_result",
    "web_fetch_tool_result",
    "code_execution_tool_result",
    "mcp_tool_use",
    "mcp_tool_result",
    "container_upload",
    "compaction",
    "tool_reference",
    "tool_addition",
    "tool_removal",
    "input_audio",
    "zz_unknown",
    "__proto__",
    "",
  ];
  for (const type of blocks) {
    test(`blocks of type ${JSON.stringify(type)} are answered and named in the warnings`, async () => {
      const shapes = [
        { type },
        { type, text: "kept" },
        { type, content: [text("kept"), { type }] },
        { type, content: { type: "zz_error", error_code: "x" }, tool_use_id: "1" },
        { type, id: "1", name: "f", input: {}, tool: { type: "zz" }, data: "x", source: null },
      ];
      for (const block of shapes) {
        const messages = [
          user(block, text("Hi")),
          assistant(block),
          system(block),
          user(text("Hi")),
        ];
        const response = await post({ ...QUESTION, messages });
        expect(response.headers.get("x-omlx-warnings")).toContain("messages[0].content[0]");
        await expectAnswer(response, block);
      }
      await expectServing();
    });
  }

  test("fields, tools, betas and parameters of the address are taken", async () => {
    const body = {
      ...QUESTION,
      zz_field: { a: 1 },
      mcp_servers: [],
      thinking: { type: "between_tools" },
      tools: [
        TOOL,
        { type: "zz_tool_20300101", name: "zz" },
        { type: "tool_search_tool_bm25_20251119" },
      ],
    };
    const headers = { "anthropic-beta": "a,b,zz-unknown", "x-zz": "1" };
    const response = await post(body, headers, "/v1/messages?beta=true&zz=1");
    const warnings = response.headers.get("x-omlx-warnings");
    expect(warnings?.split("; ")[0]).toBe("ignored: zz_field, mcp_servers, tools[1], tools[2]");
    await expectAnswer(response, body);
    await expectServing();
  });

  test("__proto__ keys pollute nothing", async () => {
    const body = `{"model":"${MODEL}","max_tokens":64,"__proto__":{"polluted":1},"metadata":{"__proto__":{"polluted":1}},
      "tools":[{"name":"f","__proto__":{"type":"x"},"input_schema":{"__proto__":{"polluted":1}}}],
      "chat_template_kwargs":{"constructor":{"a":1}},"messages":[{"role":"user","content":"Hi","__proto__":{"role":"x"}}]}`;
    await expectAnswer(await post(body), body);
    await expectServing();
  });
});

describe("bad requests", () => {
  const deep = (n: number) => "[".repeat(n) + "]".repeat(n);
  const cases: [string, unknown, number, RegExp][] = [
    ["an empty body", "", 400, /JSON/],
    ["no JSON", "{'a':1}", 400, /line 1, column 2/],
    ["nested brackets", `{"messages":${deep(5000)}}`, 400, /200 levels/],
    ["a large body", JSON.stringify("x".repeat(2_000_001)), 413, /larger/],
    ["a list", [], 400, /expected object/],
    ["no max_tokens", { ...QUESTION, max_tokens: undefined }, 400, /max_tokens/],
    ["max_tokens null", { ...QUESTION, max_tokens: null }, 400, /max_tokens/],
    ["max_tokens below 1", { ...QUESTION, max_tokens: 0 }, 400, /max_tokens/],
    ["no messages", { ...QUESTION, messages: [] }, 400, /messages/],
    ["messages that are text", { ...QUESTION, messages: "x" }, 400, /messages/],
    ["a message that is null", { ...QUESTION, messages: [null] }, 400, /messages\[0\]/],
    ["a message without role", { ...QUESTION, messages: [{ content: "x" }] }, 400, /role/],
    ["a block without type", { ...QUESTION, messages: [user({})] }, 400, /content/],
    ["nested blocks", { ...QUESTION, messages: [user([[text("x")]])] }, 400, /content/],
    ["a temperature of 3", { ...QUESTION, temperature: 3 }, 400, /temperature/],
    ["a forced call without tools", { ...QUESTION, tool_choice: { type: "any" } }, 400, /tool/],
    [
      "a forced call of an unknown tool",
      { ...QUESTION, tools: [TOOL], tool_choice: { type: "tool", name: "g" } },
      400,
      /"g"/,
    ],
    ["an unknown model", { ...QUESTION, model: "../../etc/passwd" }, 404, /scripted/],
  ];
  for (const [name, body, status, words] of cases) {
    test(`${name}: refused with ${status}, streamed or not, and the server goes on`, async () => {
      const bodies =
        typeof body === "object" && !Array.isArray(body)
          ? [body, { ...body, stream: true }]
          : [body];
      for (const one of bodies) {
        expect((await expectFailure(await post(one), status)).message).toMatch(words);
      }
      await expectServing();
    });
  }
});

describe("an agent's requests", () => {
  const send = (body: object) => post(body, AGENT_HEADERS, "/v1/messages?beta=true");
  const usageOf = (events: Awaited<ReturnType<typeof streamed>>) => {
    const start = events.find((event) => event.type === "message_start");
    if (start === undefined) throw new Error("no message_start");
    const { input_tokens, cache_creation_input_tokens, cache_read_input_tokens } =
      start.message.usage;
    const total = input_tokens + cache_creation_input_tokens + cache_read_input_tokens;
    return { total, read: cache_read_input_tokens };
  };

  test("end in order, and their next turn finds the first one's prompt in the cache", async () => {
    const response = await send(agentBody({ model: MODEL, cch: "11111" }));
    expect(response.headers.get("x-omlx-warnings")?.split("; ")[0]).toBe("ignored: tools[5]");
    const first = await streamed(response);
    expect(first.at(-2)).toMatchObject({ delta: { stop_reason: "end_turn" } });
    expect(first.at(-1)?.type).toBe("message_stop");

    const same = usageOf(await streamed(await send(agentBody({ model: MODEL, cch: "22222" }))));
    expect(same.total).toBe(usageOf(first).total);
    expect(same.read).toBeGreaterThanOrEqual(0.95 * same.total);

    const history = agentHistory();
    const next = await streamed(await send(agentBody({ model: MODEL, cch: "33333", history })));
    expect(usageOf(next).read).toBeGreaterThanOrEqual(0.95 * usageOf(first).total);
    expect(next.at(-1)?.type).toBe("message_stop");
    await expectServing();
  });

  test("are counted as they are used", async () => {
    const {
      stream: _,
      max_tokens: __,
      ...prompt
    } = agentBody({
      model: MODEL,
      cch: "44444",
      history: agentHistory(),
    });
    const counted = await post(prompt, AGENT_HEADERS, "/v1/messages/count_tokens?beta=true");
    const used = usageOf(
      await streamed(await send(agentBody({ model: MODEL, cch: "5", history: agentHistory() }))),
    );
    expect(await counted.json()).toEqual({ input_tokens: used.total });
  });

  test("in the background are answered like others", async () => {
    const body = { ...agentBody({ model: MODEL, cch: "6" }), stream: false };
    const response = await post(body, { ...AGENT_HEADERS, "x-app": "cli-bg" });
    await expectAnswer(response, "background");
  });
});
