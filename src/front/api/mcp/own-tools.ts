import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { WebStandardStreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js";
import { z } from "zod";
import { CHAT_DEFAULTS, type ChatRequest, type Message } from "#core/contract";
import { embed, rerank, streamChat } from "#front/service";
import { readJson } from "../body.ts";
import type { AppDeps, Server } from "../deps.ts";
import { endingOf } from "../disconnect.ts";
import { HttpError } from "../error-handler.ts";
import { observe } from "../request-log.ts";

/** Answers one message of an MCP client that uses this server's models. */
export async function answerMcp(
  request: Request,
  server: Server | null,
  deps: AppDeps,
): Promise<Response> {
  const parsedBody = await readJson(request, deps.bodyLimit);
  server?.timeout(request, 0); // only now: an unfinished body must still time out
  const { signal, abort } = endingOf(request, deps.shutdown);
  // No session: everything that one request needs is made for it, and gone with it.
  const transport = new WebStandardStreamableHTTPServerTransport({ keepAliveMs: deps.keepAliveMs });
  const tools = makeTools(deps, signal);
  await tools.connect(transport);
  signal.addEventListener("abort", () => void tools.close());
  const response = await transport.handleRequest(request, { parsedBody });
  const whole = new TransformStream<Uint8Array, Uint8Array>({ flush: abort });
  if (!response.body) abort();
  return new Response(response.body?.pipeThrough(whole) ?? null, response);
}

const message = z.object({
  role: z.enum(["system", "user", "assistant"]),
  content: z.string(),
});

function makeTools(deps: AppDeps, signal: AbortSignal): McpServer {
  const { pool, version } = deps;
  const tools = new McpServer(
    { name: "omlx", version },
    { instructions: "Runs language models on this machine. list_models tells which there are." },
  );
  tools.registerTool(
    "list_models",
    {
      description: "Lists the models on this server: what each is for, and how much text it takes.",
      inputSchema: {},
      annotations: { readOnlyHint: true, openWorldHint: false },
    },
    () => {
      const models = pool.list().map((entry) => ({
        id: entry.id,
        kind: entry.kind,
        context_window: entry.contextWindow,
        ...(entry.problem === undefined ? {} : { problem: entry.problem }),
      }));
      return asJson({ models, default: pool.status().defaultModel });
    },
  );
  tools.registerTool(
    "generate",
    {
      description: "Answers a prompt, or continues a conversation, with a local language model.",
      inputSchema: {
        prompt: z.string().optional().describe("What to answer; or give messages."),
        messages: z.array(message).optional(),
        system: z.string().optional().describe("How to answer."),
        model: z.string().optional().describe("A model of list_models; else the default one."),
        max_tokens: z.int().min(1).optional(),
        temperature: z.number().min(0).max(2).optional(),
      },
      annotations: { readOnlyHint: true, openWorldHint: false },
    },
    async (args, { signal: ended }) => {
      const request = toChatRequest(args);
      const id = `mcp-${crypto.randomUUID()}`;
      const events = observe(
        streamChat(pool, request, AbortSignal.any([signal, ended])),
        { id, route: "mcp", model: request.model, stream: false },
        deps.requests,
      );
      let text = "";
      for await (const event of events) if (event.kind === "text") text += event.text;
      return { content: [{ type: "text", text }] };
    },
  );
  tools.registerTool(
    "embed",
    {
      description: "Turns texts into vectors with a local embedding model.",
      inputSchema: {
        texts: z.array(z.string()).min(1),
        model: z.string().optional().describe("A model of list_models; else the first one."),
        input_type: z.enum(["query", "document"]).optional(),
      },
      annotations: { readOnlyHint: true, openWorldHint: false },
    },
    async ({ texts, model, input_type }, { signal: ended }) => {
      const request = {
        model: model ?? null,
        inputs: texts,
        param: "texts",
        promptName: null,
        inputType: input_type ?? null,
        truncateAt: null,
        dimensions: null,
        tokenOutputs: [],
      };
      using _ = deps.requests.enter();
      const result = await embed(pool, request, AbortSignal.any([signal, ended]));
      return asJson({
        model: result.model,
        vectors: result.vectors.map((vector) => [...vector]),
      });
    },
  );
  tools.registerTool(
    "rerank",
    {
      description: "Tells how well each document answers a query, best first, with a local model.",
      inputSchema: {
        query: z.string().min(1),
        documents: z.array(z.string()).min(1),
        model: z.string().optional().describe("A model of list_models; else the first one."),
        top_n: z.int().min(1).optional(),
      },
      annotations: { readOnlyHint: true, openWorldHint: false },
    },
    async ({ query, documents, model, top_n }, { signal: ended }) => {
      const request = {
        model: model ?? null,
        query,
        documents,
        param: "documents",
        truncateAt: null,
        instruction: null,
      };
      using _ = deps.requests.enter();
      const result = await rerank(pool, request, AbortSignal.any([signal, ended]));
      const ranked = result.scores
        .map((score, index) => ({ index, score, document: documents[index] }))
        .sort((a, b) => b.score - a.score)
        .slice(0, top_n);
      return asJson({ model: result.model, results: ranked });
    },
  );
  return tools;
}

interface GenerateArgs {
  readonly prompt?: string | undefined;
  readonly messages?: readonly z.output<typeof message>[] | undefined;
  readonly system?: string | undefined;
  readonly model?: string | undefined;
  readonly max_tokens?: number | undefined;
  readonly temperature?: number | undefined;
}

function toChatRequest(args: GenerateArgs): ChatRequest {
  const say = (role: Message["role"], text: string): Message => ({
    role,
    parts: [{ kind: "text", text }],
  });
  const messages = [
    ...(args.system === undefined ? [] : [say("system", args.system)]),
    ...(args.messages ?? []).map(({ role, content }) => say(role, content)),
    ...(args.prompt === undefined ? [] : [say("user", args.prompt)]),
  ];
  if (messages.every(({ role }) => role === "system")) {
    throw new HttpError(400, 'Give a "prompt" or "messages"');
  }
  return {
    ...CHAT_DEFAULTS,
    model: args.model ?? "",
    messages,
    sampling: args.temperature === undefined ? {} : { temperature: args.temperature },
    maxTokens: args.max_tokens,
  };
}

const asJson = (value: unknown) => ({
  content: [{ type: "text" as const, text: JSON.stringify(value) }],
});
