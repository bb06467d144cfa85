/** A chat with tools through the clients that people build agents with. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { type AIMessageChunk, HumanMessage, ToolMessage } from "@langchain/core/messages";
import { tool as langchainTool } from "@langchain/core/tools";
import { ChatOpenAI } from "@langchain/openai";
import { generateText, isStepCount, streamText, tool } from "ai";
import OpenAI from "openai";
import { z } from "zod";
import { FAMILIES } from "../helpers/dialects.ts";
import { runPython } from "../helpers/python.ts";
import { writeScriptedModel } from "../helpers/scripted-model.ts";
import { startServer, type TestServer } from "../helpers/server.ts";

const MODEL = "caller";
const RANDOM = "random";
const City = z.object({ city: z.string(), days: z.number().int() });
const ARGUMENTS = { city: "São Paulo", days: 3 };
const OUTPUT = `<think>
I need the weather.
</think>

I look.
<tool_call>
{"name": "get_weather", "arguments": {"city": "São Paulo", "days": 3}}
</tool_call>`;

const root = mkdtempSync(join(tmpdir(), "omlx-frameworks-"));
let server: TestServer;

beforeAll(async () => {
  await writeScriptedModel(join(root, MODEL), {
    text: OUTPUT,
    window: 8192,
    template: FAMILIES[0]?.template ?? "",
  });
  const fixture = join(import.meta.dir, "../fixtures/models/qwen3-f32");
  cpSync(fixture, join(root, RANDOM), { recursive: true });
  server = await startServer({ modelDirs: [root] });
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(root, { recursive: true, force: true });
});

test("the runner of the openai package calls tools and sends their results", async () => {
  const client = new OpenAI({ baseURL: server.baseURL, apiKey: "none", maxRetries: 0 });
  const asked: unknown[] = [];
  for (const stream of [false, true] as const) {
    const runner = client.chat.completions.runTools(
      {
        model: MODEL,
        stream: stream as true,
        messages: [{ role: "user", content: "Weather?" }],
        tools: [
          {
            type: "function",
            function: {
              name: "get_weather",
              description: "Tells the weather",
              parameters: z.toJSONSchema(City) as Record<string, unknown>,
              parse: (text: string) => City.parse(JSON.parse(text)),
              function: (input: z.infer<typeof City>) => {
                asked.push(input);
                return "22 degrees";
              },
            },
          },
        ],
      },
      { maxChatCompletions: 2 },
    );
    await runner.done();
    const results = runner.messages.filter((message) => message.role === "tool");
    expect(results.map((message) => message.content)).toEqual(["22 degrees", "22 degrees"]);
  }
  expect(asked).toEqual([ARGUMENTS, ARGUMENTS, ARGUMENTS, ARGUMENTS]);
});

test("the Vercel AI SDK gets text, thoughts and calls, whole and streamed", async () => {
  const provider = createOpenAICompatible({ name: "omlx", baseURL: server.baseURL });
  const options = {
    model: provider(MODEL),
    prompt: "Weather?",
    tools: {
      get_weather: tool({
        description: "Tells the weather",
        inputSchema: City,
        execute: async ({ city }) => `22 degrees in ${city}`,
      }),
    },
    stopWhen: isStepCount(2),
  };
  const { steps } = await generateText(options);
  expect(steps).toHaveLength(2);
  for (const step of steps) {
    expect(step.text).toBe("I look.");
    expect(step.reasoningText).toBe("I need the weather.");
    expect(step.toolCalls.map((call) => call.input)).toEqual([ARGUMENTS]);
    expect(step.toolResults.map((result) => result.output)).toEqual(["22 degrees in São Paulo"]);
    expect(step.finishReason).toBe("tool-calls");
  }
  const streamed = streamText(options);
  expect(await streamed.text).toBe("I look.");
  expect((await streamed.toolCalls).map((call) => call.input)).toEqual([ARGUMENTS, ARGUMENTS]);
});

test("LangChain gets calls, whole and streamed, and sends their results", async () => {
  const weather = langchainTool(async ({ city }: z.infer<typeof City>) => `22 degrees in ${city}`, {
    name: "get_weather",
    description: "Tells the weather",
    schema: City,
  });
  const model = new ChatOpenAI({
    model: MODEL,
    apiKey: "none",
    configuration: { baseURL: server.baseURL },
    maxRetries: 0,
  }).bindTools([weather]);
  const question = new HumanMessage("Weather?");
  const answer = await model.invoke([question]);
  expect(answer.tool_calls).toMatchObject([{ name: "get_weather", args: ARGUMENTS }]);
  const [call] = answer.tool_calls ?? [];
  const result = new ToolMessage({ content: "22 degrees", tool_call_id: call?.id ?? "" });
  const next = await model.invoke([question, answer, result]);
  expect(next.content).toBe("I look.");
  let whole: AIMessageChunk | undefined;
  for await (const chunk of await model.stream([question])) {
    whole = whole === undefined ? chunk : whole.concat(chunk);
  }
  expect(whole?.content).toBe("I look.");
  expect(whole?.tool_calls).toMatchObject([{ name: "get_weather", args: ARGUMENTS }]);
});

test("the openai package from PyPI gets calls and formats through its pydantic helpers", async () => {
  expect(await runPython("openai_tools.py", server, [MODEL, RANDOM])).toBe("done\n");
}, 180_000);
