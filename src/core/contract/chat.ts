import type { SamplingParams } from "./sampling.ts";
import type { GrammarSpec, Lane } from "./tokens.ts";

export type Role = "system" | "user" | "assistant" | "tool";

export type Part = { readonly kind: "text"; readonly text: string };

export interface ToolCall {
  readonly id: string;
  readonly name: string;
  /** JSON text as the model or the client wrote it. */
  readonly arguments: string;
}

export interface Message {
  readonly role: Role;
  readonly parts: readonly Part[];
  readonly name?: string | undefined;
  readonly reasoning?: string | undefined;
  readonly toolCalls?: readonly ToolCall[] | undefined;
  readonly toolCallId?: string | undefined;
}

export interface Tool {
  readonly name: string;
  readonly description?: string | undefined;
  /** JSON schema of the arguments. */
  readonly parameters?: unknown;
  /** The arguments must follow the schema to the letter: a keyword that cannot be enforced is an error. */
  readonly strict?: boolean | undefined;
  /** A message describes it: it can be called, but is not in the list at the start, which stays as it was. */
  readonly isTold?: boolean | undefined;
}

/** Which tools may be called; "auto": as the model likes. */
export type ToolChoice =
  | { readonly kind: "auto" | "none" | "required" }
  | { readonly kind: "named"; readonly name: string };

/** What an answer's text must be. A schema that is not strict is relaxed, with a warning, where it cannot be enforced. */
export type OutputFormat = (
  | { readonly kind: "json" }
  | { readonly kind: "schema"; readonly schema: unknown; readonly strict: boolean }
  | Extract<GrammarSpec, { kind: "regex" | "ebnf" }>
  | { readonly kind: "choice"; readonly options: readonly string[] }
) & {
  /** The request's field that says it, for errors. */
  readonly param?: string | undefined;
};

/** How much a model that can think should do so; undefined: as its template does by itself. */
export interface Thinking {
  readonly enabled?: boolean | undefined;
  /** "low", "medium", "high"…, handed to the template as reasoning_effort. */
  readonly effort?: string | number | undefined;
  /** Tokens of thought at most; then the end of thinking is forced. */
  readonly budget?: number | undefined;
}

/** How an answer is generated and where it ends, whatever it answers. */
export interface AnswerOptions {
  /** Defaults of the model fill what the client left out. */
  readonly sampling: Partial<SamplingParams>;
  /** undefined: what the window allows. */
  readonly maxTokens: number | undefined;
  readonly minTokens: number;
  readonly ignoreEos: boolean;
  /** Generation ends before the first of these; they are not part of the output. */
  readonly stop: readonly string[];
  /** How many alternatives to report per token; null: no log-probabilities. */
  readonly topLogprobs: number | null;
  readonly lane: Lane;
}

/** What a request says about the tools of MCP servers; undefined: as the server is set. */
export interface McpWishes {
  /** The model is offered them. */
  readonly expose?: boolean | undefined;
  /** Calls of them are run here, and the model goes on with their results. */
  readonly autoExecute?: boolean | undefined;
  /** Only tools of these servers. */
  readonly servers?: readonly string[] | undefined;
  /** Only these tools, as "server__tool"; servers that none of them belongs to are not restricted. */
  readonly tools?: readonly string[] | undefined;
  /** Rounds of calls at most. */
  readonly maxRounds?: number | undefined;
}

/** One conversation to continue, free of any vendor's shape. */
export interface ChatRequest extends AnswerOptions {
  /** As the client wrote it. */
  readonly model: string;
  readonly messages: readonly Message[];
  readonly tools: readonly Tool[];
  readonly toolChoice: ToolChoice;
  readonly parallelToolCalls: boolean;
  /** Calls stay in the text as the model writes them. */
  readonly rawCalls?: boolean | undefined;
  readonly mcp?: McpWishes | undefined;
  /** null: free text. */
  readonly format: OutputFormat | null;
  readonly thinking: Thinking;
  /** Passed to the chat template as they are. */
  readonly templateKwargs: Readonly<Record<string, unknown>>;
}

/** An answer that nothing special is asked of. */
export const ANSWER_DEFAULTS = {
  sampling: {},
  maxTokens: undefined,
  minTokens: 0,
  ignoreEos: false,
  stop: [],
  topLogprobs: null,
  lane: "interactive",
} as const satisfies AnswerOptions;

/** A conversation that asks for nothing special; a request adds model and messages. */
export const CHAT_DEFAULTS = {
  ...ANSWER_DEFAULTS,
  tools: [],
  toolChoice: { kind: "auto" },
  parallelToolCalls: true,
  format: null,
  thinking: {},
  templateKwargs: {},
} as const satisfies Omit<ChatRequest, "model" | "messages">;
