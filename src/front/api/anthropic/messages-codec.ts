import {
  CHAT_DEFAULTS,
  type ChatRequest,
  invalidRequest,
  type OutputFormat,
  type SamplingParams,
  type Thinking,
} from "#core/contract";
import { decodeWishes } from "../mcp/wishes.ts";
import { decodeMessage, decodeSystem, type Reading } from "./blocks-codec.ts";
import { type CountBody, MESSAGES_FIELDS, type MessagesBody } from "./schemas.ts";
import { decodeToolChoice, Toolbox } from "./tools-codec.ts";

/** A request in our words, and what of it was left aside. */
export interface DecodedPrompt {
  readonly request: ChatRequest;
  /** Paths of what was not understood. */
  readonly ignored: readonly string[];
  /** What was replaced by words, a sentence each. */
  readonly notes: readonly string[];
}

type McpName = { readonly name: string };

export interface DecodedMessages extends DecodedPrompt {
  readonly stream: boolean;
  /** The client marks what it wants cached, so it reads the numbers of the cache. */
  readonly marksCache: boolean;
  /** Thoughts are not shown, only carried in their signature. */
  readonly hidesThoughts: boolean;
}

/**
 * What of a body makes the prompt; an answer and a count of its tokens both come from here.
 *
 * @param mcpTools tools that the server may add
 * @throws {OmlxError} invalid_request with `param`
 */
export function decodePrompt(body: CountBody, mcpTools: readonly McpName[] = []): DecodedPrompt {
  const ignored = Object.keys(body).filter((key) => !MESSAGES_FIELDS.has(key));
  const edits = body.context_management?.edits ?? [];
  if (edits.some(({ keep }) => keep !== "all")) ignored.push("context_management.edits");
  const notes: string[] = [];
  const tools = new Toolbox(body.tools ?? [], ignored);
  const reading: Reading = { tools, calls: new Map(), ignored, notes };
  const messages = [
    ...decodeSystem(body.system, reading),
    ...body.messages.flatMap((wire, i) => decodeMessage(wire, `messages[${i}]`, reading)),
  ];
  const request: ChatRequest = {
    ...CHAT_DEFAULTS,
    model: body.model ?? "",
    messages,
    tools: tools.offered,
    ...decodeToolChoice(body.tool_choice, [...tools.offered, ...mcpTools]),
    mcp: decodeWishes(body.mcp),
    format: decodeFormat(body),
    thinking: decodeThinking(body),
    templateKwargs: body.chat_template_kwargs ?? {},
  };
  return { request, ignored, notes };
}

/**
 * @param isBackground the client says that nobody waits for this answer
 * @throws {OmlxError} invalid_request with `param`
 */
export function decodeMessages(
  body: MessagesBody,
  isBackground: boolean,
  mcpTools: readonly McpName[] = [],
): DecodedMessages {
  const { request, ignored, notes } = decodePrompt(body, mcpTools);
  const isPatient = isBackground || /^(?:flex|batch)$/.test(body.service_tier ?? "");
  return {
    request: {
      ...request,
      sampling: decodeSampling(body),
      maxTokens: body.max_tokens,
      stop: [...new Set(body.stop_sequences)].filter((text) => text !== ""),
      lane: isPatient ? "background" : "interactive",
    },
    stream: body.stream ?? false,
    marksCache: marksCache(body),
    hidesThoughts: body.thinking?.display === "omitted",
    ignored,
    notes,
  };
}

function decodeThinking({ thinking, output_config }: CountBody): Thinking {
  const effort = output_config?.effort ?? undefined;
  if (thinking == null) return { effort };
  if (thinking.type === "disabled") return { enabled: false, effort };
  return { enabled: true, budget: thinking.budget_tokens ?? undefined, effort };
}

function decodeFormat(body: CountBody): OutputFormat | null {
  const format = body.output_config?.format ?? body.output_format;
  if (format == null) return null;
  const path = body.output_config?.format == null ? "output_format" : "output_config.format";
  if (format.type !== "json_schema") {
    throw invalidRequest(`Cannot write answers of this format: "${path}" is not served`, path);
  }
  if (typeof format.schema !== "object" || format.schema === null) {
    const field = `${path}.schema`;
    throw invalidRequest(`Invalid value for "${field}": expected an object`, field);
  }
  return { kind: "schema", schema: format.schema, strict: true, param: path };
}

function decodeSampling(body: MessagesBody): Partial<SamplingParams> {
  const { temperature, top_p: topP, top_k: topK } = body;
  return {
    ...(temperature == null ? {} : { temperature }),
    // A nucleus of mass 0 still holds the most probable token.
    ...(topP == null ? {} : { topP: Math.max(topP, Number.EPSILON) }),
    ...(topK == null ? {} : { topK: Math.max(topK, 0) }),
  };
}

/** Whether anything in the body has a cache_control. */
function marksCache(body: MessagesBody): boolean {
  const isMarked = (item: object) => "cache_control" in item && item.cache_control != null;
  const blocks = [body.system, ...body.messages.map(({ content }) => content)].flatMap((content) =>
    typeof content === "string" ? [] : (content ?? []),
  );
  return [body, ...(body.tools ?? []), ...blocks].some(isMarked);
}
