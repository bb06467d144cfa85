import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { z } from "zod";
import { invalidRequest } from "#core/contract";
import { expandPath, expandVariables } from "#front/config";

/** How one server is reached. */
export type McpTarget =
  | {
      readonly transport: "stdio";
      readonly command: string;
      readonly args: readonly string[];
      readonly env: Readonly<Record<string, string>>;
      readonly cwd: string | undefined;
    }
  | {
      readonly transport: "streamable-http" | "sse";
      readonly url: string;
      readonly headers: Readonly<Record<string, string>>;
    };

export interface McpServerConfig {
  readonly name: string;
  /** null: the entry is broken, see `problem`. */
  readonly target: McpTarget | null;
  readonly problem: string | undefined;
  readonly isEnabled: boolean;
  /** For connecting, and for a call while it shows no progress. */
  readonly timeoutMs: number;
  /** Whether a tool of this name, as the server calls it, is offered. */
  readonly allows: (tool: string) => boolean;
}

export interface McpConfig {
  readonly servers: readonly McpServerConfig[];
}

const DEFAULT_TIMEOUT_S = 30;
const MAX_TIMEOUT_MS = 3_600_000;

const names = z.array(z.string());
const entry = z.looseObject({
  transport: z.string().optional(),
  type: z.string().optional(),
  command: z.string().optional(),
  args: z.array(z.coerce.string()).optional(),
  env: z.record(z.string(), z.coerce.string()).optional(),
  cwd: z.string().optional(),
  url: z.string().optional(),
  httpUrl: z.string().optional(),
  serverUrl: z.string().optional(),
  headers: z.record(z.string(), z.coerce.string()).optional(),
  timeout: z.number().positive().optional(),
  enabled: z.boolean().optional(),
  disabled: z.boolean().optional(),
});
type Entry = z.output<typeof entry>;

const file = z.looseObject({
  servers: z.record(z.string(), z.unknown()).optional(),
  mcpServers: z.record(z.string(), z.unknown()).optional(),
  default_timeout: z.number().positive().optional(),
});

/** What clients call the lists of tools that a server may, or may not, offer. */
const ALLOW = [
  "allow_tools",
  "allowed_tools",
  "allowedTools",
  "enabled_tools",
  "enabledTools",
  "includeTools",
];
const DENY = [
  "deny_tools",
  "denied_tools",
  "deniedTools",
  "disabled_tools",
  "disabledTools",
  "excludeTools",
];

/**
 * Reads a configuration file: `{"mcpServers": {name: {command, args, env} or {url, headers}}}` as other clients write it, or the
 * same below `servers`; JSON, or YAML by its name.
 *
 * A broken entry is told in its own status; the others are served.
 *
 * @throws {OmlxError} invalid_request when the file cannot be read or is no such object
 */
export function readMcpConfig(path: string): McpConfig {
  const name = basename(path);
  let raw: unknown;
  try {
    const text = readFileSync(path, "utf8");
    raw = /\.ya?ml$/i.test(path) ? Bun.YAML.parse(text) : JSON.parse(text);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw invalidRequest(`Cannot read the MCP configuration ${name}: ${reason}`);
  }
  const parsed = file.safeParse(raw);
  if (!parsed.success) {
    throw invalidRequest(
      `Cannot read the MCP configuration ${name}: expected an object with "mcpServers"`,
    );
  }
  const { servers, mcpServers, default_timeout } = parsed.data;
  const all = { ...servers, ...mcpServers };
  return {
    servers: Object.entries(all).map(([server, value]) =>
      readServer(server, value, default_timeout ?? DEFAULT_TIMEOUT_S),
    ),
  };
}

function readServer(name: string, value: unknown, defaultTimeout: number): McpServerConfig {
  const parsed = entry.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    return broken(name, `${issue?.path.join(".") || "the entry"}: ${issue?.message ?? "invalid"}`);
  }
  const { data } = parsed;
  const base = {
    name,
    isEnabled: (data.enabled ?? true) && !(data.disabled ?? false),
    timeoutMs: timeoutOf(data.timeout ?? defaultTimeout),
    allows: allowsOf(data),
  };
  try {
    return { ...base, target: targetOf(data), problem: undefined };
  } catch (error) {
    const problem = error instanceof Error ? error.message : String(error);
    return { ...base, target: null, problem };
  }
}

const broken = (name: string, problem: string): McpServerConfig => ({
  name,
  target: null,
  problem,
  isEnabled: true,
  timeoutMs: DEFAULT_TIMEOUT_S * 1000,
  allows: () => true,
});

/** Seconds; numbers that are too large for seconds are milliseconds, as some clients write them. */
const timeoutOf = (value: number): number =>
  Math.min(MAX_TIMEOUT_MS, value >= 1000 ? value : value * 1000);

function targetOf(data: Entry): McpTarget {
  const kind = (data.transport ?? data.type ?? "").toLowerCase().replaceAll("_", "-");
  const url = data.url ?? data.httpUrl ?? data.serverUrl;
  if (kind === "stdio" || (kind === "" && data.command !== undefined)) {
    if (!data.command) throw invalidRequest('"command" is missing');
    return {
      transport: "stdio",
      command: expandHome(expandVariables(data.command)),
      args: (data.args ?? []).map((arg) => expandVariables(arg)),
      env: expandAll(data.env),
      cwd: data.cwd === undefined ? undefined : expandPath(expandVariables(data.cwd)),
    };
  }
  const transport = HTTP_KINDS[kind];
  if (transport === undefined) {
    throw invalidRequest(
      `transport "${kind}" is not known; known are stdio, streamable-http and sse`,
    );
  }
  if (!url) throw invalidRequest('"url" is missing (or "command", for a program)');
  const expanded = expandVariables(url);
  if (!/^https?:$/.test(URL.parse(expanded)?.protocol ?? "")) {
    throw invalidRequest('"url" must begin with http:// or https://');
  }
  return { transport, url: expanded, headers: expandAll(data.headers) };
}

const HTTP_KINDS: Readonly<Record<string, "streamable-http" | "sse">> = {
  "": "streamable-http",
  http: "streamable-http",
  "streamable-http": "streamable-http",
  streamablehttp: "streamable-http",
  sse: "sse",
};

const expandHome = (command: string): string =>
  command.startsWith("~/") ? expandPath(command) : command;

const expandAll = (values: Readonly<Record<string, string>> = {}): Record<string, string> =>
  Object.fromEntries(Object.entries(values).map(([key, text]) => [key, expandVariables(text)]));

function allowsOf(data: Entry): (tool: string) => boolean {
  const allow = patterns(data, ALLOW);
  const deny = patterns(data, DENY) ?? [];
  return (tool) =>
    (allow === null || allow.some((pattern) => pattern.test(tool))) &&
    !deny.some((pattern) => pattern.test(tool));
}

/** "*" in a name stands for any characters. */
function patterns(data: Entry, keys: readonly string[]): RegExp[] | null {
  const lists = keys.flatMap((key) => {
    const list = names.safeParse(data[key]);
    return list.success ? [list.data] : [];
  });
  if (lists.length === 0) return null;
  return lists
    .flat()
    .map((name) => new RegExp(`^${name.split("*").map(RegExp.escape).join(".*")}$`));
}
