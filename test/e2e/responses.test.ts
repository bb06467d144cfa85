import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import OpenAI from "openai";
import type { ResponseCreateParamsNonStreaming } from "openai/resources/responses/responses";
import { responseEvent, responseObject } from "../../src/front/api/openai/responses/answers.ts";
import {
  DEFAULT_MODEL,
  DEFAULT_MODELS,
  eventually,
  startServer,
  type TestServer,
} from "../helpers/server.ts";

let server: TestServer;
let client: OpenAI;

beforeAll(async () => {
  server = await startServer({
    modelDirs: [DEFAULT_MODELS],
    args: ["--keep-alive-ms", "300", "--context-window", "2048"],
  });
  client = new OpenAI({ baseURL: server.baseURL, apiKey: "none", maxRetries: 0 });
});
afterAll(() => server[Symbol.asyncDispose]());

const FRANCE = "What is the capital of France?";
const PARIS = "The capital of France is Paris.";

const ask = (params: Partial<ResponseCreateParamsNonStreaming> = {}) => ({
  model: DEFAULT_MODEL,
  input: FRANCE,
  temperature: 0,
  max_output_tokens: 24,
  ...params,
});

const post = (body: unknown, path = "/responses") =>
  fetch(`${server.baseURL}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });

async function errorOf(promise: Promise<unknown>) {
  try {
    await promise;
  } catch (error) {
    if (error instanceof OpenAI.APIError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

describe("POST /v1/responses with the openai SDK", () => {
  test("answers whole", async () => {
    const response = await client.responses.create(ask());
    responseObject.parse(response);
    expect(response.output_text).toBe(PARIS);
    expect(response.status).toBe("completed");
    expect(response.output).toMatchObject([
      { type: "message", role: "assistant", status: "completed" },
    ]);
    const { input_tokens, output_tokens, total_tokens } = response.usage ?? {};
    expect((input_tokens ?? 0) + (output_tokens ?? 0)).toBe(total_tokens ?? -1);
  });

  test("streams numbered events that add up to the whole answer", async () => {
    const stream = client.responses.stream({ ...ask(), stream: true });
    const events: { type: string; sequence_number: number }[] = [];
    for await (const event of stream) events.push(responseEvent.parse(event));
    expect(events.map((event) => event.sequence_number)).toEqual([...events.keys()]);
    expect(events[0]?.type).toBe("response.created");
    expect(events.at(-1)?.type).toBe("response.completed");
    const { response: final } = events.at(-1) as unknown as { response: OpenAI.Responses.Response };
    expect((await stream.finalResponse()).output_text).toBe(PARIS);
    const whole = await client.responses.create(ask());
    const plain = ({ output, usage }: OpenAI.Responses.Response) => ({
      output: output.map((item) => ({ ...item, id: "" })),
      tokens: usage?.total_tokens,
    });
    expect(plain(final)).toEqual(plain(whole));
  });

  test("the answer that its length cut is incomplete and says why", async () => {
    const response = await client.responses.create(ask({ max_output_tokens: 2 }));
    expect(response.status).toBe("incomplete");
    expect(response.incomplete_details).toEqual({ reason: "max_output_tokens" });
    const probe = await post({ model: DEFAULT_MODEL, input: "", max_output_tokens: 1 });
    expect(probe.status).toBe(400);
  });

  test("log-probabilities come with the text when they are included", async () => {
    const response = await client.responses.create(
      ask({ include: ["message.output_text.logprobs"], top_logprobs: 2 }),
    );
    const [message] = response.output;
    const part = message?.type === "message" ? message.content[0] : undefined;
    const logprobs = part?.type === "output_text" ? part.logprobs : undefined;
    expect(logprobs?.map((entry) => entry.token).join("")).toBe(PARIS);
    expect(logprobs?.[0]?.top_logprobs).toHaveLength(2);
  });

  test("a prompt that does not fit is refused with both numbers", async () => {
    const error = await errorOf(client.responses.create(ask({ input: "word ".repeat(3000) })));
    expect(error.status).toBe(400);
    expect(error.code).toBe("context_length_exceeded");
    expect(error.message).toMatch(/\d{4} tokens > 2048 maximum/);
  });
});

describe("stored responses", () => {
  test("continue a conversation, are told and deleted", async () => {
    const first = await client.responses.create(ask({ instructions: "Be brief." }));
    const second = await client.responses.create(
      ask({ input: "Say it again.", previous_response_id: first.id }),
    );
    const alone = await client.responses.create(
      ask({
        input: [
          { role: "user", content: FRANCE },
          { role: "assistant", content: first.output_text },
          { role: "user", content: "Say it again." },
        ],
      }),
    );
    expect(second.usage?.input_tokens).toBe(alone.usage?.input_tokens ?? -1);
    expect(second.output_text).toBe(alone.output_text);
    const again = await client.responses.retrieve(first.id);
    expect(again.output_text).toBe(first.output_text);
    expect(again.instructions).toBe("Be brief.");
    const items = await client.responses.inputItems.list(second.id);
    expect(items.data).toMatchObject([{ type: "message", role: "user" }]);
    const file = join(server.home, ".omlx", "responses", `${first.id}.json`);
    await eventually(
      async () => (readdirSync(join(file, "..")).includes(`${first.id}.json`) ? true : undefined),
      "the stored response",
    );
    await client.responses.delete(first.id);
    expect((await errorOf(client.responses.retrieve(first.id))).status).toBe(404);
    const orphan = await errorOf(client.responses.create(ask({ previous_response_id: second.id })));
    expect(orphan.status).toBe(409);
  });

  test("are not kept when the client says so, and unknown ones are 404", async () => {
    const response = await client.responses.create(ask({ store: false }));
    expect((await errorOf(client.responses.retrieve(response.id))).status).toBe(404);
    const error = await errorOf(
      client.responses.create(ask({ previous_response_id: response.id })),
    );
    expect(error.status).toBe(404);
    expect(error.code).toBe("previous_response_not_found");
    const reference = await post({ input: [{ type: "item_reference", id: "msg_none" }] });
    expect(reference.status).toBe(404);
  });

  test("an item is found again by its id", async () => {
    const first = await client.responses.create(ask());
    const response = await client.responses.create(
      ask({
        input: [
          { role: "user", content: FRANCE },
          { type: "item_reference", id: first.output[0]?.id ?? "" },
          { role: "user", content: "Thank you." },
        ],
      }),
    );
    expect(response.status).toBe("completed");
  });
});

describe("background responses", () => {
  test("are made while nobody waits, and followed later", async () => {
    const queued = await client.responses.create(ask({ background: true }));
    expect(queued.status).toBe("queued");
    const done = await eventually(async () => {
      const response = await client.responses.retrieve(queued.id);
      return response.status === "completed" ? response : undefined;
    }, "the background response");
    expect(done.output_text).toBe(PARIS);
    const stream = await client.responses.create({ ...ask({ background: true }), stream: true });
    const types: string[] = [];
    for await (const event of stream) types.push(event.type);
    expect(types.at(-1)).toBe("response.completed");
  });

  test("end when they are cancelled; others cannot be", async () => {
    const long = { ...ask({ background: true, max_output_tokens: 2000 }), ignore_eos: true };
    const { id } = await client.responses.create({ ...long, input: "Count to one thousand." });
    const cancelled = await client.responses.cancel(id);
    expect(cancelled.status).toBe("cancelled");
    expect((await client.responses.retrieve(id)).status).toBe("cancelled");
    const plain = await client.responses.create(ask());
    expect((await errorOf(client.responses.cancel(plain.id))).status).toBe(400);
  });
});

test("GET /v1/models tells Codex what its catalog needs, and nobody else", async () => {
  const plain = (await (await fetch(`${server.baseURL}/models`)).json()) as object;
  expect(Object.keys(plain)).toEqual(["object", "data"]);
  const catalog = (await (
    await fetch(`${server.baseURL}/models?client_version=0.171.0`)
  ).json()) as { models: Record<string, unknown>[] };
  expect(catalog.models).toMatchObject([
    { slug: DEFAULT_MODEL, visibility: "list", context_window: 2048, input_modalities: ["text"] },
  ]);
});

describe("odd requests", () => {
  const bad: [name: string, body: unknown, param: string | null][] = [
    ["no input", { model: DEFAULT_MODEL }, "input"],
    ["input of another type", { input: 5 }, "input"],
    ["an item that is no object", { input: ["x"] }, "input[0]"],
    ["a negative length", { input: "q", max_output_tokens: -1 }, "max_output_tokens"],
    ["a temperature of 9", { input: "q", temperature: 9 }, "temperature"],
    ["an unknown format", { input: "q", text: { format: { type: "xml" } } }, "text.format.type"],
    ["a conversation", { input: "q", conversation: "c" }, "conversation"],
    ["a choice without tools", { input: "q", tool_choice: "required" }, "tool_choice"],
    ["a tool without a name", { input: "q", tools: [{ type: "function" }] }, "tools[0].name"],
  ];
  for (const [name, body, param] of bad) {
    test(`${name} is a 400 that names the field`, async () => {
      const response = await post(body);
      expect(response.status).toBe(400);
      const { error } = (await response.json()) as { error: { param: string | null } };
      expect(error.param).toBe(param);
    });
  }

  test("what is not understood is named in a header and answered all the same", async () => {
    const response = await post({
      ...ask({ max_output_tokens: 1 }),
      zz: 1,
      tools: [{ type: "web_search" }, { type: "zz_tool" }],
      input: [{ role: "user", content: "hi" }, { type: "zz_item" }],
    });
    expect(response.status).toBe(200);
    expect(response.headers.get("x-omlx-warnings")).toMatch(/zz.*web_search.*zz_tool.*zz_item/);
  });

  test("methods and paths that do not exist are told apart", async () => {
    expect((await fetch(`${server.baseURL}/responses`)).status).toBe(405);
    const path = `${server.baseURL}/responses/resp_x`;
    expect((await fetch(path)).status).toBe(404);
    expect((await fetch(path, { method: "PUT" })).status).toBe(405);
    expect((await fetch(`${server.baseURL}/responses/..%2f..%2fetc`)).status).toBe(404);
  });
});
