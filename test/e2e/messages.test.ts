import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Anthropic, { APIError } from "@anthropic-ai/sdk";
import { errorBody, message, messageEvent } from "../../src/front/api/anthropic/answers.ts";
import { runPython } from "../helpers/python.ts";
import { callingScript, writeScriptedModel } from "../helpers/scripted-model.ts";
import { DEFAULT_MODEL, DEFAULT_MODELS, startServer, type TestServer } from "../helpers/server.ts";

/** Weights without any meaning. */
const RANDOM_MODELS = join(import.meta.dir, "..", "fixtures", "models");
const RANDOM = "qwen3-4bit";

/** The SDK's newest types have no sampling parameters any more; its older ones and other clients do. */
type Sampling = { temperature?: number; top_p?: number; top_k?: number };
type Params = Anthropic.MessageCreateParamsNonStreaming & Sampling;

let server: TestServer;
let client: Anthropic;

beforeAll(async () => {
  server = await startServer({
    modelDirs: [DEFAULT_MODELS],
    args: ["--context-window", "2048", "--model-fallback", "on"],
  });
  client = new Anthropic({ baseURL: server.origin, apiKey: "none", maxRetries: 0 });
});
afterAll(() => server[Symbol.asyncDispose]());

const ask = (content: Anthropic.MessageParam["content"], params: Partial<Params> = {}): Params => ({
  model: DEFAULT_MODEL,
  messages: [{ role: "user", content }],
  temperature: 0,
  max_tokens: 32,
  ...params,
});

const FRANCE = ask("What is the capital of France?");

function post(body: object, headers: Record<string, string> = {}, path = "/v1/messages") {
  return fetch(server.origin + path, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
}

/** The events of a stream as [name, data], held to their schema and to their form on the wire. */
async function eventsOf(response: Response) {
  expect(response.headers.get("content-type")).toBe("text/event-stream");
  const frames = (await response.text()).split("\n\n");
  expect(frames.pop()).toBe("");
  return frames.map((frame) => {
    const [, name = "", json = ""] = /^event: (\w+)\ndata: (.*)$/.exec(frame) ?? [];
    const event = messageEvent.parse(JSON.parse(json));
    expect(event.type).toBe(name as typeof event.type);
    return event;
  });
}

const textOf = ({ content }: Anthropic.Message): string =>
  content.map((block) => (block.type === "text" ? block.text : "")).join("");

/** What must hold after every odd request. */
async function expectServing(): Promise<void> {
  expect((await fetch(`${server.origin}/health`)).status).toBe(200);
  const answer = await client.messages.create({ ...FRANCE, max_tokens: 2 });
  expect(textOf(answer)).toBe("The capital");
}

describe("POST /v1/messages", () => {
  test("answers that the capital of France is Paris, in exactly Anthropic's fields", async () => {
    const response = await post(FRANCE);
    const answer = message.parse(await response.json());
    expect(answer).toMatchObject({
      model: DEFAULT_MODEL,
      content: [{ type: "text", text: "The capital of France is Paris." }],
      stop_reason: "end_turn",
      stop_sequence: null,
    });
    expect(answer.id).toMatch(/^msg_[0-9a-f]{24}$/);
    expect(response.headers.get("request-id")).toBe(answer.id.replace("msg", "req"));
    expect(response.headers.get("x-omlx-warnings")).toBeNull();
  });

  test("streams exactly Anthropic's events, and the same answer", async () => {
    const events = await eventsOf(await post({ ...FRANCE, stream: true }));
    const all = events.map((event) => event.type);
    const types = all.slice(all.indexOf("message_start")); // a slow machine pings before
    const deltas = types.filter((type) => type === "content_block_delta");
    expect(deltas.length).toBeGreaterThan(3);
    expect(types).toEqual([
      "message_start",
      "ping",
      "content_block_start",
      ...deltas,
      "content_block_stop",
      "message_delta",
      "message_stop",
    ]);
    const whole = await client.messages.create(FRANCE);
    const final = await client.messages.stream(FRANCE).finalMessage();
    expect(textOf(final)).toBe(textOf(whole));
    expect(final.stop_reason).toBe(whole.stop_reason);
    expect(final.usage.output_tokens).toBe(whole.usage.output_tokens);
    expect(await client.messages.stream(FRANCE).finalText()).toBe(textOf(whole));
  });

  const variants: [string, Partial<Params>][] = [
    ["greedy", {}],
    ["cut by length", { max_tokens: 5 }],
    ["cut by a stop sequence", { stop_sequences: ["nce is P", "zzz"] }],
    ["with a system prompt", { system: "Answer in French." }],
    ["at top_k 1", { temperature: 1, top_k: 1 }],
    ["at top_p 0", { temperature: 1, top_p: 0 }],
  ];
  for (const [name, params] of variants) {
    test(`answers the same streamed and whole, ${name}`, async () => {
      const whole = await client.messages.create({ ...FRANCE, ...params });
      const streamed = await client.messages.stream({ ...FRANCE, ...params }).finalMessage();
      expect(textOf(streamed)).toBe(textOf(whole));
      expect(streamed.stop_reason).toBe(whole.stop_reason);
      expect(streamed.stop_sequence).toBe(whole.stop_sequence);
      const { input_tokens, cache_read_input_tokens, output_tokens } = streamed.usage;
      expect(output_tokens).toBe(whole.usage.output_tokens);
      expect(input_tokens + (cache_read_input_tokens ?? 0)).toBe(
        whole.usage.input_tokens + (whole.usage.cache_read_input_tokens ?? 0),
      );
    });
  }

  test("ends before a stop sequence and names it", async () => {
    const params = { ...FRANCE, stop_sequences: ["zzz", "ance is P"] };
    const answer = await client.messages.create(params);
    expect(textOf(answer)).toBe("The capital of Fr");
    expect([answer.stop_reason, answer.stop_sequence]).toEqual(["stop_sequence", "ance is P"]);
    const short = await client.messages.create({ ...FRANCE, max_tokens: 3 });
    expect([short.stop_reason, short.usage.output_tokens]).toEqual(["max_tokens", 3]);
  });

  test("continues an answer that the last message begins", async () => {
    const messages: Params["messages"] = [
      ...FRANCE.messages,
      { role: "assistant", content: "The capital of France" },
    ];
    expect(textOf(await client.messages.create({ ...FRANCE, messages }))).toBe(" is Paris.");
  });

  test("takes a max_tokens beyond any window", async () => {
    const response = await post({ ...FRANCE, max_tokens: 1e9 });
    const { content } = message.parse(await response.json());
    expect(content).toMatchObject([{ text: "The capital of France is Paris." }]);
  });

  test("refuses a prompt beyond the window with both numbers, streamed or not", async () => {
    const long = ask("word ".repeat(3000));
    const { input_tokens } = await client.messages.countTokens(
      ask(long.messages[0]?.content ?? ""),
    );
    for (const stream of [false, true]) {
      const response = await post({ ...long, stream });
      expect(response.status).toBe(400);
      expect(errorBody.parse(await response.json()).error).toEqual({
        type: "invalid_request_error",
        message: `prompt is too long: ${input_tokens} tokens > 2048 maximum`,
      });
    }
    await expectServing();
  });

  test("pings while a client waits, also before the answer begins", async () => {
    const slow = await startServer({
      modelDirs: [DEFAULT_MODELS],
      args: ["--keep-alive-ms", "20", "--max-concurrent-requests", "1"],
    });
    try {
      const send = (params: object) =>
        fetch(`${slow.origin}/v1/messages`, {
          method: "POST",
          body: JSON.stringify({ ...FRANCE, stream: true, ...params }),
        });
      const first = await send({ max_tokens: 60, messages: ask("Tell a long story.").messages });
      const second = await send({});
      await first.text();
      const types = (await eventsOf(second)).map((event) => event.type);
      expect(types[0]).toBe("ping");
      expect(types.indexOf("message_start")).toBeGreaterThan(1);
      expect(types.at(-1)).toBe("message_stop");
    } finally {
      await slow[Symbol.asyncDispose]();
    }
  });

  test("the SDK reads errors, ids and names of models as it does from Anthropic", async () => {
    const error = await client.messages
      .create({ ...FRANCE, messages: [] })
      .catch((cause: unknown) => cause);
    if (!(error instanceof APIError)) throw new Error("no APIError");
    expect(error.status).toBe(400);
    expect(error.type).toBe("invalid_request_error");
    expect(error.requestID).toMatch(/^req_/);
    const { data, response, request_id } = await client.messages.create(FRANCE).withResponse();
    expect(request_id).toBe(response.headers.get("request-id") ?? "");
    expect(data.model).toBe(DEFAULT_MODEL);
  });

  test("finds models by agents' spellings, and lets the loaded one answer for others", async () => {
    for (const model of [`${DEFAULT_MODEL}[1m]`, `anthropic/${DEFAULT_MODEL.toLowerCase()}`]) {
      const response = await post({ ...FRANCE, model });
      expect(((await response.json()) as { model: string }).model).toBe(model);
      expect(response.headers.get("x-omlx-warnings")).toBeNull();
    }
    const other = await post({ ...FRANCE, model: "claude-haiku-4-5" });
    expect(other.status).toBe(200);
    expect(other.headers.get("x-omlx-warnings")).toContain(`"${DEFAULT_MODEL}" answers`);
    expect(((await other.json()) as { model: string }).model).toBe("claude-haiku-4-5");
  });
});

describe("token counts", () => {
  const parts = (usage: Anthropic.Usage | Anthropic.MessageDeltaUsage) => [
    usage.input_tokens ?? 0,
    usage.cache_creation_input_tokens ?? 0,
    usage.cache_read_input_tokens ?? 0,
  ];
  const sum = (numbers: number[]) => numbers.reduce((a, b) => a + b);

  const prompts: [string, Params][] = [
    ["text", FRANCE],
    ["a system prompt", { ...FRANCE, system: [{ type: "text", text: "Be brief." }] }],
    [
      "a conversation with odd parts",
      {
        ...FRANCE,
        system: "x-anthropic-billing-header: cch=1;\nBe brief.",
        messages: [
          { role: "user", content: "Hi <|im_end|>" },
          { role: "assistant", content: [{ type: "text", text: "Hello!" }] },
          {
            role: "user",
            content: [
              { type: "text", text: "Read this:" },
              {
                type: "document",
                source: { type: "text", media_type: "text/plain", data: "東京 🌸" },
              },
            ],
          },
        ],
      },
    ],
    [
      "marks for the cache",
      ask([{ type: "text", text: "Hello there", cache_control: { type: "ephemeral" } }]),
    ],
  ];
  for (const [name, params] of prompts) {
    test(`count_tokens tells what an answer then uses: ${name}`, async () => {
      const { max_tokens: _, temperature: __, ...prompt } = params;
      const { input_tokens } = await client.messages.countTokens(prompt);
      const whole = await client.messages.create({ ...params, max_tokens: 2 });
      expect(sum(parts(whole.usage))).toBe(input_tokens);
      const events = await eventsOf(await post({ ...params, max_tokens: 2, stream: true }));
      const usages = events.flatMap((event) => {
        if (event.type === "message_start") return [event.message.usage];
        return event.type === "message_delta" ? [event.usage] : [];
      });
      expect(usages).toHaveLength(2);
      for (const usage of usages) {
        expect(sum(parts(usage))).toBe(input_tokens);
        expect(parts(usage)).toEqual(parts(usages[0] as Anthropic.Usage));
      }
    });
  }

  test("the next turn reads the first one's prompt from the cache", async () => {
    const system = "You are a careful assistant. ".repeat(30);
    const first = await client.messages.create({ ...FRANCE, system });
    const total = sum(parts(first.usage));
    const next = await client.messages.create({
      ...FRANCE,
      system,
      messages: [
        ...FRANCE.messages,
        { role: "assistant", content: first.content },
        { role: "user", content: "And of Spain?" },
      ],
    });
    expect(next.usage.cache_read_input_tokens).toBeGreaterThanOrEqual(0.95 * total);
    expect(sum(parts(next.usage))).toBeGreaterThan(total);
  });

  test("requests that differ in their billing line alone share their cache", async () => {
    const system = (cch: string): Anthropic.TextBlockParam[] => [
      { type: "text", text: `x-anthropic-billing-header: cc_version=2.1; cch=${cch};` },
      { type: "text", text: "You answer questions about cities. ".repeat(100) },
    ];
    const first = await client.messages.create({ ...FRANCE, system: system("00000") });
    const second = await client.messages.create({ ...FRANCE, system: system("fffff") });
    const total = sum(parts(first.usage));
    expect(sum(parts(second.usage))).toBe(total);
    expect(second.usage.cache_read_input_tokens).toBeGreaterThanOrEqual(0.95 * total);
    expect(second.content).toEqual(first.content);
  });
});

describe("tools", () => {
  const CALL = '{"name": "turn", "arguments": {"text": "abc"}}';
  const THOUGHT = "There it is.";
  let models: string;
  let caller: TestServer;
  let sdk: Anthropic;

  beforeAll(async () => {
    models = mkdtempSync(join(tmpdir(), "omlx-messages-"));
    const script = callingScript("I turn it.", CALL, "It is cba now.");
    await writeScriptedModel(join(models, "caller"), { ...script, window: 8192 });
    await writeScriptedModel(join(models, "thinker"), {
      text: `<think>One moment, please.</think>${THOUGHT}`,
    });
    caller = await startServer({ modelDirs: [models, RANDOM_MODELS] });
    sdk = new Anthropic({ baseURL: caller.origin, apiKey: "none", maxRetries: 0 });
  });
  afterAll(async () => {
    await caller[Symbol.asyncDispose]();
    rmSync(models, { recursive: true, force: true });
  });

  const input_schema = {
    type: "object" as const,
    properties: { text: { type: "string" } },
    required: ["text"],
  };
  const question: Anthropic.MessageCreateParamsNonStreaming = {
    model: "caller",
    max_tokens: 200,
    messages: [{ role: "user", content: "Turn abc around." }],
    tools: [{ name: "turn", description: "Turns a text around", input_schema }],
  };

  test("a call is a block of its own, with the same input streamed and whole", async () => {
    const whole = await sdk.messages.create(question);
    expect(whole.stop_reason).toBe("tool_use");
    expect(whole.content.map((block) => block.type)).toEqual(["text", "tool_use"]);
    expect(whole.content[1]).toMatchObject({ name: "turn", input: { text: "abc" } });
    const streamed = await sdk.messages.stream(question).finalMessage();
    expect(streamed.stop_reason).toBe("tool_use");
    expect(textOf(streamed)).toBe(textOf(whole));
    expect(streamed.content[1]).toMatchObject({ name: "turn", input: { text: "abc" } });
  });

  test("a call that was cut off is never closed", async () => {
    const cut = { ...question, max_tokens: 8 };
    const whole = await sdk.messages.create(cut);
    expect(whole.stop_reason).toBe("max_tokens");
    expect(whole.content.map((block) => block.type)).toEqual(["text"]);
    const response = await fetch(`${caller.origin}/v1/messages`, {
      method: "POST",
      body: JSON.stringify({ ...cut, stream: true }),
    });
    const events = await eventsOf(response);
    const opened = events.flatMap((e) => (e.type === "content_block_start" ? [e.index] : []));
    const closed = events.flatMap((e) => (e.type === "content_block_stop" ? [e.index] : []));
    expect(closed).toEqual(opened.slice(0, 1));
  });

  test("a call that is demanded comes, with valid input, even from random weights", async () => {
    const properties = { text: { enum: ["abc", "def"] }, times: { type: "integer", maximum: 9 } };
    const schema = { type: "object" as const, properties, required: ["text", "times"] };
    const demand = {
      ...question,
      model: RANDOM,
      tools: [
        { name: "turn", input_schema: { ...schema, additionalProperties: false } },
        { name: "other", input_schema },
      ],
      tool_choice: { type: "tool" as const, name: "turn" },
    };
    for (const answer of [
      await sdk.messages.create(demand),
      await sdk.messages.stream(demand).finalMessage(),
    ]) {
      const [call] = answer.content;
      if (call?.type !== "tool_use") throw new Error(JSON.stringify(answer.content));
      expect([answer.stop_reason, call.name]).toEqual(["tool_use", "turn"]);
      const { text, times } = call.input as Record<string, unknown>;
      expect(["abc", "def"]).toContain(text as string);
      expect(times).toBeNumber();
    }
    const any = { ...demand, tool_choice: { type: "any" as const } };
    const { content } = await sdk.messages.create({ ...any, tools: demand.tools.slice(0, 1) });
    expect(content[0]).toMatchObject({ type: "tool_use", name: "turn" });
  });

  test("thoughts are a block of their own, and travel in their signature where they are hidden", async () => {
    const ask = { ...question, model: "thinker", tools: [] };
    for (const stream of [false, true]) {
      const get = (params: Anthropic.MessageCreateParamsNonStreaming) =>
        stream ? sdk.messages.stream(params).finalMessage() : sdk.messages.create(params);
      const [shown, answer] = (await get(ask)).content;
      if (shown?.type !== "thinking") throw new Error("no thoughts");
      expect([shown.thinking, answer]).toMatchObject(["One moment, please.", { text: THOUGHT }]);
      const hidden = await get({ ...ask, thinking: { type: "adaptive", display: "omitted" } });
      const [block] = hidden.content;
      if (block?.type !== "thinking") throw new Error("no hidden thoughts");
      expect(block.thinking).toBe("");
      expect(textOf(hidden)).toBe(THOUGHT);
      const count = async (thoughts: Anthropic.ContentBlockParam) => {
        const turn = { role: "assistant" as const, content: [thoughts] };
        const messages = [...ask.messages, turn, ...ask.messages];
        return (await sdk.messages.countTokens({ model: "thinker", messages })).input_tokens;
      };
      expect(await count(block)).toBe(await count(shown));
      expect(hidden.usage.output_tokens_details?.thinking_tokens).toBeGreaterThan(0);
    }
  });

  test("a format is kept, even by random weights", async () => {
    const schema = {
      type: "object",
      properties: { color: { enum: ["red", "green"] }, dark: { type: "boolean" } },
      required: ["color", "dark"],
      additionalProperties: false,
    };
    const answer = await sdk.messages.create({
      model: RANDOM,
      max_tokens: 200,
      messages: question.messages,
      output_config: { format: { type: "json_schema", schema } },
    });
    const { color, dark } = JSON.parse(textOf(answer));
    expect(["red", "green"]).toContain(color);
    expect(dark).toBeBoolean();
  });

  test("the SDK's tool runner runs the call and ends with the answer", async () => {
    const calls: unknown[] = [];
    const turn = {
      name: "turn",
      description: "Turns a text around",
      input_schema,
      run: (input: unknown) => {
        calls.push(input);
        return "cba";
      },
      parse: (input: unknown) => input,
    };
    for (const stream of [false, true]) {
      const { tools: _, ...rest } = question;
      const runner = sdk.beta.messages.toolRunner({ ...rest, tools: [turn], stream });
      const final = await runner.runUntilDone();
      expect(final.content).toMatchObject([{ type: "text", text: "It is cba now." }]);
      expect(final.stop_reason).toBe("end_turn");
    }
    expect(calls).toEqual([{ text: "abc" }, { text: "abc" }]);
  });

  test("the tool runner of the anthropic package from PyPI does so, too", async () => {
    expect(await runPython("anthropic_tools.py", caller, ["caller"])).toBe("done\n");
  });

  test("the next turn finds prompt and call in the cache", async () => {
    const system = "You turn texts around, and nothing else. ".repeat(40);
    const first = await sdk.messages.create({ ...question, system });
    const [, call] = first.content;
    if (call?.type !== "tool_use") throw new Error("no call");
    const next = await sdk.messages.create({
      ...question,
      system,
      messages: [
        ...question.messages,
        { role: "assistant", content: first.content },
        {
          role: "user",
          content: [{ type: "tool_result", tool_use_id: call.id, content: "cba" }],
        },
      ],
    });
    const { input_tokens, cache_read_input_tokens } = first.usage;
    const total = input_tokens + (cache_read_input_tokens ?? 0);
    expect(next.usage.cache_read_input_tokens).toBeGreaterThanOrEqual(0.95 * total);
    expect(textOf(next)).toBe("It is cba now.");
  });
});

test("the anthropic package from PyPI chats, streams and counts", async () => {
  const out = await runPython("anthropic_sdk.py", server, [DEFAULT_MODEL]);
  expect(out.trim().split("\n")).toEqual(["chat", "stream", "count", "models", "errors"]);
});
