import type { Message, Part, Tool } from "#core/contract";
import type { Dialect } from "../dialects/dialect.ts";
import type { Conversation } from "./conversation.ts";
import type { Manners } from "./manners.ts";

/** A conversation as a template can render it, and what had to be rewritten for that. */
export interface Adapted {
  readonly conversation: Conversation;
  readonly notes: readonly string[];
}

/**
 * Rewrites what a template cannot render: system messages that are not first become reminders in the user's turn, tools,
 * calls and results become text, messages of one role in a row become one, what the user says after a result ends it. What it can render stays as it is, and what is
 * rewritten depends on the messages before it alone, so that a conversation that grows keeps its beginning.
 *
 * @param dialect how the model writes calls
 */
export function adapt(conversation: Conversation, manners: Manners, dialect: Dialect): Adapted {
  const notes = new Set<string>();
  let messages = withoutOrphans(conversation.messages);
  let tools = conversation.tools.filter(({ isTold }) => isTold !== true);
  const hasCalls = messages.some(({ role, toolCalls }) => role === "tool" || toolCalls?.length);
  if (hasCalls && !manners.showsCalls) {
    messages = callsAsText(messages);
    notes.add("the chat template knows no tool calls: they are rendered as text");
  } else if (hasCalls) messages = withTemplateIds(messages, dialect);
  const firstTurn = messages.findIndex(({ role }) => role !== "system");
  const hasLater = messages.some(
    ({ role }, i) => role === "system" && i > 0 && (firstTurn < i || i > 1),
  );
  if (hasLater && !manners.keepsSystem) messages = systemAsReminders(messages, firstTurn);
  if (tools.length > 0 && !manners.showsTools) {
    messages = withSystemText(messages, toolsAsText(tools, dialect));
    notes.add("the chat template knows no tools: they are described in the system message");
    tools = [];
  }
  if (messages[0]?.role === "system" && !manners.takesSystem) messages = systemInUserTurn(messages);
  if (hasTalkAfterResults(messages) && !manners.takesTalkAfterResults) {
    messages = talkInResults(messages);
  }
  if (hasRuns(messages) && !manners.takesRuns) messages = withoutRuns(messages);
  return { conversation: { ...conversation, messages, tools }, notes: [...notes] };
}

const textPart = (text: string): Part => ({ kind: "text", text });
const textOf = ({ parts }: Message): string => parts.map((part) => part.text).join("");

/** A result that no call of the turn before it asked for is something that the user tells. */
function withoutOrphans(messages: readonly Message[]): readonly Message[] {
  let isAsked = false;
  return messages.map((message) => {
    if (message.role !== "tool") {
      isAsked = message.role === "assistant" && (message.toolCalls?.length ?? 0) > 0;
      return message;
    }
    return isAsked ? message : resultAsText(message);
  });
}

function resultAsText(message: Message): Message {
  return {
    role: "user",
    parts: [textPart("<tool_response>\n"), ...message.parts, textPart("\n</tool_response>")],
  };
}

function callsAsText(messages: readonly Message[]): readonly Message[] {
  return messages.map((message) => {
    if (message.role === "tool") return resultAsText(message);
    const { toolCalls, ...rest } = message;
    if (toolCalls === undefined || toolCalls.length === 0) return message;
    const calls = toolCalls.map(
      ({ name, arguments: text }) =>
        `<tool_call>\n{"name": ${JSON.stringify(name)}, "arguments": ${text.trim() === "" ? "{}" : text}}\n</tool_call>`,
    );
    const parts = textOf(message) === "" ? [] : [...message.parts, textPart("\n")];
    return { ...rest, parts: [...parts, textPart(calls.join("\n"))] };
  });
}

/** Gives calls the ids that the template's model knows, and results the names of their calls where it needs them. */
function withTemplateIds(messages: readonly Message[], dialect: Dialect): readonly Message[] {
  const { historyId, namesResults } = dialect;
  if (historyId === undefined && namesResults !== true) return messages;
  const ids = new Map<string, { readonly id: string; readonly name: string }>();
  let index = 0;
  return messages.map((message) => {
    if (message.role === "tool") {
      const call = ids.get(message.toolCallId ?? "");
      if (call === undefined) return message;
      const name = namesResults === true ? (message.name ?? call.name) : message.name;
      return { ...message, toolCallId: call.id, name };
    }
    if (message.toolCalls === undefined) return message;
    const toolCalls = message.toolCalls.map((call) => {
      const id = historyId?.({ id: call.id, name: call.name, index: index++ }) ?? call.id;
      ids.set(call.id, { id, name: call.name });
      return { ...call, id };
    });
    return { ...message, toolCalls };
  });
}

/** The first system messages become one, the others reminders at their places. */
function systemAsReminders(messages: readonly Message[], firstTurn: number): readonly Message[] {
  const numFirst = firstTurn < 0 ? messages.length : firstTurn;
  const first = joined(messages.slice(0, numFirst));
  const rest = messages.slice(numFirst).map(
    (message): Message =>
      message.role === "system"
        ? {
            role: "user",
            parts: [
              textPart("<system-reminder>\n"),
              ...message.parts,
              textPart("\n</system-reminder>"),
            ],
          }
        : message,
  );
  return [...first, ...rest];
}

/** One message of several of the same role. */
function joined(messages: readonly Message[]): readonly Message[] {
  const [first] = messages;
  if (first === undefined || messages.length === 1) return messages;
  const parts = messages.flatMap((message, i) =>
    i === 0 || textOf(message) === "" ? message.parts : [textPart("\n\n"), ...message.parts],
  );
  const toolCalls = messages.flatMap((message) => message.toolCalls ?? []);
  const reasoning = messages.flatMap((message) => message.reasoning ?? []).join("\n\n");
  return [
    {
      ...first,
      parts,
      ...(toolCalls.length > 0 ? { toolCalls } : {}),
      ...(reasoning === "" ? {} : { reasoning }),
    },
  ];
}

function withSystemText(messages: readonly Message[], text: string): readonly Message[] {
  const [first, ...rest] = messages;
  if (first?.role !== "system") return [{ role: "system", parts: [textPart(text)] }, ...messages];
  return [{ ...first, parts: [...first.parts, textPart(`\n\n${text}`)] }, ...rest];
}

function toolsAsText(tools: readonly Tool[], dialect: Dialect): string {
  const lines = tools.map(({ name, description, parameters }) =>
    JSON.stringify({ name, description, parameters }),
  );
  const { grammar } = dialect;
  const example =
    grammar === null
      ? '<tool_call>\n{"name": "tool_name", "arguments": {"key": "value"}}\n</tool_call>'
      : `${grammar.open}${grammar.begin("tool_name")}{"key": "value"}${grammar.end}${grammar.close}`;
  return `# Tools\n\nYou may call these functions, each described by a JSON schema:\n${lines.join("\n")}\n\nTo call one, write exactly this form:\n${example}`;
}

/** The system message leads the first turn of the user. */
function systemInUserTurn(messages: readonly Message[]): readonly Message[] {
  const [system, next, ...rest] = messages;
  if (system === undefined) return messages;
  if (next?.role !== "user") {
    const turns = next === undefined ? [] : [next, ...rest];
    return [{ ...system, role: "user" }, ...turns];
  }
  return [{ ...next, parts: [...system.parts, textPart("\n\n"), ...next.parts] }, ...rest];
}

const isTalkAfterResult = (before: Message | undefined, message: Message): boolean =>
  before?.role === "tool" && message.role === "user";

const hasTalkAfterResults = (messages: readonly Message[]): boolean =>
  messages.some((message, i) => isTalkAfterResult(messages[i - 1], message));

/** What the user says directly after a result becomes the end of that result. */
function talkInResults(messages: readonly Message[]): readonly Message[] {
  const out: Message[] = [];
  for (const message of messages) {
    const last = out.at(-1);
    if (last === undefined || !isTalkAfterResult(last, message)) out.push(message);
    else out[out.length - 1] = { ...last, parts: joined([last, message])[0]?.parts ?? [] };
  }
  return out;
}

const isRun = (a: Message | undefined, b: Message): boolean =>
  a !== undefined && a.role === b.role && (a.role === "user" || a.role === "assistant");

const hasRuns = (messages: readonly Message[]): boolean =>
  messages.some((message, i) => isRun(messages[i - 1], message));

function withoutRuns(messages: readonly Message[]): readonly Message[] {
  const runs: Message[][] = [];
  for (const message of messages) {
    const run = runs.at(-1);
    if (run !== undefined && isRun(run[0], message)) run.push(message);
    else runs.push([message]);
  }
  return runs.flatMap(joined);
}
