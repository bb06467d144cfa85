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
  /** Nothing is listed at the start, so what comes later must be. */
  readonly #isListEmpty: boolean;

  /** @param ignored takes the paths of tools that cannot be served */
  constructor(tools: readonly WireTool[], ignored: string[]) {
    // Deferred tools are found with a search tool. Where that is one of Anthropic's servers, nobody here could find them.
    const canSearch = !tools.some((tool) => tool.type?.startsWith("tool_search_"));
    for (const [i, wire] of tools.entries()) {
      const tool = decodeTool(wire);
      if (tool === undefined || this.#offered.has(tool.name) || this.#deferred.has(tool.name)) {
        ignored.push(`tools[${i}]`);
      } else if (canSearch && wire.defer_loading === true) this.#deferred.set(tool.name, tool);
      else this.#offered.set(tool.name, tool);
    }
    if (this.#offered.size === 0) {
      for (const [name, tool] of this.#deferred) this.#offered.set(name, tool);
      this.#deferred.clear();
    }
    this.#isListEmpty = this.#offered.size === 0;
  }

  /**
   * Offers a declared tool from now on.
   *
   * @returns what the model must read at this place; undefined: there is no tool of that name
   */
  offer(name: string): string | undefined {
    if (this.#offered.has(name)) return `Tool available: ${name}`;
    const tool = this.#deferred.get(name);
    return tool && this.#add(tool);
  }

  /**
   * Offers a tool that a message defines.
   *
   * @returns what the model must read at this place; undefined: it is no tool that can be called here
   */
  define(definition: unknown): string | undefined {
    const wire = toolSchema.safeParse(definition);
    const tool = wire.success ? decodeTool(wire.data) : undefined;
    return tool && this.#add(tool);
  }

  /** The list at the start stays as it was, so that the prompt before this place stays in the cache. */
  #add(tool: Tool): string {
    const { name, description, parameters } = tool;
    this.#deferred.delete(name);
    this.#offered.set(name, this.#isListEmpty ? tool : { ...tool, isTold: true });
    if (this.#isListEmpty) return `Tool available: ${name}`;
    return `Tool available from here on: ${JSON.stringify({ name, description, parameters })}`;
  }

  /**
   * Offers a tool no more; a later block may offer it again.
   *
   * @returns what the model must read at this place; undefined: there is no tool of that name
   */
  withdraw(name: string): string | undefined {
    const tool = this.#offered.get(name);
    if (tool === undefined) return undefined;
    this.#offered.delete(name);
    this.#deferred.set(name, tool);
    return `Tool no longer available: ${name}`;
  }

  /** In the order they were declared, then as they came. */
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
  tools: readonly Pick<Tool, "name">[],
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
