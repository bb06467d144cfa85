import type { SamplingParams } from "./sampling.ts";
import type { Lane } from "./tokens.ts";

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
}

/** One conversation to continue, free of any vendor's shape. */
export interface ChatRequest {
  /** As the client wrote it. */
  readonly model: string;
  readonly messages: readonly Message[];
  readonly tools: readonly Tool[];
  /** Passed to the chat template as they are. */
  readonly templateKwargs: Readonly<Record<string, unknown>>;
  /** Defaults of the model fill what the client left out. */
  readonly sampling: Partial<SamplingParams>;
  /** undefined: what the window allows. */
  readonly maxTokens: number | undefined;
  readonly minTokens: number;
  readonly ignoreEos: boolean;
  /** Generation ends before the first of these; they are not part of the output. */
  readonly stop: readonly string[];
  readonly topLogprobs: number | null;
  readonly lane: Lane;
}
