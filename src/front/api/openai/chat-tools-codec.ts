import { invalidRequest, type Tool, type ToolChoice } from "#core/contract";
import type { ChatBody, WireTool } from "./schemas.ts";

/** What a request may call, in our words. */
export interface DecodedTools {
  readonly tools: readonly Tool[];
  readonly toolChoice: ToolChoice;
  readonly parallelToolCalls: boolean;
  /** Asked for with "functions", so answered with "function_call". */
  readonly isLegacy: boolean;
}

/**
 * Tools and how they are to be used; what cannot be served is named in `ignored`.
 *
 * @param more tools that the request may choose without bringing them
 * @throws {OmlxError} invalid_request with `param`
 */
export function decodeTools(
  body: ChatBody,
  ignored: string[],
  more: readonly Named[] = [],
): DecodedTools {
  const isLegacy = (body.tools ?? []).length === 0 && (body.functions ?? []).length > 0;
  const wires = isLegacy
    ? (body.functions ?? []).map((wire) => ({ wire, path: "functions" }))
    : (body.tools ?? []).map((tool) => ({ wire: functionOf(tool), path: "tools" }));
  const tools: Tool[] = [];
  const names = new Set<string>();
  for (const [i, { wire, path }] of wires.entries()) {
    const at = `${path}[${i}]`;
    if (wire === undefined) {
      ignored.push(at);
      continue;
    }
    const param = isLegacy ? `${at}.name` : `${at}.function.name`;
    const { name, description, parameters, strict } = wire;
    if (name === "") throw invalidRequest("A tool needs a name", param);
    if (names.has(name)) {
      throw invalidRequest(`Two tools have the name ${JSON.stringify(name.slice(0, 100))}`, param);
    }
    names.add(name);
    tools.push({
      name,
      description: description ?? undefined,
      parameters: parameters ?? undefined,
      ...(strict === true ? { strict: true } : {}),
    });
  }
  const { choice, allowed } = isLegacy
    ? legacyChoice(body, tools)
    : choiceOf(body, [...tools, ...more]);
  return {
    tools: allowed === null ? tools : tools.filter((tool) => allowed.has(tool.name)),
    toolChoice: choice,
    parallelToolCalls: !isLegacy && (body.parallel_tool_calls ?? true),
    isLegacy,
  };
}

/** undefined: a tool that only others can run. */
function functionOf(tool: WireTool) {
  return (tool.type ?? "function") === "function" ? (tool.function ?? undefined) : undefined;
}

type Named = Pick<Tool, "name">;

interface Choice {
  readonly choice: ToolChoice;
  /** Names of the only tools that may be used; null: all. */
  readonly allowed: ReadonlySet<string> | null;
}

function legacyChoice({ function_call: wire }: ChatBody, tools: readonly Named[]): Choice {
  if (wire == null || typeof wire === "string") {
    return { choice: { kind: kindOf(wire ?? "auto", tools, "function_call") }, allowed: null };
  }
  return { choice: named(wire.name, tools, "function_call.name"), allowed: null };
}

function choiceOf({ tool_choice: wire }: ChatBody, tools: readonly Named[]): Choice {
  if (wire == null || typeof wire === "string") {
    return { choice: { kind: kindOf(wire ?? "auto", tools, "tool_choice") }, allowed: null };
  }
  if (wire.type === "allowed_tools") {
    const { mode, tools: listed } = wire.allowed_tools ?? { mode: undefined, tools: undefined };
    const path = "tool_choice.allowed_tools";
    const allowed = new Set(
      (listed ?? []).map((tool, i) => {
        const param = `${path}.tools[${i}].function.name`;
        named(tool.function?.name ?? "", tools, param);
        return tool.function?.name ?? "";
      }),
    );
    const within = tools.filter((tool) => allowed.has(tool.name));
    return { choice: { kind: kindOf(mode ?? "auto", within, `${path}.mode`) }, allowed };
  }
  return {
    choice: named(wire.function?.name ?? wire.name ?? "", tools, "tool_choice.function.name"),
    allowed: null,
  };
}

const KINDS: Readonly<Record<string, "auto" | "none" | "required">> = {
  auto: "auto",
  none: "none",
  required: "required",
  any: "required",
};

function kindOf(text: string, tools: readonly Named[], param: string) {
  const kind = Object.hasOwn(KINDS, text) ? KINDS[text] : undefined;
  if (kind === undefined) {
    throw invalidRequest(
      `Invalid value for "${param}": expected "none", "auto", "required" or a tool`,
      param,
    );
  }
  if (kind === "required" && tools.length === 0) {
    throw invalidRequest("Cannot demand a tool call: there is no tool to call", param);
  }
  return kind;
}

function named(name: string, tools: readonly Named[], param: string): ToolChoice {
  if (tools.some((tool) => tool.name === name)) return { kind: "named", name };
  throw invalidRequest(
    `Cannot use the tool ${JSON.stringify(name.slice(0, 100))}: it is not among the request's tools`,
    param,
  );
}
