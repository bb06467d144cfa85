import type { InputItem } from "./schemas.ts";

/** Marks our own form of a client-kept thought. Nothing is secret in it: it is the model's text. */
const PREFIX = "omlx1.";

/** A thought as text that a client keeps and sends back unread, so that a server without a store knows it again. */
export function sealReasoning(text: string): string {
  return PREFIX + Buffer.from(text, "utf8").toString("base64");
}

/** The thought in a reasoning item: the kept one, else what is readable of it. */
export function openReasoning(item: InputItem): string {
  const kept = item["encrypted_content"];
  if (typeof kept === "string" && kept.startsWith(PREFIX)) {
    return Buffer.from(kept.slice(PREFIX.length), "base64").toString("utf8");
  }
  return textsOf(item.content) || textsOf(item["summary"]);
}

function textsOf(list: unknown): string {
  if (!Array.isArray(list)) return "";
  return list
    .map((part: { text?: unknown } | null) => part?.text)
    .filter((text) => typeof text === "string")
    .join("\n\n");
}
