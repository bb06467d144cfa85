import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { WebStandardStreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js";
import { z } from "zod";

const require = createRequire(import.meta.url);

/** The program of an official MCP server package. */
function programOf(name: string): string {
  const manifest = require.resolve(`@modelcontextprotocol/${name}/package.json`);
  const { bin } = require(manifest) as { bin: Record<string, string> };
  return join(dirname(manifest), Object.values(bin)[0] ?? "");
}

/** How the official servers are started, as a configuration's entries. */
export const everything = (...args: string[]) => ({
  command: "node",
  args: [programOf("server-everything"), ...args],
});
export const filesystem = (folder: string) => ({
  command: "node",
  args: [programOf("server-filesystem"), folder],
});
export const memory = (file: string) => ({
  command: "node",
  args: [programOf("server-memory")],
  env: { MEMORY_FILE_PATH: file },
});

/** A program in a few lines of JavaScript, as an entry. */
export const script = (code: string) => ({ command: "node", args: ["-e", code] });

/** An MCP server over streamable HTTP in this process, whose tools can be changed; stateful, as most are. */
export function httpServer() {
  const sessions = new Map<string, WebStandardStreamableHTTPServerTransport>();
  const servers: McpServer[] = [];
  const seen: Headers[] = [];
  const makeServer = () => {
    const server = new McpServer({ name: "test", version: "1" });
    server.registerTool("add", { inputSchema: { a: z.number(), b: z.number() } }, ({ a, b }) => ({
      content: [{ type: "text", text: String(a + b) }],
    }));
    servers.push(server);
    return server;
  };
  const http = Bun.serve({
    port: 0,
    idleTimeout: 0,
    async fetch(request) {
      seen.push(request.headers);
      const known = sessions.get(request.headers.get("mcp-session-id") ?? "");
      if (known) return known.handleRequest(request);
      const transport = new WebStandardStreamableHTTPServerTransport({
        sessionIdGenerator: () => crypto.randomUUID(),
        onsessioninitialized: (id) => void sessions.set(id, transport),
      });
      await makeServer().connect(transport);
      return transport.handleRequest(request);
    },
  });
  return {
    url: `http://127.0.0.1:${http.port}/mcp`,
    /** Headers of every request so far. */
    seen,
    /** Offers one more tool, and says so. */
    addTool(name: string): void {
      for (const server of servers) {
        server.registerTool(name, { inputSchema: {} }, () => ({
          content: [{ type: "text", text: name }],
        }));
      }
    },
    stop: () => http.stop(true),
  };
}

/** A variable of the environment, as a configuration writes it. */
export const variable = (name: string, rest = ""): string => ["$", "{", name, "}", rest].join("");
