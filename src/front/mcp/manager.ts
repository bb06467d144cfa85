import { invalidRequest } from "#core/contract";
import type { McpConfig } from "./config.ts";
import { type CallOptions, McpConnection, type McpState } from "./connection.ts";
import type { McpResult } from "./result.ts";

/** A tool that can be called. */
export interface McpTool {
  /** "server__tool". */
  readonly name: string;
  readonly server: string;
  /** As its server calls it. */
  readonly tool: string;
  readonly description: string;
  /** JSON schema of the arguments. */
  readonly parameters: unknown;
}

export interface McpServerStatus {
  readonly name: string;
  readonly state: McpState;
  readonly transport: string;
  readonly numTools: number;
  /** Why it is not connected. */
  readonly error: string | undefined;
}

/** All servers of a configuration. */
export class McpManager {
  readonly #connections: readonly McpConnection[];

  /** Begins to connect to every server; waits for none. */
  constructor(config: McpConfig, version: string) {
    this.#connections = config.servers.map((server) => new McpConnection(server, version));
    for (const connection of this.#connections) connection.start();
  }

  /** Of the servers that are connected now, in the order of the configuration. */
  get tools(): readonly McpTool[] {
    return this.#connections.flatMap(({ config, tools }) =>
      tools.map(({ name, description, inputSchema }) => ({
        name: `${config.name}__${name}`,
        server: config.name,
        tool: name,
        description,
        parameters: inputSchema,
      })),
    );
  }

  get servers(): readonly McpServerStatus[] {
    return this.#connections.map(({ config, state, tools, error }) => ({
      name: config.name,
      state,
      transport: config.target?.transport ?? "unknown",
      numTools: tools.length,
      error: config.isEnabled ? error : "disabled",
    }));
  }

  /**
   * Calls a tool. What goes wrong while it runs is its result.
   *
   * @param name "server__tool"; also of a server that is being connected again
   * @throws {OmlxError} invalid_request: there is no such tool
   */
  async execute(
    name: string,
    args: Record<string, unknown>,
    options: CallOptions = {},
  ): Promise<McpResult> {
    const known = this.tools.find((tool) => tool.name === name);
    for (const connection of this.#connections) {
      const { config, state } = connection;
      if (known) {
        if (known.server === config.name) return connection.call(known.tool, args, options);
        continue;
      }
      const prefix = `${config.name}__`;
      const tool = name.slice(prefix.length);
      if (!name.startsWith(prefix) || !config.isEnabled || !config.allows(tool)) continue;
      if (state !== "connected") return connection.call(tool, args, options);
    }
    const names = this.tools.map((tool) => tool.name);
    const shown = names.slice(0, 20).join(", ") || "(none)";
    throw invalidRequest(
      `There is no MCP tool ${JSON.stringify(name.slice(0, 100))}. Available tools: ${shown}`,
      "tool_name",
    );
  }

  async stop(): Promise<void> {
    await Promise.all(this.#connections.map((connection) => connection.stop()));
  }
}
