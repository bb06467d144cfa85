import { invalidRequest, type Tool, type ToolChoice } from "#core/contract";
import { type CountBody, toolSchema, type WireTool } from "./schemas.ts";

/**
 * The tools of one request while its messages are read: blocks in the conversation make further tools known, or take
 * some away.
 */
export class Toolbox {
  readonly #offered = new Map<string, Tool>();
  /** Declared, but not shown before the conversation mentions them. */
  readonly #deferred = new Map<string, Tool>();

  /** @param ignored takes the paths of tools that cannot be served */
  constructor(tools: readonly WireTool[], ignored: string[]) {
    // Deferred tools are found with a search tool. Where that is one of Anthropic's servers, nobody here could find them.
    const canSearch = !tools.some((tool) => tool.type?.startsWith("tool_search_"));
    for (const [i, wire] of tools.entries()) {
      const tool = decodeTool(wire);
      if (tool === undefined || this.#find(tool.name)) ignored.push(`tools[${i}]`);
      else if (canSearch && wire.defer_loading === true) this.#deferred.set(tool.name, tool);
      else this.#offered.set(tool.name, tool);
    }
    if (this.#offered.size === 0) for (const name of this.#deferred.keys()) this.offer(name);
  }

  #find(name: string): Tool | undefined {
    return this.#offered.get(name) ?? this.#deferred.get(name);
  }

  /** Offers a declared tool from now on; false: there is none of that name. */
  offer(name: string): boolean {
    const tool = this.#find(name);
    if (tool === undefined) return false;
    this.#offered.set(name, tool);
    this.#deferred.delete(name);
    return true;
  }

  /** Offers a tool that a message defines; false: it is none that can be called here. */
  define(definition: unknown): boolean {
    const wire = toolSchema.safeParse(definition);
    const tool = wire.success ? decodeTool(wire.data) : undefined;
    if (tool === undefined) return false;
    this.#deferred.delete(tool.name);
    this.#offered.set(tool.name, tool);
    return true;
  }

  /** Offers a tool no more; a later block may offer it again. */
  withdraw(name: string): boolean {
    const tool = this.#offered.get(name);
    if (tool === undefined) return this.#deferred.has(name);
    this.#offered.delete(name);
    this.#deferred.set(name, tool);
    return true;
  }

  /** In the order they were declared, then as they came; so what was rendered before stays as it was. */
  get offered(): readonly Tool[] {
    return [...this.#offered.values()];
  }
}

/** undefined: a tool that Anthropic's servers run, or whose arguments only its own clients know. */
function decodeTool(wire: WireTool): Tool | undefined {
  const { name, type, description, input_schema: schema } = wire;
  if (typeof name !== "string" || name === "") return undefined;
  if (type != null && type !== "custom" && schema == null) return undefined;
  return {
    name,
    description: description ?? undefined,
    parameters: schema ?? { type: "object", properties: {} },
    ...(wire.strict === true ? { strict: true } : {}),
  };
}

/** @throws {OmlxError} invalid_request if a call is demanded that no tool can answer */
export function decodeToolChoice(
  choice: CountBody["tool_choice"],
  tools: readonly Tool[],
): { readonly toolChoice: ToolChoice; readonly parallelToolCalls: boolean } {
  const parallelToolCalls = choice?.disable_parallel_tool_use !== true;
  switch (choice?.type) {
    case undefined:
    case "auto":
      return { toolChoice: { kind: "auto" }, parallelToolCalls };
    case "none":
      return { toolChoice: { kind: "none" }, parallelToolCalls };
    case "any":
      if (tools.length > 0) return { toolChoice: { kind: "required" }, parallelToolCalls };
      throw invalidRequest("Cannot demand a tool call: there is no tool to call", "tool_choice");
    case "tool": {
      const name = choice.name ?? "";
      if (tools.some((tool) => tool.name === name)) {
        return { toolChoice: { kind: "named", name }, parallelToolCalls };
      }
      const shown = JSON.stringify(name.slice(0, 100));
      throw invalidRequest(
        `Cannot demand a call of ${shown}: it is not among the tools that can be served`,
        "tool_choice.name",
      );
    }
  }
}
