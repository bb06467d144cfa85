import { invalidRequest, type Tool, type ToolChoice } from "#core/contract";
import type { WireTool, WireToolChoice } from "./schemas.ts";

/** How a call of one of our tools is written on the wire. */
export interface WireCall {
  readonly kind: "function" | "custom" | "local_shell" | "shell" | "apply_patch" | "tool_search";
  /** As the client named the tool. */
  readonly name: string;
  /** The group that the client put it in. */
  readonly namespace?: string | undefined;
}

/** A request's tools in our words, and the way back to the client's. */
export interface DecodedTools {
  readonly tools: readonly Tool[];
  /** By our name. */
  readonly calls: ReadonlyMap<string, WireCall>;
  /** Servers of the configuration whose tools the request asks for. */
  readonly mcp: readonly McpLabel[];
}

/** A tool entry of type "mcp". */
export interface McpLabel {
  readonly path: string;
  readonly server: string;
  /** Their names at the server; null: all. */
  readonly tools: readonly string[] | null;
}

const strings = { type: "array", items: { type: "string" } } as const;
const object = (properties: Record<string, unknown>, required: readonly string[]) => ({
  type: "object",
  properties,
  required,
  additionalProperties: false,
});

/** Tools that a client runs itself and that the model must be told the arguments of. */
const CLIENT_TOOLS: Readonly<Record<string, Omit<Tool, "name"> & Pick<WireCall, "kind">>> = {
  local_shell: {
    kind: "local_shell",
    description: "Runs a command on the user's machine.",
    parameters: object(
      {
        command: { ...strings, description: "The program and its arguments." },
        working_directory: { type: "string" },
        timeout_ms: { type: "integer" },
        env: { type: "object", additionalProperties: { type: "string" } },
      },
      ["command"],
    ),
  },
  shell: {
    kind: "shell",
    description: "Runs shell commands and returns what they print.",
    parameters: object(
      {
        commands: strings,
        timeout_ms: { type: "integer" },
        max_output_length: { type: "integer" },
      },
      ["commands"],
    ),
  },
  apply_patch: {
    kind: "apply_patch",
    description: "Creates, updates or deletes one file.",
    parameters: object(
      {
        type: { type: "string", enum: ["create_file", "update_file", "delete_file"] },
        path: { type: "string" },
        diff: { type: "string", description: "A V4A diff; not needed to delete." },
      },
      ["type", "path"],
    ),
  },
};

/** The one argument of a tool that takes free text. */
export const FREEFORM_ARGUMENT = "input";

/**
 * Tools of the request and of the input's own tool items: functions, groups of them, free-form tools and the ones that
 * clients run themselves. Tools that a server would have to run are left out and named in `ignored`.
 *
 * @throws {OmlxError} invalid_request
 */
export function decodeTools(
  wire: readonly { readonly tool: WireTool; readonly path: string }[],
  ignored: string[],
): DecodedTools {
  const tools: Tool[] = [];
  const calls = new Map<string, WireCall>();
  const mcp: McpLabel[] = [];

  const add = (tool: Omit<Tool, "name">, call: WireCall): void => {
    const { namespace, name } = call;
    let ours = namespace === undefined ? name : joined(namespace, name);
    if (calls.has(ours) && sameCall(calls.get(ours), call)) return; // the same tool, told again
    while (calls.has(ours)) ours += "_";
    calls.set(ours, call);
    tools.push({ name: ours, ...tool });
  };

  const addOne = (tool: WireTool, path: string, namespace?: string): void => {
    const known = CLIENT_TOOLS[tool.type];
    if (tool.type === "namespace") {
      const members = Array.isArray(tool["tools"]) ? (tool["tools"] as WireTool[]) : [];
      members.forEach((member, i) => {
        addOne(member, `${path}.tools[${i}]`, nameOf(tool, path));
      });
    } else if (tool.type === "function") {
      add(functionTool(tool), { kind: "function", name: nameOf(tool, path), namespace });
    } else if (tool.type === "mcp") {
      mcp.push(decodeMcp(tool, path));
    } else if (tool.type === "custom") {
      add(customTool(tool), { kind: "custom", name: nameOf(tool, path), namespace });
    } else if (tool.type === "tool_search" && tool["execution"] === "client") {
      add(functionTool(tool), { kind: "tool_search", name: "tool_search" });
    } else if (known && Object.hasOwn(CLIENT_TOOLS, tool.type)) {
      const { kind, ...rest } = known;
      add(rest, { kind, name: tool.type });
    } else ignored.push(`${path} (${tool.type})`);
  };

  for (const { tool, path } of wire) addOne(tool, path);
  return { tools, calls, mcp };
}

function decodeMcp(tool: WireTool, path: string): McpLabel {
  const server = tool["server_label"];
  if (typeof server !== "string" || server === "") {
    const field = `${path}.server_label`;
    throw invalidRequest(`Invalid value for "${field}": expected a name`, field);
  }
  const approval = tool["require_approval"];
  if (approval === "always") {
    const field = `${path}.require_approval`;
    throw invalidRequest(`"${field}": calls cannot wait for an approval here, use "never"`, field);
  }
  const allowed = tool["allowed_tools"] as readonly string[] | { tool_names?: string[] } | null;
  const names = Array.isArray(allowed)
    ? (allowed as readonly string[])
    : ((allowed as { tool_names?: string[] } | null)?.tool_names ?? null);
  return { path, server, tools: names };
}

/** "mcp__server__" and "read" make "mcp__server__read", "files" and "read" make "files__read". */
function joined(namespace: string, name: string): string {
  return /[_./:-]$/.test(namespace) ? namespace + name : `${namespace}__${name}`;
}

function sameCall(a: WireCall | undefined, b: WireCall): boolean {
  return a?.kind === b.kind && a.name === b.name && a.namespace === b.namespace;
}

function nameOf(tool: WireTool, path: string): string {
  if (tool.name) return tool.name;
  throw invalidRequest(`Invalid value for "${path}.name": expected a name`, `${path}.name`);
}

function functionTool(tool: WireTool): Omit<Tool, "name"> {
  return {
    description: tool.description ?? undefined,
    parameters: tool["parameters"] ?? undefined,
    strict: tool.strict ?? undefined,
  };
}

/** A tool that takes free text is a function of one string to the model; what the text may be is told in words. */
function customTool(tool: WireTool): Omit<Tool, "name"> {
  const format = tool["format"] as { definition?: unknown; syntax?: unknown } | null | undefined;
  const grammar =
    typeof format?.definition === "string"
      ? `The input follows this ${String(format.syntax ?? "")} grammar:\n${format.definition}`
      : "";
  return {
    description: [tool.description ?? "", grammar].filter((text) => text !== "").join("\n\n"),
    parameters: object({ [FREEFORM_ARGUMENT]: { type: "string" } }, [FREEFORM_ARGUMENT]),
  };
}

/** What of a request's tool_choice is left after the tools are known. */
export interface DecodedChoice {
  readonly choice: ToolChoice;
  /** Our names of the only tools that may be used; null: all. */
  readonly allowed: ReadonlySet<string> | null;
}

/**
 * @param mcpTools tools that the server may add
 * @throws {OmlxError} invalid_request with `param`
 */
export function decodeToolChoice(
  wire: WireToolChoice | null | undefined,
  tools: DecodedTools,
  mcpTools: readonly { readonly name: string }[] = [],
): DecodedChoice {
  if (wire == null) return { choice: { kind: "auto" }, allowed: null };
  if (typeof wire === "string") {
    return { choice: { kind: kindOf(wire, tools, mcpTools.length) }, allowed: null };
  }
  const mcpName = mcpNameOf(wire);
  if (mcpTools.some(({ name }) => name === mcpName)) {
    return { choice: { kind: "named", name: mcpName }, allowed: null };
  }
  if (wire.type === "mcp" && wire["name"] == null && mcpTools.length > 0) {
    return { choice: { kind: "required" }, allowed: null };
  }
  if (wire.type === "allowed_tools") {
    const listed = Array.isArray(wire["tools"]) ? (wire["tools"] as WireTool[]) : [];
    const allowed = new Set(listed.map((tool, i) => find(tool, tools, `tool_choice.tools[${i}]`)));
    return { choice: { kind: kindOf(String(wire["mode"] ?? "auto"), tools) }, allowed };
  }
  const name = find(wire as WireTool, tools, "tool_choice");
  return { choice: { kind: "named", name }, allowed: null };
}

/** A tool of an MCP server, chosen as such or by its full name. */
function mcpNameOf(wire: Exclude<WireToolChoice, string>): string {
  const { server_label: label, name } = wire;
  return wire.type === "mcp" ? `${String(label)}__${String(name)}` : String(name);
}

function kindOf(text: string, { tools }: DecodedTools, numMore = 0): "auto" | "none" | "required" {
  if (text !== "auto" && text !== "none" && text !== "required") {
    throw invalidRequest(
      'Invalid value for "tool_choice": expected "auto", "none", "required" or an object',
      "tool_choice",
    );
  }
  if (text === "required" && tools.length + numMore === 0) {
    throw invalidRequest('"tool_choice" asks for a call, but there are no tools', "tool_choice");
  }
  return text;
}

/** Our name of the tool that a choice points at. */
function find(wire: WireTool, { calls }: DecodedTools, path: string): string {
  const wanted = wire.name ?? wire.type;
  for (const [ours, call] of calls) {
    if (call.name !== wanted && ours !== wanted) continue;
    if (wire["namespace"] != null && wire["namespace"] !== call.namespace) continue;
    return ours;
  }
  throw invalidRequest(`"${path}" names a tool that is not among the tools`, path);
}
