import { join } from "node:path";
import { isObject, type JsonObject, readJsonFile, readTextFile } from "#core/formats";

/** A model's chat templates: the usual one, and perhaps one for conversations with tools. */
export interface TemplateSources {
  readonly default: string;
  readonly toolUse: string | null;
}

/**
 * The chat templates of a model folder: chat_template.jinja, else chat_template.json, else tokenizer_config.json's
 * chat_template, a text or a named list. null: it has none.
 */
export function findTemplates(folder: string, tokenizerConfig: JsonObject): TemplateSources | null {
  const file = readTextFile(join(folder, "chat_template.jinja"));
  if (file !== null) return { default: file, toolUse: null };
  const json = readJsonFile(join(folder, "chat_template.json"))?.["chat_template"];
  return templatesOf(json) ?? templatesOf(tokenizerConfig["chat_template"]);
}

function templatesOf(value: unknown): TemplateSources | null {
  if (typeof value === "string") return { default: value, toolUse: null };
  if (!Array.isArray(value)) return null;
  const named = new Map<string, string>();
  for (const entry of value) {
    if (!isObject(entry)) continue;
    const { name, template } = entry;
    if (typeof name === "string" && typeof template === "string") named.set(name, template);
  }
  const usual = named.get("default") ?? [...named.values()][0];
  return usual === undefined ? null : { default: usual, toolUse: named.get("tool_use") ?? null };
}
