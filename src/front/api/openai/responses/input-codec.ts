import {
  CHAT_DEFAULTS,
  type ChatRequest,
  invalidRequest,
  type McpWishes,
  type Message,
  type OutputFormat,
  type Part,
  type Role,
  type Thinking,
  type ToolCall,
} from "#core/contract";
import { decodeWishes } from "../../mcp/wishes.ts";
import { decodeSampling } from "../options-codec.ts";
import { openReasoning } from "./reasoning-codec.ts";
import {
  type ContentPart,
  type InputItem,
  RESPONSES_FIELDS,
  type ResponsesBody,
  type WireTool,
} from "./schemas.ts";
import {
  type DecodedTools,
  decodeToolChoice,
  decodeTools,
  FREEFORM_ARGUMENT,
} from "./tools-codec.ts";

/** A request in our words, and what of it was left aside. */
export interface DecodedResponse {
  readonly request: ChatRequest;
  readonly tools: DecodedTools;
  /** Paths of fields that were not understood. */
  readonly ignored: readonly string[];
}

/**
 * The items of earlier turns, then those of this one.
 *
 * @param earlier items of the stored responses before this one, oldest first
 * @param mcpTools tools that the server may add
 * @throws {OmlxError} invalid_request with `param`
 */
export function decodeResponses(
  body: ResponsesBody,
  earlier: readonly InputItem[],
  mcpTools: readonly { readonly name: string }[] = [],
): DecodedResponse {
  for (const field of ["conversation", "prompt"] as const) {
    if (body[field] != null) throw invalidRequest(`"${field}" is not served`, field);
  }
  const ignored = Object.keys(body).filter((key) => !RESPONSES_FIELDS.has(key));
  if (body.truncation === "auto") ignored.push("truncation"); // a prompt is never cut
  if (body.text?.verbosity != null) ignored.push("text.verbosity");
  const items = inputItems(body);
  const tools = decodeTools(toolsOf(body, earlier, items), ignored);
  const { choice, allowed } = decodeToolChoice(body.tool_choice, tools, mcpTools);
  const messages = new Conversation(tools, ignored);
  if (body.instructions) messages.say("system", [{ kind: "text", text: body.instructions }]);
  earlier.forEach((item, i) => {
    messages.add(item, `previous_response_id[${i}]`);
  });
  items.forEach((item, i) => {
    messages.add(item, typeof body.input === "string" ? "input" : `input[${i}]`);
  });
  if (messages.list.length === 0) {
    throw invalidRequest('"input" is empty: there is nothing to answer', "input");
  }
  return {
    request: {
      ...CHAT_DEFAULTS,
      model: body.model ?? "",
      messages: messages.list,
      tools: tools.tools.filter((tool) => allowed?.has(tool.name) ?? true),
      toolChoice: choice,
      parallelToolCalls: body.parallel_tool_calls ?? true,
      mcp: decodeMcpWishes(body, tools),
      format: decodeFormat(body),
      thinking: decodeThinking(body),
      templateKwargs: { ...body.chat_template_kwargs },
      sampling: decodeSampling(body),
      maxTokens: body.max_output_tokens ?? undefined,
      topLogprobs: logprobsOf(body),
      lane: body.service_tier === "flex" ? "background" : "interactive",
    },
    tools,
    ignored,
  };
}

/** The input as a list of items. */
export function inputItems(body: Pick<ResponsesBody, "input">): readonly InputItem[] {
  if (body.input == null) return [];
  if (typeof body.input !== "string") return body.input;
  return body.input === "" ? [] : [{ type: "message", role: "user", content: body.input }];
}

function toolsOf(
  body: ResponsesBody,
  earlier: readonly InputItem[],
  items: readonly InputItem[],
): { tool: WireTool; path: string }[] {
  const own = (body.tools ?? []).map((tool, i) => ({ tool, path: `tools[${i}]` }));
  // tools that came later in the conversation, by the client or by a search for them
  const added = [...earlier, ...items].flatMap((item, i) => {
    if (item.type !== "additional_tools" && item.type !== "tool_search_output") return [];
    const list = Array.isArray(item["tools"]) ? (item["tools"] as WireTool[]) : [];
    return list.map((tool, j) => ({ tool, path: `input[${i}].tools[${j}]` }));
  });
  return [...own, ...added];
}

/** Tools of type "mcp" are run here. Clients that bring no tools at all get none either. */
function decodeMcpWishes(body: ResponsesBody, { mcp }: DecodedTools): McpWishes | undefined {
  const wishes = decodeWishes(body.mcp);
  if (mcp.length === 0) {
    return wishes ?? ((body.tools ?? []).length > 0 ? undefined : { expose: false });
  }
  return {
    ...wishes,
    expose: true,
    autoExecute: wishes?.autoExecute ?? true,
    servers: mcp.map(({ server }) => server),
    tools: mcp.flatMap(({ server, tools }) => (tools ?? []).map((name) => `${server}__${name}`)),
  };
}

function decodeFormat(body: ResponsesBody): OutputFormat | null {
  const format = body.text?.format;
  switch (format?.type) {
    case "json_object":
      return { kind: "json", param: "text.format" };
    case "json_schema":
      if (typeof format.schema !== "object" || format.schema === null) {
        throw invalidRequest('"text.format.schema" must be a JSON schema', "text.format.schema");
      }
      return {
        kind: "schema",
        schema: format.schema,
        strict: format.strict ?? false,
        param: "text.format",
      };
    default:
      return null;
  }
}

function decodeThinking(body: ResponsesBody): Thinking {
  const effort = body.reasoning?.effort;
  if (effort == null) return {};
  return effort === "none" ? { enabled: false } : { effort };
}

function logprobsOf(body: ResponsesBody): number | null {
  const isAsked = body.include?.includes("message.output_text.logprobs") ?? false;
  if (isAsked) return body.top_logprobs ?? 0;
  return body.top_logprobs ? body.top_logprobs : null;
}

const ROLES: Readonly<Record<string, Role>> = {
  system: "system",
  developer: "system",
  user: "user",
  assistant: "assistant",
  tool: "tool",
};

/** Items of what a server did; their results are part of the text around them. */
const SILENT: ReadonlySet<string> = new Set(["additional_tools", "item_reference"]);

/** What stands for a picture or file in a tool's result, which a model that reads text only cannot see. */
const omitted = (type: string): string =>
  `[${type.replace(/^input_/, "")} omitted: this model reads text only]`;

const textOf = (value: unknown): string =>
  typeof value === "string" ? value : value == null ? "" : JSON.stringify(value);

/** Collects items as messages: reasoning, text and calls of one turn become one assistant message. */
class Conversation {
  readonly list: Message[] = [];
  readonly #tools: DecodedTools;
  readonly #ignored: string[];
  #reasoning: string | undefined;

  constructor(tools: DecodedTools, ignored: string[]) {
    this.#tools = tools;
    this.#ignored = ignored;
  }

  say(role: Role, parts: readonly Part[]): void {
    if (role === "assistant") this.#assistant(parts, []);
    else this.list.push({ role, parts });
  }

  add(item: InputItem, path: string): void {
    const type = item.type ?? (item.role == null ? "unknown" : "message");
    if (type === "message") this.#message(item, path);
    else if (type === "reasoning") {
      this.#reasoning = [this.#reasoning, openReasoning(item)].filter(Boolean).join("\n\n");
    } else if (type.endsWith("_call")) this.#call(type, item, path);
    else if (type.endsWith("_output")) this.#output(item, path);
    else if (!SILENT.has(type)) this.#unknown(item, path);
  }

  #message(item: InputItem, path: string): void {
    const role = ROLES[item.role ?? "user"];
    if (role === undefined) this.#ignored.push(`${path}.role`);
    this.say(role ?? "user", this.#parts(item.content, `${path}.content`));
  }

  /** A call in any of its forms is a call of a tool to the model. */
  #call(type: string, item: InputItem, path: string): void {
    const call = this.#toolCall(type, item);
    if (call === undefined) {
      this.#unknown(item, path);
      return;
    }
    this.#assistant([], [call]);
    // a server's own calls carry their result along
    if (type === "mcp_call" && item["output"] != null) {
      const text = textOf(item["output"]);
      this.list.push({ role: "tool", parts: [{ kind: "text", text }], toolCallId: call.id });
    }
  }

  #toolCall(type: string, item: InputItem): ToolCall | undefined {
    const id = item.call_id ?? item.id ?? "";
    switch (type) {
      case "function_call":
      case "mcp_call":
        return { id, name: this.#nameOf(item), arguments: textOf(item["arguments"]) };
      case "custom_tool_call": {
        const input = { [FREEFORM_ARGUMENT]: textOf(item["input"]) };
        return { id, name: this.#nameOf(item), arguments: JSON.stringify(input) };
      }
      case "local_shell_call":
      case "shell_call": {
        const name = type.slice(0, -"_call".length);
        return { id, name, arguments: textOf(item["action"] ?? {}) };
      }
      case "apply_patch_call":
        return { id, name: "apply_patch", arguments: textOf(item["operation"] ?? {}) };
      case "tool_search_call":
        return { id, name: "tool_search", arguments: textOf(item["arguments"] ?? {}) };
      default:
        return undefined;
    }
  }

  /** Our name of the tool that an item calls. */
  #nameOf(item: InputItem): string {
    const name = item.name ?? "";
    for (const [ours, call] of this.#tools.calls) {
      if (call.name === name && (call.namespace ?? null) === (item.namespace ?? null)) return ours;
    }
    return name;
  }

  #output(item: InputItem, path: string): void {
    const value = item["output"] ?? item["tools"];
    const parts: Part[] = Array.isArray(value)
      ? value.map((part) => ({ kind: "text", text: this.#resultText(part, path) }))
      : [{ kind: "text", text: textOf(value) }];
    this.#reasoning = undefined;
    this.list.push({ role: "tool", parts, toolCallId: item.call_id ?? item.id ?? undefined });
  }

  #resultText(part: unknown, path: string): string {
    if (typeof part !== "object" || part === null) return textOf(part);
    const { type, text } = part as { type?: unknown; text?: unknown };
    if (typeof text === "string") return text;
    if (typeof type !== "string" || !type.startsWith("input_")) return JSON.stringify(part);
    this.#ignored.push(`${path}.output (${type})`);
    return omitted(type);
  }

  /** An item from the future: its text is kept, the rest is named in the warning. */
  #unknown(item: InputItem, path: string): void {
    this.#ignored.push(`${path} (${item.type ?? "no type"})`);
    const text = [item["text"], item.content].find((value) => typeof value === "string");
    if (typeof text === "string" && text !== "") this.say("user", [{ kind: "text", text }]);
  }

  #parts(content: InputItem["content"], path: string): Part[] {
    if (content == null || content === "") return [];
    if (typeof content === "string") return [{ kind: "text", text: content }];
    return content.flatMap((part, i) => this.#part(part, `${path}[${i}]`));
  }

  #part(part: ContentPart, path: string): Part[] {
    const text = part["text"] ?? part["refusal"];
    if (typeof text === "string") return [{ kind: "text", text }];
    if (/^input_(?:image|file|audio|video)$/.test(part.type)) {
      throw invalidRequest(`Cannot use "${path}": this model reads text only`, path);
    }
    if (/text|refusal/.test(part.type)) {
      throw invalidRequest(`Invalid value for "${path}.text": expected a string`, `${path}.text`);
    }
    this.#ignored.push(`${path} (${part.type})`);
    return [];
  }

  /** Adds to the assistant's turn; what follows its calls is a turn of its own. */
  #assistant(parts: readonly Part[], toolCalls: readonly ToolCall[]): void {
    const reasoning = this.#reasoning;
    this.#reasoning = undefined;
    const last = this.list.at(-1);
    const isSameTurn =
      last?.role === "assistant" &&
      reasoning === undefined &&
      (toolCalls.length > 0 || (last.toolCalls?.length ?? 0) === 0);
    if (!isSameTurn) {
      this.list.push({ role: "assistant", parts, reasoning, toolCalls });
      return;
    }
    this.list[this.list.length - 1] = {
      ...last,
      parts: [...last.parts, ...parts],
      toolCalls: [...(last.toolCalls ?? []), ...toolCalls],
    };
  }
}
