import { Elysia } from "elysia";
import { z } from "zod";
import type { AppDeps } from "../deps.ts";
import { routeDetail } from "../route-detail.ts";

const DETAIL = routeDetail({
  tag: "Tools",
  summary: "Use this server's models as MCP tools",
  description: "The streamable HTTP transport of the Model Context Protocol, without sessions.",
  body: z.looseObject({ jsonrpc: z.literal("2.0"), method: z.string() }),
  answer: z.looseObject({ jsonrpc: z.literal("2.0") }),
});

/** POST /mcp: this server as an MCP server, so that other agents can use its models. */
export function mcpServerRoutes(deps: AppDeps) {
  return new Elysia({ name: "mcp-server" }).post(
    "/mcp",
    async ({ request, server }) => {
      // with the first request: few servers get one, and the SDK is as large as the rest of the routes
      const { answerMcp } = await import("./own-tools.ts");
      return answerMcp(request, server, deps);
    },
    { parse: "none", detail: DETAIL },
  );
}
