import { invalidRequest } from "#core/contract";
import type { InputItem } from "./schemas.ts";

const PREFIXES: Readonly<Record<string, string>> = {
  message: "msg",
  reasoning: "rs",
  function_call: "fc",
  custom_tool_call: "ctc",
};

/** The item as it is stored and listed: with a type and an id, its text as a part. */
export function withId(item: InputItem): InputItem {
  const type = item.type ?? (item.role == null ? "unknown" : "message");
  const id = item.id ?? `${PREFIXES[type] ?? "item"}_${crypto.randomUUID().replaceAll("-", "")}`;
  if (type !== "message" || typeof item.content !== "string") return { ...item, type, id };
  const kind = item.role === "assistant" ? "output_text" : "input_text";
  const content = [
    { type: kind, text: item.content, ...(kind === "output_text" ? { annotations: [] } : {}) },
  ];
  return { ...item, type, id, status: "completed", content };
}

/**
 * One page of items.
 *
 * @param query limit (1 to 100, default 20), order ("desc" by default: newest first), after (an id)
 * @throws {OmlxError} invalid_request
 */
export function pageOf(items: readonly InputItem[], query: Readonly<Record<string, string>>) {
  const limit = Number(query["limit"] ?? 20);
  if (!Number.isInteger(limit) || limit < 1 || limit > 100) {
    throw invalidRequest('"limit" must be an integer from 1 to 100', "limit");
  }
  const ordered = query["order"] === "asc" ? [...items] : items.toReversed();
  const after = query["after"];
  const from = after === undefined ? 0 : ordered.findIndex((item) => item.id === after) + 1;
  if (after !== undefined && from === 0) {
    throw invalidRequest('"after" is not the id of one of the items', "after");
  }
  const data = ordered.slice(from, from + limit);
  return {
    object: "list",
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: from + limit < ordered.length,
  };
}
