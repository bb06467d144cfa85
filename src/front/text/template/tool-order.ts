import type { Tool } from "#core/contract";
import { isObject } from "#core/formats";

const MAX_TOOLS = 2048;

/**
 * Renders a tool the same way each time: clients that keep objects without an order send its keys in another one with
 * every request, and each would be another prompt. The first order that was seen stays.
 */
export class ToolOrder {
  readonly #seen = new Map<string, Tool>();

  settle(tool: Tool): Tool {
    const key = JSON.stringify(sorted(tool));
    const seen = this.#seen.get(key);
    if (seen !== undefined) return seen;
    if (this.#seen.size >= MAX_TOOLS) this.#seen.clear();
    this.#seen.set(key, tool);
    return tool;
  }
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (!isObject(value)) return value;
  const entries = Object.entries(value).map(([key, item]) => [key, sorted(item)] as const);
  return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)));
}
