import { Elysia } from "elysia";
import { z } from "zod";
import { type McpResult, textOfResult } from "#front/mcp";
import { readJson } from "../body.ts";
import type { AppDeps, Server } from "../deps.ts";
import { endingOf } from "../disconnect.ts";
import { HttpError, openaiError } from "../error-handler.ts";
import { respond } from "../respond.ts";
import { routeDetail } from "../route-detail.ts";
import { validate } from "../validate.ts";

const tool = z.object({
  name: z.string(),
  description: z.string(),
  server: z.string(),
  parameters: z.unknown(),
});
const server = z.object({
  name: z.string(),
  state: z.enum(["disconnected", "connecting", "connected", "error"]),
  transport: z.string(),
  tools_count: z.int(),
  error: z.string().nullable(),
});
const executeBody = z.looseObject({
  tool_name: z.string().min(1),
  arguments: z.record(z.string(), z.unknown()).nullish(),
});
const executeAnswer = z.object({
  tool_name: z.string(),
  content: z.union([z.string(), z.array(z.unknown())]),
  is_error: z.boolean(),
  error_message: z.string().nullable(),
});

const TOOLS = routeDetail({
  tag: "Tools",
  summary: "List the tools of the connected MCP servers",
  answer: z.object({ tools: z.array(tool), count: z.int() }),
});
const SERVERS = routeDetail({
  tag: "Tools",
  summary: "List the MCP servers and how they are",
  answer: z.object({ servers: z.array(server) }),
});
const EXECUTE = routeDetail({
  tag: "Tools",
  summary: "Call a tool of an MCP server",
  description: "A tool's failure is an answer with `is_error: true`.",
  body: executeBody,
  answer: executeAnswer,
});

/** GET /v1/mcp/tools, GET /v1/mcp/servers, POST /v1/mcp/execute. */
export function mcpRoutes(deps: AppDeps) {
  return new Elysia({ name: "mcp" })
    .get("/v1/mcp/tools", () => listTools(deps), { detail: TOOLS })
    .get("/v1/mcp/servers", () => listServers(deps), { detail: SERVERS })
    .post("/v1/mcp/execute", ({ request, server }) => execute(request, server, deps), {
      parse: "none",
      detail: EXECUTE,
    });
}

function listTools({ mcp }: AppDeps): Response {
  const tools = (mcp?.manager.tools ?? []).map(({ name, description, server, parameters }) => ({
    name,
    description,
    server,
    parameters,
  }));
  return Response.json({ tools, count: tools.length });
}

function listServers({ mcp }: AppDeps): Response {
  const servers = (mcp?.manager.servers ?? []).map((status) => ({
    name: status.name,
    state: status.state,
    transport: status.transport,
    tools_count: status.numTools,
    error: status.error ?? null,
  }));
  return Response.json({ servers });
}

async function execute(request: Request, server: Server | null, deps: AppDeps): Promise<Response> {
  const body = validate(executeBody, await readJson(request, deps.bodyLimit));
  server?.timeout(request, 0); // only now: an unfinished body must still time out
  const { mcp } = deps;
  if (!mcp) {
    throw new HttpError(
      503,
      "MCP is not configured: start the server with --mcp-config FILE",
      "mcp_not_configured",
    );
  }
  const { signal, abort } = endingOf(request, deps.shutdown);
  const name = body.tool_name;
  const events = (async function* () {
    using _ = deps.requests.enter();
    yield await mcp.manager.execute(name, body.arguments ?? {}, { signal });
  })();
  // A call may take long: the answer stays alive on the wire like every other one.
  return respond<McpResult, McpResult>(
    events,
    {
      head: "",
      frames: () => "",
      errorFrame: () => "",
      tail: "",
      keepAlive: " ",
      async collect(results) {
        for await (const result of results) return result;
        throw new Error("a call without a result");
      },
      whole: (result) => encodeResult(name, result),
      errorBody: openaiError,
    },
    { stream: false, keepAliveMs: deps.keepAliveMs, headers: () => ({}), signal, abort },
  );
}

/** Text alone is a string; where there is more, the parts are listed as MCP has them. */
function encodeResult(tool_name: string, result: McpResult) {
  const { blocks, structured, isError } = result;
  const isText = blocks.every((block) => block.type === "text");
  return {
    tool_name,
    content: isText ? blocks.map((block) => block["text"]).join("\n") : blocks,
    ...(structured === undefined ? {} : { structured_content: structured }),
    is_error: isError,
    error_message: isError ? textOfResult(result) : null,
  };
}
