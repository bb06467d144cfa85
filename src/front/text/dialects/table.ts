import { deepseekV3, deepseekV31 } from "./deepseek.ts";
import type { Dialect, Thoughts } from "./dialect.ts";
import { functionGemma, gemma } from "./gemma.ts";
import { glm, longcat } from "./glm.ts";
import { harmony } from "./harmony.ts";
import { hermes, qwen3Coder } from "./hermes.ts";
import { dsml, minimax, seed } from "./invoke.ts";
import { cohere, phi } from "./json-list.ts";
import { kimi } from "./kimi.ts";
import { llama } from "./llama.ts";
import { mistral, mistralList } from "./mistral.ts";
import { lfm2, pythonic } from "./pythonic.ts";

/** What a chat template holds that writes this dialect: all of the texts. The first match counts. */
const BY_TEMPLATE: readonly (readonly [dialect: Dialect, ...marks: string[]])[] = [
  [minimax, "<minimax:tool_call>"],
  [gemma, "<|tool_call>", "<tool_call|>"],
  [functionGemma, "<start_function_call>"],
  [longcat, "<longcat_tool_call>"],
  [seed, "<seed:tool_call>"],
  [harmony, "<|channel|>", "<|message|>"],
  [dsml, "｜DSML｜"],
  [deepseekV3, "<｜tool▁calls▁begin｜>", "```json"],
  [deepseekV31, "<｜tool▁calls▁begin｜>"],
  [kimi, "<|tool_calls_section_begin|>"],
  [glm, "<arg_key>"],
  [lfm2, "<|tool_call_start|>"],
  [lfm2, "<|tool_list_start|>"],
  [cohere, "<|START_ACTION|>"],
  [qwen3Coder, "<function=", "<tool_call>"],
  [mistral, "[TOOL_CALLS]", "[ARGS]"],
  [mistralList, "[TOOL_CALLS]"],
  [phi, "<|tool_call|>"],
  [hermes, "<tool_call>"],
  [llama, "<|python_tag|>"],
  [llama, "<|start_header_id|>", '"parameters"'],
  [pythonic, "<|python_start|>"],
];

const DIALECTS: ReadonlyMap<string, Dialect> = new Map(
  BY_TEMPLATE.map(([dialect]) => [dialect.name, dialect] as const),
);

/** For templates that know no tools, and for forced calls where a dialect has no grammar. */
export const FALLBACK = hermes;

export function dialectOf(template: string): Dialect {
  const row = BY_TEMPLATE.find(([, ...marks]) => marks.every((mark) => template.includes(mark)));
  return row?.[0] ?? FALLBACK;
}

export function dialectNamed(name: string): Dialect {
  return DIALECTS.get(name) ?? FALLBACK;
}

const pair = (begin: string, end = begin.replace(/^([<[])/, "$1/")): Thoughts => ({ begin, end });

const THOUGHTS: readonly Thoughts[] = [
  pair("<think>"),
  pair("[THINK]"),
  pair("<seed:think>"),
  pair("<longcat_think>"),
  pair("<mm:think>"),
  pair("<|START_THINKING|>", "<|END_THINKING|>"),
  pair("<|channel>thought\n", "<channel|>"),
];

/** How a model marks its thoughts: in its template, else as tokens of its own; null: it does not. */
export function thoughtsOf(
  dialect: Dialect,
  template: string,
  isToken: (text: string) => boolean,
): Thoughts | null {
  if (dialect.readAnswer !== undefined) return null;
  const known = THOUGHTS.find(({ end }) => template.includes(end));
  return known ?? THOUGHTS.find(({ begin, end }) => isToken(begin) && isToken(end)) ?? null;
}
