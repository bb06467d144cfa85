import type { ChatEvent, ChatRequest, Message, ToolCall, Usage } from "#core/contract";
import { AsyncQueue } from "#core/util";
import { type McpManager, type McpTool, textOfResult } from "#front/mcp";
import type { Pool } from "#front/pool";
import { streamChat } from "./chat.ts";

/** The tools of MCP servers, and what is done with them where a request says nothing. */
export interface McpTools {
  readonly manager: McpManager;
  readonly expose: boolean;
  readonly autoExecute: boolean;
  /** Rounds of calls that one request may have run. */
  readonly maxRounds: number;
}

/** Calls of one round that run side by side. */
const MAX_PARALLEL = 5;

const NOTHING: Usage = {
  promptTokens: 0,
  cachedTokens: 0,
  completionTokens: 0,
  reasoningTokens: 0,
};

/**
 * Answers a conversation whose model may use the tools of MCP servers.
 *
 * Where calls are run here, the model goes on with their results until it answers without calling, or calls a tool of the
 * client, or the rounds are used up; then it must answer without tools. Each call is told by "run" and "result".
 *
 * @throws {OmlxError} as streamChat()
 */
export async function* streamWithTools(
  pool: Pool,
  mcp: McpTools | null,
  request: ChatRequest,
  signal: AbortSignal,
): AsyncGenerator<ChatEvent> {
  const offered = offeredTools(mcp, request);
  const all = withTools(request, offered);
  if (mcp === null || offered.size === 0 || !(request.mcp?.autoExecute ?? mcp.autoExecute)) {
    yield* streamChat(pool, all, signal);
    return;
  }
  const maxRounds = Math.min(request.mcp?.maxRounds ?? mcp.maxRounds, mcp.maxRounds);
  let next = all;
  let usage = NOTHING;
  for (let round = 0; ; round++) {
    const turn = new Turn(offered);
    for await (const event of streamChat(pool, next, signal)) {
      if (event.kind === "start" && round > 0) continue;
      yield* turn.read(event);
    }
    const { end } = turn;
    if (!end) return; // streamChat() ends with "end" or throws
    usage = add(usage, end.usage);
    const isOver = next.maxTokens !== undefined && end.usage.completionTokens >= next.maxTokens;
    if (!turn.isRunnable || isOver) {
      yield* turn.release();
      yield { ...end, usage };
      return;
    }
    const results = yield* runCalls(mcp.manager, offered, turn.calls, signal);
    next = {
      ...next,
      messages: [...next.messages, turn.message(), ...results],
      // a forced call is made once, then the model decides; after the last round it has to answer
      toolChoice: { kind: round + 1 >= maxRounds ? "none" : "auto" },
      maxTokens:
        next.maxTokens === undefined ? undefined : next.maxTokens - end.usage.completionTokens,
    };
  }
}

/** The request as its model sees it: with the tools of MCP servers. */
export function withMcpTools(mcp: McpTools | null, request: ChatRequest): ChatRequest {
  return withTools(request, offeredTools(mcp, request));
}

/** Tools of connected servers that this request's model is offered; the client's own win. */
function offeredTools(mcp: McpTools | null, request: ChatRequest): Map<string, McpTool> {
  const offered = new Map<string, McpTool>();
  if (mcp === null || request.toolChoice.kind === "none" || !(request.mcp?.expose ?? mcp.expose))
    return offered;
  const taken = new Set(request.tools.map((tool) => tool.name));
  const { servers, tools = [] } = request.mcp ?? {};
  for (const tool of mcp.manager.tools) {
    if (taken.has(tool.name) || (servers && !servers.includes(tool.server))) continue;
    const isRestricted = tools.some((name) => name.startsWith(`${tool.server}__`));
    if (isRestricted && !tools.includes(tool.name)) continue;
    offered.set(tool.name, tool);
  }
  return offered;
}

function withTools(request: ChatRequest, offered: ReadonlyMap<string, McpTool>): ChatRequest {
  if (offered.size === 0) return request;
  const added = [...offered.values()].map(({ name, description, parameters }) => ({
    name,
    description,
    parameters,
  }));
  return { ...request, tools: [...request.tools, ...added] };
}

/** One answer of the model: passes on what is the client's, and holds back calls that may be run here. */
class Turn {
  readonly calls: ToolCall[] = [];
  end: Extract<ChatEvent, { kind: "end" }> | undefined;
  readonly #offered: ReadonlyMap<string, McpTool>;
  #text = "";
  #reasoning = "";
  /** Events of held calls. */
  readonly #held: ChatEvent[] = [];
  #open: { id: string; name: string; text: string } | undefined;
  #numPassed = 0;

  constructor(offered: ReadonlyMap<string, McpTool>) {
    this.#offered = offered;
  }

  *read(event: ChatEvent): Generator<ChatEvent> {
    switch (event.kind) {
      case "end":
        this.end = event;
        return;
      case "text":
        this.#text += event.text;
        break;
      case "reasoning":
        this.#reasoning += event.text;
        break;
      case "call":
        if (this.#offered.has(event.name)) {
          this.#open = { id: event.id, name: event.name, text: "" };
          this.#held.push(event);
          return;
        }
        yield { ...event, index: this.#numPassed };
        return;
      case "arguments":
        if (this.#open) {
          this.#open.text += event.text;
          this.#held.push(event);
          return;
        }
        yield { ...event, index: this.#numPassed };
        return;
      case "callEnd":
        if (this.#open) {
          const { id, name, text } = this.#open;
          this.calls.push({ id, name, arguments: text });
          this.#held.push(event);
          this.#open = undefined;
          return;
        }
        yield { ...event, index: this.#numPassed++ };
        return;
      default:
        break;
    }
    yield event;
  }

  /** Whether everything that the model asked for can be run here. */
  get isRunnable(): boolean {
    const isWhole = this.end?.reason === "tool_calls" && !this.#open;
    return isWhole && this.calls.length > 0 && this.#numPassed === 0;
  }

  /** The held calls, for the client: it has calls of its own to answer, too, or the text was cut. */
  *release(): Generator<ChatEvent> {
    for (const event of this.#held) {
      yield { ...event, index: this.#numPassed } as ChatEvent;
      if (event.kind === "callEnd") this.#numPassed++;
    }
  }

  /** What the model said, for its next turn. */
  message(): Message {
    return {
      role: "assistant",
      parts: this.#text === "" ? [] : [{ kind: "text", text: this.#text }],
      reasoning: this.#reasoning === "" ? undefined : this.#reasoning,
      toolCalls: this.calls,
    };
  }
}

/** Runs calls side by side, tells how they get on, and returns their results as messages in the order of the calls. */
async function* runCalls(
  manager: McpManager,
  offered: ReadonlyMap<string, McpTool>,
  calls: readonly ToolCall[],
  signal: AbortSignal,
): AsyncGenerator<ChatEvent, Message[]> {
  const queue = new AsyncQueue<ChatEvent>();
  const texts: string[] = [];
  const waiting = calls.map((call, i) => ({ call, i }));
  const run = async (call: ToolCall): Promise<string> => {
    const { id } = call;
    const tool = offered.get(call.name);
    queue.push({
      kind: "run",
      id,
      server: tool?.server ?? "",
      name: tool?.tool ?? call.name,
      arguments: call.arguments,
    });
    const { text, isError } = await execute(manager, call, signal, (message) =>
      queue.push({ kind: "progress", id, message }),
    );
    queue.push({ kind: "result", id, text, isError });
    return text;
  };
  const work = async (): Promise<void> => {
    for (let next = waiting.shift(); next; next = waiting.shift()) {
      texts[next.i] = await run(next.call);
    }
  };
  const workers = Array.from({ length: Math.min(MAX_PARALLEL, calls.length) }, work);
  Promise.all(workers).then(
    () => queue.end(),
    (error: unknown) => queue.fail(error),
  );
  yield* queue;
  signal.throwIfAborted();
  return calls.map(({ id, name }, i) => ({
    role: "tool",
    name,
    toolCallId: id,
    parts: [{ kind: "text", text: texts[i] ?? "" }],
  }));
}

/** Calls one tool; what goes wrong is text for the model to read. */
async function execute(
  manager: McpManager,
  call: ToolCall,
  signal: AbortSignal,
  onProgress: (message: string) => void,
): Promise<{ text: string; isError: boolean }> {
  try {
    const args: unknown = JSON.parse(call.arguments === "" ? "{}" : call.arguments);
    if (typeof args !== "object" || args === null || Array.isArray(args)) {
      throw new Error("the arguments are not a JSON object");
    }
    const result = await manager.execute(call.name, args as Record<string, unknown>, {
      signal,
      onProgress: ({ progress, total, message }) =>
        onProgress(message ?? (total === undefined ? `${progress}` : `${progress} of ${total}`)),
    });
    return { text: textOfResult(result), isError: result.isError };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { text: `Cannot call "${call.name}": ${reason}`, isError: true };
  }
}

const add = (a: Usage, b: Usage): Usage => ({
  promptTokens: a.promptTokens + b.promptTokens,
  cachedTokens: a.cachedTokens + b.cachedTokens,
  completionTokens: a.completionTokens + b.completionTokens,
  reasoningTokens: a.reasoningTokens + b.reasoningTokens,
});
