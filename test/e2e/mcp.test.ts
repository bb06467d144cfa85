import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import type { Transport } from "@modelcontextprotocol/sdk/shared/transport.js";
import { ENCODER_MODELS } from "../helpers/encoders.ts";
import { everything } from "../helpers/mcp.ts";
import {
  DEFAULT_MODEL,
  DEFAULT_MODELS,
  eventually,
  startServer,
  type TestServer,
} from "../helpers/server.ts";

const folder = mkdtempSync(join(tmpdir(), "omlx-mcp-"));
const config = join(folder, "mcp.json");
let server: TestServer;

beforeAll(async () => {
  writeFileSync(
    config,
    JSON.stringify({
      mcpServers: {
        all: { ...everything(), allowedTools: ["echo", "get-sum", "get-tiny-image"] },
        gone: { command: "omlx-no-such-program" },
      },
    }),
  );
  server = await startServer({
    modelDirs: [DEFAULT_MODELS],
    args: ["--mcp-config", config, "--mcp-expose-tools", "off", "--context-window", "4096"],
  });
  await eventually(
    async () => ((await get("/mcp/tools")).count > 0 ? true : undefined),
    "the tools",
    30_000,
  );
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

async function get(path: string) {
  return (await (await fetch(`${server.baseURL}${path}`)).json()) as {
    count: number;
    tools: { name: string; server: string }[];
    servers: { name: string; state: string; error: string | null }[];
  };
}

const execute = (body: unknown, base = server.baseURL) =>
  fetch(`${base}/mcp/execute`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });

describe("/v1/mcp", () => {
  test("lists servers and the tools that the configuration allows", async () => {
    const { tools, count } = await get("/mcp/tools");
    expect(tools.map((tool) => tool.name)).toEqual([
      "all__echo",
      "all__get-sum",
      "all__get-tiny-image",
    ]);
    expect(count).toBe(3);
    expect(tools[0]).toMatchObject({ server: "all", parameters: { type: "object" } });
    const { servers } = await get("/mcp/servers");
    expect(servers).toMatchObject([
      { name: "all", state: "connected", transport: "stdio", tools_count: 3, error: null },
      { name: "gone", state: "error", tools_count: 0 },
    ]);
    expect(servers[1]?.error).toContain("omlx-no-such-program");
  });

  test("executes: text, pictures, failures as data", async () => {
    const echo = await execute({ tool_name: "all__echo", arguments: { message: "hi" } });
    expect(await echo.json()).toEqual({
      tool_name: "all__echo",
      content: "Echo: hi",
      is_error: false,
      error_message: null,
    });
    const image = await execute({ tool_name: "all__get-tiny-image" });
    const { content } = (await image.json()) as { content: { type: string }[] };
    expect(content.map((part) => part.type)).toContain("image");
    const wrong = await execute({ tool_name: "all__echo", arguments: {} });
    expect(wrong.status).toBe(200);
    const failed = (await wrong.json()) as { is_error: boolean; error_message: string };
    expect(failed.is_error).toBe(true);
    expect(failed.error_message).toContain("message");
    const gone = await execute({ tool_name: "gone__x", arguments: {} });
    expect(await gone.json()).toMatchObject({ is_error: true });
  });

  test("refuses what is no call", async () => {
    const bad: [body: unknown, param: string][] = [
      [{}, "tool_name"],
      [{ tool_name: "all__nothing" }, "tool_name"],
      [{ tool_name: "all__get-env" }, "tool_name"], // not among the allowed ones
      [{ tool_name: "all__echo", arguments: [1] }, "arguments"],
      [{ tool_name: "all__echo", arguments: "{}" }, "arguments"],
    ];
    for (const [body, param] of bad) {
      const response = await execute(body);
      expect(response.status).toBe(400);
      expect(((await response.json()) as { error: { param: string } }).error.param).toBe(param);
    }
  });

  test("without a configuration the lists are empty and a call says how to configure", async () => {
    await using plain = await startServer({ modelDirs: [DEFAULT_MODELS] });
    const lists = await Promise.all(
      ["tools", "servers"].map(async (name) =>
        (await fetch(`${plain.baseURL}/mcp/${name}`)).json(),
      ),
    );
    expect(lists).toEqual([{ tools: [], count: 0 }, { servers: [] }]);
    const response = await execute({ tool_name: "x" }, plain.baseURL);
    expect(response.status).toBe(503);
    expect(await response.text()).toContain("--mcp-config");
  });
});

describe("calls that the server runs itself", () => {
  const QUESTION = "What is 19 plus 23?";
  const run = { auto_execute: true, servers: ["all"] };
  const post = async (path: string, body: object) => {
    const response = await fetch(`${server.baseURL}${path}`, {
      method: "POST",
      headers: { "content-type": "application/json", "anthropic-version": "2023-06-01" },
      body: JSON.stringify({ model: DEFAULT_MODEL, temperature: 0, ...body }),
    });
    expect(response.status).toBe(200);
    return response;
  };
  /** The JSON of every event of a stream. */
  const eventsOf = async (response: Response) =>
    (await response.text())
      .split("\n")
      .filter((line) => line.startsWith("data: {"))
      .map((line) => JSON.parse(line.slice("data: ".length)));
  /** The forced call's own arguments decide what the tool answered. */
  const sumOf = (json: string) => {
    const { a, b } = JSON.parse(json) as { a: number; b: number };
    return `The sum of ${a} and ${b} is ${a + b}.`;
  };

  test("chat completions: a forced call is run, and the model answers with its result", async () => {
    const body = {
      messages: [{ role: "user", content: QUESTION }],
      max_tokens: 120,
      tool_choice: { type: "function", function: { name: "all__get-sum" } },
      mcp: { ...run, max_rounds: 1 },
    };
    const whole = (await (await post("/chat/completions", body)).json()) as {
      choices: { message: Record<string, unknown>; finish_reason: string }[];
    };
    const choice = whole.choices[0];
    const [call] = (choice?.message["mcp_calls"] ?? []) as Record<string, string>[];
    expect(call).toMatchObject({ server: "all", name: "get-sum", is_error: false });
    expect(call?.["output"]).toBe(sumOf(call?.["arguments"] ?? ""));
    expect(choice?.message["content"]).toBeString();
    expect(choice?.message["content"]).not.toBe("");
    expect(["stop", "length"]).toContain(choice?.finish_reason ?? "");

    const chunks = await eventsOf(await post("/chat/completions", { ...body, stream: true }));
    const deltas = chunks.flatMap((chunk) => chunk.choices[0]?.delta ?? []);
    const calls = deltas.flatMap((delta) => delta.mcp_calls ?? []);
    expect(calls.map((part) => part.status).filter(Boolean)).toEqual(["in_progress", "completed"]);
    expect(calls.at(-1).output).toBe(call?.["output"]);
    const text = deltas.map((delta) => delta.content ?? "").join("");
    expect(text).toBe(choice?.message["content"] as string);
  }, 60_000);

  test("messages: the call and its result are blocks, and may be sent back", async () => {
    const body = {
      messages: [{ role: "user", content: QUESTION }],
      max_tokens: 120,
      tool_choice: { type: "tool", name: "all__get-sum" },
      mcp: { ...run, max_rounds: 1 },
    };
    const whole = (await (await post("/messages", body)).json()) as {
      content: Record<string, never>[];
    };
    const [use, result, ...rest] = whole.content as Record<string, unknown>[];
    expect(use).toMatchObject({ type: "mcp_tool_use", server_name: "all", name: "get-sum" });
    expect(result).toMatchObject({
      type: "mcp_tool_result",
      tool_use_id: use?.["id"],
      is_error: false,
      content: [{ type: "text", text: sumOf(JSON.stringify(use?.["input"])) }],
    });
    expect(rest.map((block) => block["type"])).toEqual(["text"]);
    const events = await eventsOf(await post("/messages", { ...body, stream: true }));
    const started = events.filter((event) => event.type === "content_block_start");
    expect(started.map((event) => event.content_block.type)).toEqual([
      "mcp_tool_use",
      "mcp_tool_result",
      "text",
    ]);
    await post("/messages", {
      messages: [
        { role: "user", content: QUESTION },
        { role: "assistant", content: whole.content },
        { role: "user", content: "Thank you." },
      ],
      max_tokens: 4,
    });
  }, 60_000);

  test("responses: a tool of type mcp names a server, its calls are items", async () => {
    const body = {
      input: QUESTION,
      max_output_tokens: 120,
      tools: [{ type: "mcp", server_label: "all", allowed_tools: ["get-sum"] }],
      tool_choice: { type: "mcp", server_label: "all", name: "get-sum" },
      mcp: { max_rounds: 1 },
    };
    const whole = (await (await post("/responses", body)).json()) as {
      id: string;
      output: Record<string, unknown>[];
    };
    expect(whole.output.map((item) => item["type"])).toEqual(["mcp_call", "message"]);
    const [call] = whole.output;
    expect(call).toMatchObject({ server_label: "all", name: "get-sum", status: "completed" });
    expect(call?.["output"]).toBe(sumOf(String(call?.["arguments"])));
    const events = await eventsOf(await post("/responses", { ...body, stream: true }));
    expect(events.map((event) => event.type)).toContain("response.mcp_call.completed");
    expect(events.at(-1).response.output.map((item: { type: string }) => item.type)).toEqual([
      "mcp_call",
      "message",
    ]);
    // the call is part of the conversation that goes on
    await post("/responses", {
      input: "Thank you.",
      previous_response_id: whole.id,
      max_output_tokens: 4,
    });
  }, 60_000);

  test("servers come from the configuration alone", async () => {
    const tools = [{ type: "mcp", server_label: "mine", server_url: "http://127.0.0.1:1/mcp" }];
    const response = await fetch(`${server.baseURL}/responses`, {
      method: "POST",
      body: JSON.stringify({ input: "hi", tools }),
    });
    expect(response.status).toBe(400);
    const { error } = (await response.json()) as { error: { param: string; message: string } };
    expect(error.param).toBe("tools[0].server_label");
    expect(error.message).toContain("all");
  });

  test("without a wish to run them, calls go to the client", async () => {
    const body = {
      messages: [{ role: "user", content: QUESTION }],
      max_tokens: 120,
      tool_choice: { type: "function", function: { name: "all__get-sum" } },
      mcp: { expose: true },
    };
    const whole = (await (await post("/chat/completions", body)).json()) as {
      choices: { message: { tool_calls: { function: { name: string } }[] } }[];
    };
    expect(whole.choices[0]?.message.tool_calls[0]?.function.name).toBe("all__get-sum");
  }, 60_000);
});

describe("/mcp: this server as an MCP server", () => {
  async function connect(origin = server.origin): Promise<Client> {
    const client = new Client({ name: "test", version: "1" });
    await client.connect(new StreamableHTTPClientTransport(new URL(`${origin}/mcp`)) as Transport);
    return client;
  }
  const textOf = (result: unknown) =>
    (result as { content: { text: string }[] }).content.map((part) => part.text).join("");

  test("an official client lists models and has them answer", async () => {
    const client = await connect();
    const { tools } = await client.listTools();
    expect(tools.map((tool) => tool.name)).toContain("generate");
    const models = JSON.parse(
      textOf(await client.callTool({ name: "list_models", arguments: {} })),
    );
    expect(models).toMatchObject({
      default: DEFAULT_MODEL,
      models: [{ id: DEFAULT_MODEL, kind: "llm" }],
    });
    const answer = await client.callTool({
      name: "generate",
      arguments: { prompt: "What is the capital of France?", temperature: 0 },
    });
    expect(textOf(answer)).toBe("The capital of France is Paris.");
    await client.close();
  });

  test("texts become vectors, documents are ranked", async () => {
    await using encoders = await startServer({ modelDirs: [ENCODER_MODELS] });
    const client = await connect(encoders.origin);
    const call = async (name: string, args: Record<string, unknown>) =>
      JSON.parse(textOf(await client.callTool({ name, arguments: args })));
    const { vectors } = await call("embed", { texts: ["a", "b"], model: "bert" });
    expect(vectors).toHaveLength(2);
    expect(vectors[0].every(Number.isFinite)).toBe(true);
    const documents = ["Bananas are yellow.", "Paris is the capital of France.", "a"];
    const { results } = await call("rerank", {
      query: "What is the capital of France?",
      documents,
      model: "xlm-roberta-reranker",
      top_n: 2,
    });
    expect(results).toHaveLength(2);
    expect(results[0].score).toBeGreaterThanOrEqual(results[1].score);
    expect(results[0].document).toBe(documents[results[0].index]);
    await client.close();
  });

  test("what goes wrong is a result with an error", async () => {
    const client = await connect();
    const unknown = await client.callTool({
      name: "generate",
      arguments: { prompt: "hi", model: "no-such-model" },
    });
    expect(unknown.isError).toBe(true);
    expect(textOf(unknown)).toContain("no-such-model");
    expect((await client.callTool({ name: "generate", arguments: {} })).isError).toBe(true);
    await client.close();
  });

  test("asks for the key like every route", async () => {
    await using locked = await startServer({
      modelDirs: [DEFAULT_MODELS],
      args: ["--api-key", "secret"],
    });
    await expect(connect(locked.origin)).rejects.toThrow();
  });
});

test("a server that is ended ends its MCP servers", async () => {
  const own = await startServer({ modelDirs: [DEFAULT_MODELS], args: ["--mcp-config", config] });
  await eventually(
    async () => {
      const list = (await (await fetch(`${own.baseURL}/mcp/tools`)).json()) as { count: number };
      return list.count > 0 ? true : undefined;
    },
    "the tools",
    30_000,
  );
  expect(await own.stop("SIGTERM")).toBe(0);
});

test("a broken configuration is one line and exit code 2", async () => {
  const broken = join(folder, "broken.json");
  writeFileSync(broken, "{");
  const own = await startServer({
    modelDirs: [DEFAULT_MODELS],
    args: ["--mcp-config", broken],
  }).catch((error: unknown) => String(error));
  expect(String(own)).toContain("broken.json");
});
