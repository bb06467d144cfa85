/** Demanded calls and formats, held by a model with random weights: what is right here is right by force. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { FAMILIES } from "../helpers/dialects.ts";
import { startServer, type TestServer } from "../helpers/server.ts";

type Params = OpenAI.Chat.ChatCompletionCreateParamsNonStreaming & Record<string, unknown>;

const FIXTURE = join(import.meta.dir, "../fixtures/models/qwen3-f32");
const root = mkdtempSync(join(tmpdir(), "omlx-forced-"));
let server: TestServer;
let client: OpenAI;

/** The same random weights with the template of each of these families. */
const DIALECTS = ["hermes", "glm", "llama", "mistral", "kimi", "harmony"];

beforeAll(async () => {
  for (const dialect of DIALECTS) {
    const folder = join(root, dialect);
    cpSync(FIXTURE, folder, { recursive: true });
    const template = FAMILIES.find((family) => family.dialect === dialect)?.template ?? "";
    await Bun.write(join(folder, "chat_template.jinja"), template);
  }
  server = await startServer({ modelDirs: [root] });
  client = new OpenAI({ baseURL: server.baseURL, apiKey: "none", maxRetries: 0 });
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(root, { recursive: true, force: true });
});

const ask = (params: Partial<Params>): Params => ({
  model: "hermes",
  messages: [{ role: "user", content: "Hi" }],
  temperature: 1,
  max_tokens: 900,
  ...params,
});

const Move = z.strictObject({
  direction: z.enum(["north", "south"]),
  steps: z.int().min(1).max(9),
  quietly: z.boolean(),
});
const tool = (name: string, schema: z.ZodType): OpenAI.Chat.ChatCompletionTool => ({
  type: "function",
  function: { name, parameters: z.toJSONSchema(schema) as Record<string, unknown> },
});
const tools = [tool("move", Move), tool('odd "name" 🙂', z.strictObject({ on: z.boolean() }))];

function callsOf(completion: OpenAI.ChatCompletion) {
  const [choice] = completion.choices;
  const calls = (choice?.message.tool_calls ?? []).map((call) => {
    if (call.type !== "function") throw new Error("no function call");
    return { name: call.function.name, arguments: JSON.parse(call.function.arguments) };
  });
  return { calls, content: choice?.message.content, finish: choice?.finish_reason };
}

const CHECKS: Readonly<Record<string, z.ZodType>> = {
  move: Move,
  'odd "name" 🙂': z.strictObject({ on: z.boolean() }),
};

describe.each(DIALECTS)("%s", (model) => {
  test("a demanded call is made, and follows its schema", async () => {
    for (const seed of [1, 2, 3]) {
      const { calls, content, finish } = callsOf(
        await client.chat.completions.create(
          ask({ model, tools, tool_choice: "required", parallel_tool_calls: false, seed }),
        ),
      );
      // a model of channels thinks first, and with random weights it may do so to the end
      if (model === "harmony" && finish === "length") continue;
      expect({ finish, content }).toEqual({ finish: "tool_calls", content: null });
      expect(calls).toHaveLength(1);
      expect(() => CHECKS[calls[0]?.name ?? ""]?.parse(calls[0]?.arguments)).not.toThrow();
    }
  });

  test("the named tool is called, streamed as it is whole", async () => {
    const name = 'odd "name" 🙂';
    const params = ask({
      model,
      tools,
      tool_choice: { type: "function", function: { name } },
      seed: 7,
    });
    const whole = callsOf(await client.chat.completions.create(params));
    if (model === "harmony" && whole.finish === "length") return;
    expect(whole.calls).toEqual([{ name, arguments: { on: expect.any(Boolean) } }]);
    const streamed = await client.chat.completions
      .stream({ ...params, stream: true })
      .finalChatCompletion();
    expect(callsOf(streamed).calls).toEqual(whole.calls);
  });
});

describe("formats", () => {
  const text = async (params: Partial<Params>) => {
    const { choices } = await client.chat.completions.create(ask(params));
    expect(choices[0]?.finish_reason).toBe("stop");
    return choices[0]?.message.content ?? "";
  };

  test("a JSON schema is followed", async () => {
    for (const seed of [1, 2, 3]) {
      const response_format = zodResponseFormat(Move, "move");
      Move.parse(JSON.parse(await text({ response_format, seed })));
    }
  });

  test("parse() of the SDK gives what its schemas say", async () => {
    const completion = await client.chat.completions.parse(
      ask({ response_format: zodResponseFormat(Move, "move") }),
    );
    expect(Move.parse(completion.choices[0]?.message.parsed)).toBeDefined();
    const called = await client.chat.completions.parse(
      ask({
        tools: [zodFunction({ name: "move", parameters: Move })],
        tool_choice: "required",
        parallel_tool_calls: false,
      }),
    );
    const [call] = called.choices[0]?.message.tool_calls ?? [];
    if (call?.type !== "function") throw new Error("no function call");
    expect(Move.parse(call.function.parsed_arguments)).toBeDefined();
  });

  test("choices, patterns and grammars are followed", async () => {
    expect(["yes", "no"]).toContain(await text({ guided_choice: ["yes", "no"] }));
    expect(await text({ guided_regex: "[ab]{3}-[0-9]{2}" })).toMatch(/^[ab]{3}-[0-9]{2}$/);
    const grammar = 'root ::= "x" ("y" | "z") "!"';
    expect(await text({ structured_outputs: { grammar } })).toMatch(/^x[yz]!$/);
  });

  test("a text of the format or a call, as the model likes", async () => {
    const { calls, content, finish } = callsOf(
      await client.chat.completions.create(
        ask({
          tools,
          response_format: zodResponseFormat(Move, "move"),
          parallel_tool_calls: false,
        }),
      ),
    );
    if (finish === "tool_calls") expect(calls).toHaveLength(1);
    else expect(() => Move.parse(JSON.parse(content ?? ""))).not.toThrow();
  });

  test("an answer that is cut off says so", async () => {
    const { choices } = await client.chat.completions.create(
      ask({ response_format: zodResponseFormat(Move, "move"), max_tokens: 4 }),
    );
    expect(choices[0]?.finish_reason).toBe("length");
    const called = await client.chat.completions.create(
      ask({ tools, tool_choice: "required", max_tokens: 12 }),
    );
    expect(called.choices[0]?.finish_reason).toBe("length");
    expect(called.choices[0]?.message.tool_calls).toBeUndefined();
  });

  test("a grammar that cannot be enforced is an error that says why, and which field demands it", async () => {
    const odd = { type: "strange" };
    const strange = {
      type: "function" as const,
      function: { name: "odd", parameters: { type: "object", properties: { a: odd } } },
    };
    const json_schema = { name: "odd", strict: true, schema: odd };
    const wrong: [string, Partial<Params>][] = [
      ["guided_regex", { guided_regex: "([" }],
      ["response_format", { response_format: { type: "json_schema", json_schema } }],
      [
        "tools",
        {
          tool_choice: "required",
          tools: [{ ...strange, function: { ...strange.function, strict: true } }],
        },
      ],
    ];
    for (const [param, fields] of wrong) {
      const error = await client.chat.completions
        .create(ask(fields))
        .catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(OpenAI.BadRequestError);
      expect(error).toMatchObject({ param, message: expect.stringContaining("Cannot enforce") });
    }
  });
});

test("a budget ends thoughts", async () => {
  const { choices, usage } = await client.chat.completions.create(
    ask({ thinking_budget: 20, max_tokens: 60, seed: 3 }),
  );
  const message = choices[0]?.message as { reasoning_content?: string; content: string | null };
  expect(message.reasoning_content ?? "").not.toBe("");
  const thought = usage?.completion_tokens_details?.reasoning_tokens ?? 0;
  expect(thought).toBeGreaterThan(0);
  expect(thought).toBeLessThan(40);
});
