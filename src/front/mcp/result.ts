/** A part of a tool's result, as MCP has it. */
export type McpBlock =
  | { readonly type: "text"; readonly text: string }
  | { readonly type: "image" | "audio"; readonly data: string; readonly mimeType: string }
  | { readonly type: "resource" | "resource_link"; readonly [field: string]: unknown };

/** What a call gave. A failure is a result, too. */
export interface McpResult {
  readonly blocks: readonly McpBlock[];
  /** JSON that the tool gave beside its text. */
  readonly structured: unknown;
  readonly isError: boolean;
}

/** Characters of all blocks together that a result may have. */
const MAX_CHARS = 10 * 2 ** 20;
/** Characters of a result that a model reads. */
const MAX_MODEL_CHARS = 64 * 2 ** 10;

const cutNotice = (total: number, shown: number): string =>
  `\n[output cut: ${shown} of ${total} characters are shown]`;

/** A server's own words of a result, with what is too long cut and what is not understood left out. */
export function readResult(raw: {
  readonly content?: unknown;
  readonly structuredContent?: unknown;
  readonly isError?: unknown;
}): McpResult {
  let left = MAX_CHARS;
  const listed = Array.isArray(raw.content) ? raw.content : [];
  const blocks = listed.flatMap((block: unknown): McpBlock[] => {
    const bounded = boundBlock(block, left);
    left -= JSON.stringify(bounded).length;
    return bounded === null ? [] : [bounded];
  });
  return { blocks, structured: raw.structuredContent, isError: raw.isError === true };
}

export const failure = (message: string): McpResult => ({
  blocks: [{ type: "text", text: message }],
  structured: undefined,
  isError: true,
});

function boundBlock(block: unknown, left: number): McpBlock | null {
  if (typeof block !== "object" || block === null) return null;
  const { type, text } = block as { type?: unknown; text?: unknown };
  if (type === "text" && typeof text === "string") {
    return { type, text: cut(text, Math.max(0, left)) };
  }
  if (typeof type !== "string") return null;
  const size = JSON.stringify(block).length;
  if (size <= left) return block as McpBlock;
  return { type: "text", text: `[${type} of ${size} characters left out: it is too large]` };
}

const cut = (text: string, max: number): string =>
  text.length <= max ? text : text.slice(0, max).toWellFormed() + cutNotice(text.length, max);

/** A result as a model reads it: text, and a note for what is no text. */
export function textOfResult({ blocks, structured }: McpResult): string {
  const parts = blocks.map((block): string => {
    switch (block.type) {
      case "text":
        return block.text;
      case "image":
      case "audio":
        return `[${block.type}, ${block.mimeType}: this model reads text only]`;
      default:
        return textOfResource(block);
    }
  });
  const text = parts.length > 0 ? parts.join("\n") : JSON.stringify(structured ?? "");
  return cut(text, MAX_MODEL_CHARS);
}

function textOfResource(block: Readonly<Record<string, unknown>>): string {
  const resource = block["resource"] as { uri?: unknown; text?: unknown } | undefined;
  if (typeof resource?.text === "string") return resource.text;
  return `[resource ${String(resource?.uri ?? block["uri"] ?? "")}]`;
}
