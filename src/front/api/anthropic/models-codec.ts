import type { z } from "zod";
import { invalidRequest, type ModelEntry } from "#core/contract";
import type { modelInfo, modelPage } from "./answers.ts";

const DEFAULT_LIMIT = 20;
const MAX_LIMIT = 1000;

/** Whether Messages can ask for it: Anthropic's lists know no other models. */
export const canAnswer = ({ kind, problem }: ModelEntry): boolean =>
  kind === "llm" && problem === undefined;

/** Anthropic's model object. What a local file does not say is null. */
export function encodeModelInfo(entry: ModelEntry): z.output<typeof modelInfo> {
  const window = entry.contextWindow > 0 ? entry.contextWindow : null;
  return {
    type: "model",
    id: entry.id,
    display_name: entry.id,
    created_at: new Date(Math.floor(entry.created) * 1000).toISOString().replace(".000Z", "Z"),
    max_input_tokens: window,
    max_tokens: window,
    capabilities: null,
    lifecycle: "active",
    line: null,
    deprecated_at: null,
    retires_at: null,
  };
}

/**
 * One page of the models that can answer, the newest first.
 *
 * @param query `limit`, and `after_id` or `before_id`: the items just behind or just before that one
 * @throws {OmlxError} invalid_request
 */
export function encodeModelPage(
  entries: readonly ModelEntry[],
  query: URLSearchParams,
): z.output<typeof modelPage> {
  const all = entries.filter(canAnswer).sort((a, b) => b.created - a.created);
  const limit = limitOf(query.get("limit"));
  const after = placeOf(all, query, "after_id");
  const before = placeOf(all, query, "before_id");
  if (after !== undefined && before !== undefined) {
    throw invalidRequest('Only one of "after_id" and "before_id" can be given', "before_id");
  }
  const begin = before === undefined ? (after ?? -1) + 1 : Math.max(0, before - limit);
  const end = before ?? Math.min(all.length, begin + limit);
  const data = all.slice(begin, end).map(encodeModelInfo);
  return {
    data,
    has_more: before === undefined ? end < all.length : begin > 0,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
  };
}

function limitOf(text: string | null): number {
  if (text === null) return DEFAULT_LIMIT;
  const limit = Number(text);
  if (/^\d+$/.test(text) && limit >= 1 && limit <= MAX_LIMIT) return limit;
  throw invalidRequest(`"limit" must be an integer from 1 to ${MAX_LIMIT}`, "limit");
}

function placeOf(
  entries: readonly ModelEntry[],
  query: URLSearchParams,
  param: "after_id" | "before_id",
): number | undefined {
  const id = query.get(param);
  if (id === null) return undefined;
  const index = entries.findIndex((entry) => entry.id === id);
  if (index < 0) throw invalidRequest(`"${param}" is not the id of one of the models`, param);
  return index;
}
