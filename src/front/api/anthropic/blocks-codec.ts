import { invalidRequest, type Message, type ToolCall } from "#core/contract";
import type { WireBlock, WireMessage } from "./schemas.ts";
import { thoughtsOf } from "./signature-codec.ts";
import type { Toolbox } from "./tools-codec.ts";

/** What reading the messages of one request leaves behind besides the messages. */
export interface Reading {
  readonly tools: Toolbox;
  /** Names of the calls met so far, by id. */
  readonly calls: Map<string, string>;
  /** Paths of what was not understood. */
  readonly ignored: string[];
  /** What was replaced by words, a sentence each. */
  readonly notes: string[];
}

/** Changes with every request of some clients, which would make every prompt new from its first line on. */
const BILLING = /^[ \t]*x-anthropic-billing-header:[^\n]*(?:\n|$)/gm;
const BUDGET = /\n?<total_tokens>\s*-?[\d.,]+ tokens left\s*<\/total_tokens>/g;

const withoutMarkers = (text: string): string => text.replace(BUDGET, "");

/** Text for the model alone, without what clients write into it for Anthropic's own servers. */
const systemText = (text: string): string => withoutMarkers(text.replace(BILLING, ""));

/** Blocks are paragraphs: no word runs into the next block's first one. */
function joinBlocks(texts: readonly string[]): string {
  return texts.reduce((all, text) => {
    if (all === "" || text === "") return all + text;
    return all.endsWith("\n") || text.startsWith("\n") ? all + text : `${all}\n${text}`;
  }, "");
}

const message = (role: Message["role"], text: string): Message => ({
  role,
  parts: text === "" ? [] : [{ kind: "text", text }],
});

/** The system prompt as a message of its own; none if nothing of it is left. */
export function decodeSystem(content: WireMessage["content"], reading: Reading): Message[] {
  const text = systemContent(content, "system", reading);
  return text === "" ? [] : [message("system", text)];
}

function systemContent(content: WireMessage["content"], path: string, reading: Reading): string {
  if (typeof content === "string") return systemText(content);
  return joinBlocks(
    (content ?? []).map((block, i) => systemText(blockText(block, `${path}[${i}]`, reading))),
  );
}

/** One message of the client as the messages that it means, in their order. */
export function decodeMessage(wire: WireMessage, path: string, reading: Reading): Message[] {
  const content = `${path}.content`;
  switch (wire.role) {
    case "system":
    case "developer": {
      const text = systemContent(wire.content, content, reading);
      return text === "" ? [] : [message("system", text)];
    }
    case "assistant":
      return decodeAssistant(wire.content, content, reading);
    case "user":
      return decodeUser(wire.content, content, reading);
    default:
      reading.ignored.push(`${path}.role`);
      return decodeUser(wire.content, content, reading);
  }
}

const blocksOf = (content: WireMessage["content"]): readonly WireBlock[] =>
  typeof content === "string" ? [{ type: "text", text: content }] : (content ?? []);

/** One message, or several where the server ran calls in the midst of the answer. */
function decodeAssistant(
  content: WireMessage["content"],
  path: string,
  reading: Reading,
): Message[] {
  const done: Message[] = [];
  let texts: string[] = [];
  let thoughts: string[] = [];
  let toolCalls: ToolCall[] = [];
  const finish = () => {
    if (texts.length + thoughts.length + toolCalls.length === 0 && done.length > 0) return;
    done.push(assistantMessage(texts, thoughts, toolCalls));
    texts = [];
    thoughts = [];
    toolCalls = [];
  };
  for (const [i, block] of blocksOf(content).entries()) {
    if (block.type === "thinking") {
      thoughts.push(thoughtsOf(block["thinking"], block["signature"]));
    } else if (block.type === "tool_use" && typeof block["name"] === "string") {
      const id = typeof block["id"] === "string" ? block["id"] : "";
      toolCalls.push({ id, name: block["name"], arguments: argumentText(block["input"]) });
      reading.calls.set(id, block["name"]);
    } else if (block.type === "mcp_tool_use" && typeof block["name"] === "string") {
      const id = typeof block["id"] === "string" ? block["id"] : "";
      const name = `${String(block["server_name"] ?? "")}__${block["name"]}`;
      toolCalls.push({ id, name, arguments: argumentText(block["input"]) });
      reading.calls.set(id, name);
    } else if (block.type === "mcp_tool_result") {
      if (toolCalls.length > 0) finish();
      const id = typeof block["tool_use_id"] === "string" ? block["tool_use_id"] : "";
      const text = resultText(block, `${path}[${i}]`, reading);
      const name = reading.calls.get(id);
      done.push({ ...message("tool", text), toolCallId: id, ...(name ? { name } : {}) });
    } else {
      texts.push(blockText(block, `${path}[${i}]`, reading));
    }
  }
  finish();
  return done;
}

function assistantMessage(
  texts: readonly string[],
  thoughts: readonly string[],
  toolCalls: readonly ToolCall[],
): Message {
  const reasoning = joinBlocks(thoughts);
  return {
    // An answer's blocks were one text, cut only by thoughts and calls.
    ...message("assistant", texts.join("")),
    ...(reasoning === "" ? {} : { reasoning }),
    ...(toolCalls.length === 0 ? {} : { toolCalls }),
  };
}

const argumentText = (input: unknown): string =>
  typeof input === "string" ? input : JSON.stringify(input ?? {});

/**
 * Results come first, as they must follow their calls directly; a result without a call is something the user says.
 */
function decodeUser(content: WireMessage["content"], path: string, reading: Reading): Message[] {
  const results: Message[] = [];
  const texts: string[] = [];
  for (const [i, block] of blocksOf(content).entries()) {
    const at = `${path}[${i}]`;
    if (block.type !== "tool_result") {
      texts.push(withoutMarkers(blockText(block, at, reading)));
      continue;
    }
    const id = typeof block["tool_use_id"] === "string" ? block["tool_use_id"] : "";
    const text = resultText(block, at, reading);
    const name = reading.calls.get(id);
    if (name === undefined) texts.push(`[Tool result (${id})]: ${text}`);
    else results.push({ ...message("tool", text), name, toolCallId: id });
  }
  const text = joinBlocks(texts);
  if (results.length > 0 && text === "") return results;
  return [...results, message("user", text)];
}

/** Tools tell of errors in their own words most times; where they do not, one word says so. */
function resultText(block: WireBlock, path: string, reading: Reading): string {
  const content = block["content"];
  const text = typeof content === "string" ? content : nestedText(content, path, reading);
  if (block["is_error"] !== true || /^\W*\w*error/i.test(text)) return text;
  return text === "" ? "Error" : `Error: ${text}`;
}

/** The text of blocks inside a block. Media in it become notes: what a tool brought cannot be asked for again. */
function nestedText(content: unknown, path: string, reading: Reading): string {
  if (!Array.isArray(content)) return "";
  return joinBlocks(
    content.map((item: unknown, i) => {
      if (typeof item === "string") return item;
      const at = `${path}.content[${i}]`;
      const block = asBlock(item);
      if (block?.type === "image") return imageNote(block, at, reading);
      if (block !== undefined) return blockText(block, at, reading);
      reading.ignored.push(at);
      return "";
    }),
  );
}

const asBlock = (value: unknown): WireBlock | undefined =>
  typeof value === "object" && value !== null && "type" in value && typeof value.type === "string"
    ? (value as WireBlock)
    : undefined;

function imageNote(block: WireBlock, path: string, reading: Reading): string {
  const { media_type } = fieldsOf(block["source"]);
  const kind = typeof media_type === "string" ? media_type.slice(0, 40) : "image";
  reading.notes.push(`${path} is an image, replaced by a note: this model reads text only`);
  return `[An image (${kind}) is here; this model reads text only and cannot see it.]`;
}

/**
 * What a block says in words. A block of a kind that is not known counts for its text alone.
 *
 * @throws {OmlxError} invalid_request: an image that the user asks about, a text block without text
 */
function blockText(block: WireBlock, path: string, reading: Reading): string {
  switch (block.type) {
    case "text": {
      if (typeof block["text"] === "string") return block["text"];
      const field = `${path}.text`;
      throw invalidRequest(`Invalid value for "${field}": expected a string`, field);
    }
    case "image":
      throw invalidRequest(`Cannot use "${path}": this model reads text only`, path);
    case "document":
      return documentText(block, path, reading);
    case "search_result": {
      const text = nestedText(block["content"], path, reading);
      return `[Search result: ${wordsOf(block["title"], block["source"])}]\n${text}`;
    }
    case "tool_reference":
      return offerTool(block["tool_name"] ?? block["name"], path, reading);
    case "tool_addition":
    case "tool_removal":
      return changeTools(block, path, reading);
    default: {
      reading.ignored.push(path);
      const text = block["text"] ?? block["content"];
      return typeof text === "string" ? text : nestedText(text, path, reading);
    }
  }
}

const fieldsOf = (value: unknown): Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};

/** A title and where it is from, as far as they are known. */
function wordsOf(title: unknown, source: unknown): string {
  const [name, from] = [title, source].map((value) => (typeof value === "string" ? value : ""));
  return from ? `${name} (${from})` : (name ?? "");
}

/** Media types whose bytes are text. */
const TEXTUAL = /^text\/|[/+](?:json|xml|yaml|toml|javascript|x-sh)\b/;

function documentText(block: WireBlock, path: string, reading: Reading): string {
  const source = fieldsOf(block["source"]);
  const context = typeof block["context"] === "string" ? block["context"] : "";
  const title = typeof block["title"] === "string" ? block["title"] : "untitled";
  const text = sourceText(source, `${path}.source`, reading);
  if (text !== undefined) return joinBlocks([`[Document: ${title}]`, context, text]);
  const type = typeof source["media_type"] === "string" ? source["media_type"] : "unknown type";
  reading.notes.push(`${path} is a document that cannot be read here, replaced by a note`);
  return joinBlocks([
    `[Document: ${title} (${type.slice(0, 80)}); it cannot be read here. Send it as text instead.]`,
    context,
  ]);
}

/** undefined: not text. */
function sourceText(
  source: Readonly<Record<string, unknown>>,
  path: string,
  reading: Reading,
): string | undefined {
  const { type, media_type: mediaType, data, content } = source;
  if (type === "content") {
    return typeof content === "string" ? content : nestedText(content, path, reading);
  }
  if (typeof data !== "string") return undefined;
  if (type === "text") return data;
  if (type !== "base64" || !TEXTUAL.test(String(mediaType))) return undefined;
  return new TextDecoder().decode(Buffer.from(data, "base64"));
}

function offerTool(name: unknown, path: string, reading: Reading): string {
  const text = typeof name === "string" ? reading.tools.offer(name) : undefined;
  if (text === undefined) reading.ignored.push(path);
  return text ?? (typeof name === "string" ? `Tool not found: ${name}` : "");
}

/** A block that offers or withdraws one tool. */
function changeTools(block: WireBlock, path: string, reading: Reading): string {
  const { tools } = reading;
  const tool = fieldsOf(block["tool"]);
  const { name, definition } = tool;
  const known = typeof name === "string" ? name : "";
  const text =
    block.type === "tool_removal"
      ? tools.withdraw(known)
      : (tools.offer(known) ?? tools.define(definition ?? tool));
  if (text === undefined) reading.ignored.push(path);
  return text ?? "";
}
