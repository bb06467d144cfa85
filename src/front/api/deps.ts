import type { Pool } from "#front/pool";
import type { McpTools } from "#front/service";
import type { OpenRequests } from "./open-requests.ts";

/** What the routes are made of. */
export interface AppDeps {
  readonly pool: Pool;
  /** Empty: no key is asked for. */
  readonly apiKey: string;
  readonly version: string;
  /** Silence on the wire after which a waiting client gets a sign of life. */
  readonly keepAliveMs: number;
  /** Largest request body in bytes, as sent and as decoded. */
  readonly bodyLimit: number;
  /** Where stored responses lie; made when it is first needed. */
  readonly responsesFolder: string;
  /** null: no MCP servers are configured. */
  readonly mcp: McpTools | null;
  readonly requests: OpenRequests;
  /** Ends every open request with its reason. */
  readonly shutdown: AbortSignal;
}

/** What a route needs of Bun's server. */
export interface Server {
  timeout(request: Request, seconds: number): void;
}
