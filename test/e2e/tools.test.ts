import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import OpenAI from "openai";
import {
  type ExpectedCall,
  expectedTurn,
  FAMILIES,
  RECORDED,
  renderedTurn,
  TOOLS,
} from "../helpers/dialects.ts";
import { writeScriptedModel } from "../helpers/scripted-model.ts";
import { startServer, type TestServer } from "../helpers/server.ts";

interface Case {
  readonly model: string;
  readonly template: string;
  readonly tokens: readonly string[];
  readonly output: string;
  readonly text: string;
  readonly reasoning: string;
  readonly calls: readonly ExpectedCall[];
}

const slug = (name: string) => name.toLowerCase().replace(/[^a-z0-9]+/g, "-");

const RENDERED: readonly Case[] = FAMILIES.map((family) => ({
  model: slug(family.name),
  template: family.template,
  tokens: family.tokens,
  ...renderedTurn(family),
  ...expectedTurn(family),
}));

/** Odd forms that matter most. */
const ODD = [
  "broken JSON is text",
  "a call within thoughts that were not ended",
  "thoughts, a preamble and a call",
];
const CASES: readonly Case[] = [
  ...RENDERED,
  ...RECORDED.filter(({ name }) => ODD.includes(name)).map((recorded) => {
    const family = FAMILIES.find(({ name }) => name === recorded.family);
    return {
      model: slug(recorded.name),
      template: family?.template ?? "",
      tokens: family?.tokens ?? [],
      output: recorded.output,
      text: recorded.text ?? "",
      reasoning: recorded.reasoning ?? "",
      calls: recorded.calls ?? [],
    };
  }),
];

const tools: OpenAI.Chat.ChatCompletionTool[] = TOOLS.map((tool) => ({
  type: "function",
  function: {
    name: tool.name,
    description: tool.description ?? "",
    parameters: tool.parameters as Record<string, unknown>,
  },
}));

/** A script says every token once, and no single byte between them: what cannot be a token is spelled out. */
function scriptable(tokens: readonly string[], output: string): readonly string[] {
  const kept: string[] = [];
  let parts = [output];
  for (const token of tokens) {
    const finer = parts.flatMap((part) => part.split(token));
    if (finer.length !== parts.length + 1 || finer.some((part) => part.length === 1)) continue;
    kept.push(token);
    parts = finer;
  }
  return kept;
}

const root = mkdtempSync(join(tmpdir(), "omlx-tools-"));
let server: TestServer;
let client: OpenAI;

beforeAll(async () => {
  for (const { model, template, tokens, output } of CASES) {
    await writeScriptedModel(join(root, model), {
      text: output,
      window: 8192,
      template,
      specials: ["<|endoftext|>", "<|im_start|>", "<|im_end|>", ...scriptable(tokens, output)],
    });
  }
  server = await startServer({ modelDirs: [root] });
  client = new OpenAI({ baseURL: server.baseURL, apiKey: "none", maxRetries: 0 });
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(root, { recursive: true, force: true });
});

const ask = (model: string): OpenAI.Chat.ChatCompletionCreateParamsNonStreaming => ({
  model,
  messages: [{ role: "user", content: "Weather, please." }],
  tools,
});

interface Answer {
  readonly text: string | null;
  readonly reasoning: string;
  readonly calls: readonly { readonly name: string; readonly arguments: unknown }[];
  readonly finish: string | null;
  readonly usage: OpenAI.CompletionUsage | undefined;
}

function answerOf(message: OpenAI.Chat.ChatCompletionMessage) {
  return {
    text: message.content,
    reasoning: (message as { reasoning_content?: string }).reasoning_content ?? "",
    calls: (message.tool_calls ?? []).map((call) => {
      if (call.type !== "function") throw new Error("no function call");
      expect(call.id).toMatch(/^call_[0-9a-f]{24}$/);
      return { name: call.function.name, arguments: JSON.parse(call.function.arguments) };
    }),
  };
}

async function whole(model: string): Promise<Answer> {
  const { choices, usage } = await client.chat.completions.create(ask(model));
  const [choice] = choices;
  if (choice === undefined) throw new Error("no choice");
  return { ...answerOf(choice.message), finish: choice.finish_reason, usage };
}

/** The same through the SDK's own fold of the stream. */
async function streamed(model: string): Promise<Answer & { readonly numDeltas: number }> {
  const runner = client.chat.completions.stream({
    ...ask(model),
    stream: true,
    stream_options: { include_usage: true },
  });
  let reasoning = "";
  let numDeltas = 0;
  runner.on("chunk", ({ choices }) => {
    const delta = choices[0]?.delta as
      | { reasoning_content?: string; tool_calls?: readonly unknown[] }
      | undefined;
    reasoning += delta?.reasoning_content ?? "";
    numDeltas += delta?.tool_calls?.length ?? 0;
  });
  const { choices, usage } = await runner.finalChatCompletion();
  const [choice] = choices;
  if (choice === undefined) throw new Error("no choice");
  const answer = answerOf(choice.message);
  return { ...answer, reasoning, finish: choice.finish_reason, usage, numDeltas };
}

/** Text, thoughts and calls, as another route tells them. */
type Told = Pick<Answer, "reasoning" | "calls"> & { readonly text: string };

async function post(path: string, body: object): Promise<Response> {
  const response = await fetch(`${server.baseURL}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  expect(response.status).toBe(200);
  return response;
}

async function eventsOf(response: Response): Promise<Record<string, unknown>[]> {
  const lines = (await response.text()).split("\n").filter((line) => line.startsWith("data: {"));
  return lines.map((line) => JSON.parse(line.slice("data: ".length)));
}

const MESSAGES = (model: string) => ({
  model,
  max_tokens: 4096,
  messages: [{ role: "user", content: "Weather, please." }],
  tools: TOOLS.map(({ name, description, parameters }) => ({
    name,
    description,
    input_schema: parameters,
  })),
});

type Block = { type: string; text: string; thinking: string; name: string; input: unknown };

const toldByBlocks = (blocks: readonly Block[]): Told => ({
  text: blocks.map((block) => (block.type === "text" ? block.text : "")).join(""),
  reasoning: blocks.map((block) => (block.type === "thinking" ? block.thinking : "")).join(""),
  calls: blocks
    .filter((block) => block.type === "tool_use")
    .map(({ name, input }) => ({ name, arguments: input })),
});

async function messagesTold(model: string): Promise<Told[]> {
  const message = (await (await post("/messages", MESSAGES(model))).json()) as { content: Block[] };
  const events = await eventsOf(await post("/messages", { ...MESSAGES(model), stream: true }));
  const blocks: (Block & { json: string })[] = [];
  for (const event of events) {
    if (event["type"] === "content_block_start") {
      blocks.push({ ...(event["content_block"] as Block), json: "" });
    }
    const { delta } = event as { delta?: Partial<Block> & { partial_json?: string } };
    const open = blocks.at(-1);
    if (event["type"] !== "content_block_delta" || open === undefined) continue;
    open.text += delta?.text ?? "";
    open.thinking += delta?.thinking ?? "";
    open.json += delta?.partial_json ?? "";
  }
  const whole = blocks.map((block) => ({ ...block, input: JSON.parse(block.json || "{}") }));
  return [toldByBlocks(message.content), toldByBlocks(whole)];
}

type Item = {
  type: string;
  summary?: { text: string }[];
  content?: { text: string }[];
  name: string;
  arguments: string;
};

const textsOf = (parts: readonly { text: string }[] = []) =>
  parts.map((part) => part.text).join("");

const toldByItems = (items: readonly Item[]): Told => ({
  text: items.map((item) => (item.type === "message" ? textsOf(item.content) : "")).join(""),
  reasoning: items.map((item) => (item.type === "reasoning" ? textsOf(item.summary) : "")).join(""),
  calls: items
    .filter((item) => item.type === "function_call")
    .map((item) => ({ name: item.name, arguments: JSON.parse(item.arguments) })),
});

async function responsesTold(model: string): Promise<Told[]> {
  const body = {
    model,
    input: "Weather, please.",
    tools: TOOLS.map((tool) => ({ type: "function", ...tool })),
  };
  const whole = (await (await post("/responses", body)).json()) as { output: Item[] };
  const events = await eventsOf(await post("/responses", { ...body, stream: true }));
  const done = events.filter((event) => event["type"] === "response.output_item.done");
  const deltas = events
    .filter((event) => event["type"] === "response.output_text.delta")
    .map((event) => event["delta"])
    .join("");
  const streamed = toldByItems(done.map((event) => event["item"] as Item));
  expect(deltas).toBe(streamed.text);
  return [toldByItems(whole.output), streamed];
}

describe.each(CASES)("$model", ({ model, text, reasoning, calls }) => {
  test("gives text, thoughts and calls, whole and streamed", async () => {
    const first = await whole(model);
    expect(first).toMatchObject({
      text: text === "" && calls.length > 0 ? null : text,
      reasoning,
      calls,
      finish: calls.length > 0 ? "tool_calls" : "stop",
    });
    const { completion_tokens_details: details } = first.usage ?? {};
    expect((details?.reasoning_tokens ?? 0) > 0).toBe(reasoning !== "" || model === "gpt-oss");
    const { numDeltas, ...second } = await streamed(model);
    expect({ ...second, text: second.text ?? "", usage: second.usage?.completion_tokens }).toEqual({
      ...first,
      text,
      usage: first.usage?.completion_tokens,
    });
    // arguments come as they are generated
    if (calls.length > 1) expect(numDeltas).toBeGreaterThan(2 * calls.length);
  });

  test("gives the same on the Messages and Responses routes, whole and streamed", async () => {
    const all = [...(await messagesTold(model)), ...(await responsesTold(model))];
    for (const told of all) expect(told).toEqual({ text, reasoning, calls: [...calls] });
  });
});

function callArguments(message: OpenAI.Chat.ChatCompletionMessage | undefined): string {
  const call = message?.tool_calls?.[0];
  return call?.type === "function" ? call.function.arguments : "";
}

describe("tool calls", () => {
  test("a call that the length limit cuts off is not presented as complete", async () => {
    const { choices } = await client.chat.completions.create({ ...ask("qwen-3"), max_tokens: 30 });
    expect(choices[0]?.finish_reason).toBe("length");
    expect(choices[0]?.message.tool_calls).toHaveLength(1);
    expect(JSON.parse(callArguments(choices[0]?.message))).toMatchObject({ days: 3 });
  });

  test("parallel_tool_calls: false ends after the first call", async () => {
    const { choices } = await client.chat.completions.create({
      ...ask("qwen-3"),
      parallel_tool_calls: false,
    });
    expect(choices[0]?.message.tool_calls).toHaveLength(1);
    expect(choices[0]?.finish_reason).toBe("tool_calls");
  });

  test('tool_choice: "none" hides the tools and leaves the markup alone', async () => {
    const [hidden, shown] = await Promise.all([
      client.chat.completions.create({ ...ask("qwen-3"), tool_choice: "none" }),
      client.chat.completions.create(ask("qwen-3")),
    ]);
    expect(hidden.choices[0]?.message.tool_calls).toBeUndefined();
    expect(hidden.choices[0]?.message.content).toContain("<tool_call>");
    expect(hidden.usage?.prompt_tokens).toBeLessThan((shown.usage?.prompt_tokens ?? 0) - 300);
  });

  test('tool_parser: "none" leaves calls in the text', async () => {
    const params = { ...ask("qwen-3"), tool_parser: "none" };
    const { choices } = await client.chat.completions.create(params);
    expect(choices[0]?.message.content).toContain('<tool_call>\n{"name": "get_weather"');
    expect(choices[0]?.finish_reason).toBe("stop");
  });

  test("old clients get a function call", async () => {
    const functions = tools.map((tool) =>
      tool.type === "function" ? tool.function : { name: "" },
    );
    const { choices } = await client.chat.completions.create({
      model: "qwen-3",
      messages: [{ role: "user", content: "Weather?" }],
      functions,
    });
    expect(choices[0]?.finish_reason).toBe("function_call");
    expect(choices[0]?.message.function_call?.name).toBe("get_weather");
  });

  test("a conversation with calls and their results goes on from the tokens that were generated", async () => {
    const first = await client.chat.completions.create(ask("qwen-3"));
    const message = first.choices[0]?.message;
    if (message === undefined) throw new Error("no message");
    const second = await client.chat.completions.create({
      ...ask("qwen-3"),
      messages: [
        { role: "user", content: "Weather, please." },
        message,
        ...(message.tool_calls ?? []).map((call) => ({
          role: "tool" as const,
          tool_call_id: call.id,
          content: "22 degrees",
        })),
      ],
    });
    // the tokenizer would cut the model's own words in another way than the model did
    const { prompt_tokens = 0, completion_tokens = 0 } = first.usage ?? {};
    const cached = second.usage?.prompt_tokens_details?.cached_tokens ?? 0;
    expect(cached).toBeGreaterThan(prompt_tokens + completion_tokens - 64);
    expect(cached).toBeGreaterThan(prompt_tokens);
    expect(second.choices[0]?.message.tool_calls).toHaveLength(2);
  });
});
