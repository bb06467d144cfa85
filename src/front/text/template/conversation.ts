import { type ChatRequest, invalidRequest, type Message, type Tool } from "#core/contract";
import { isObject } from "#core/formats";
import { markTokens, type TokenTrie } from "../added-tokens.ts";

/** The part of a request that is rendered. */
export interface Conversation extends Pick<ChatRequest, "messages" | "tools" | "templateKwargs"> {
  /** The answer begins with thoughts, also where the template leaves that to the model. */
  readonly opensThoughts?: boolean;
}

/** Control tokens that may stand in a client's text and must stay text there. */
export interface ControlTokens {
  /** Every special token. */
  readonly special: TokenTrie;
  /** Also tokens that only the chat template may write, such as the borders of a tool's answer. */
  readonly all: TokenTrie;
}

/** A conversation as chat templates expect it. */
export interface TemplateInput {
  readonly messages: readonly Readonly<Record<string, unknown>>[];
  readonly tools: readonly unknown[] | null;
  readonly kwargs: Readonly<Record<string, unknown>>;
  /** Stands before text that must not be read as a token. */
  readonly marker: string;
  /** Ends the last message, if it is to be continued; null: a new answer begins. */
  readonly cut: string | null;
}

/** Noncharacters: never part of interchanged text. */
const FIRST_MARKER = 0xfdd0;
const NUM_MARKERS = 32;
const MAX_DEPTH = 256;

/**
 * The template's view of a conversation, every text of the client marked where it spells a control token.
 *
 * Text of users and tools cannot write any control token. What the assistant said before is the model's own output, so
 * tokens that are not special (the borders of thoughts and tool calls) keep their meaning there.
 */
export function toTemplateInput(
  conversation: Conversation,
  controls: ControlTokens,
): TemplateInput {
  const [marker, cut] = unusedMarkers(conversation);
  const mark = (value: unknown, trie: TokenTrie) => markDeep(value, trie, marker, 0);
  const last = conversation.messages.at(-1);
  const isContinued =
    last?.role === "assistant" && (last.toolCalls?.length ?? 0) === 0 && textOf(last) !== "";
  const messages = conversation.messages.map((message) => {
    const isFromOutside = message.role === "user" || message.role === "tool";
    const trie = isFromOutside ? controls.all : controls.special;
    const entry = mark(templateMessage(message), trie) as Record<string, unknown>;
    if (isContinued && message === last) entry["content"] += cut;
    return entry;
  });
  const tools = conversation.tools.map(templateTool);
  return {
    messages,
    tools: tools.length === 0 ? null : (mark(tools, controls.all) as unknown[]),
    kwargs: mark(conversation.templateKwargs, controls.special) as Record<string, unknown>,
    marker,
    cut: isContinued ? cut : null,
  };
}

function textOf(message: Message): string {
  return message.parts.map((part) => part.text).join("");
}

function templateMessage(message: Message): Record<string, unknown> {
  const { role, name, reasoning, toolCalls, toolCallId } = message;
  return {
    role,
    content: textOf(message),
    ...(name === undefined ? {} : { name }),
    ...(reasoning === undefined ? {} : { reasoning_content: reasoning }),
    ...(toolCalls === undefined || toolCalls.length === 0
      ? {}
      : {
          tool_calls: toolCalls.map((call) => ({
            id: call.id,
            type: "function",
            function: { name: call.name, arguments: argumentsOf(call.arguments) },
          })),
        }),
    ...(toolCallId === undefined ? {} : { tool_call_id: toolCallId }),
  };
}

/** Templates write arguments as JSON themselves; text that is no object stays as it is. */
function argumentsOf(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : text;
  } catch {
    return text; // the client's own text is the best that is known of it
  }
}

function templateTool(tool: Tool): unknown {
  const { name, description, parameters } = tool;
  return {
    type: "function",
    function: {
      name,
      ...(description === undefined ? {} : { description }),
      ...(parameters === undefined ? {} : { parameters }),
    },
  };
}

/** Two noncharacters that occur nowhere in the conversation. */
function unusedMarkers(conversation: Conversation): readonly [marker: string, cut: string] {
  const all = JSON.stringify(conversation);
  const free: string[] = [];
  for (let i = 0; i < NUM_MARKERS && free.length < 2; i++) {
    const marker = String.fromCharCode(FIRST_MARKER + i);
    if (!all.includes(marker)) free.push(marker);
  }
  const [marker, cut] = free;
  if (marker === undefined || cut === undefined) {
    throw invalidRequest("Cannot render the messages: they hold every noncharacter", "messages");
  }
  return [marker, cut];
}

function markDeep(value: unknown, trie: TokenTrie, marker: string, depth: number): unknown {
  if (depth > MAX_DEPTH) throw invalidRequest("Cannot render the messages: nested too deep");
  if (typeof value === "string") return markTokens(value.toWellFormed(), trie, marker);
  if (Array.isArray(value)) return value.map((item) => markDeep(item, trie, marker, depth + 1));
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [
      markTokens(key, trie, marker),
      markDeep(item, trie, marker, depth + 1),
    ]),
  );
}
