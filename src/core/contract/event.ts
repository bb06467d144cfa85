/** Why a generation ended, in our own words. */
export type FinishReason = "stop" | "length" | "tool_calls";

export interface Usage {
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly completionTokens: number;
  readonly reasoningTokens: number;
}

/** A token and how probable it was, in words. */
export interface TextLogprob {
  readonly id: number;
  /** The token's text; U+FFFD where its bytes are part of a character. */
  readonly text: string;
  readonly bytes: readonly number[];
  /** Natural logarithm of the probability before temperature and filters; NaN for the first token of a prompt. */
  readonly logprob: number;
}

/** A generated token with the most probable ones at its place, best first. */
export interface ChosenLogprob extends TextLogprob {
  /** Where the token's text begins in what was generated, in characters (code points). */
  readonly offset: number;
  readonly top: readonly TextLogprob[];
}

/**
 * What a conversation answers, free of any vendor's shape. The first event is always "start", the last one "end".
 *
 * Tool calls come one after the other: "call" opens one, "arguments" are pieces of its JSON text, "callEnd" closes it.
 * A call without "callEnd" was cut off and must not be executed.
 */
export type ChatEvent =
  | {
      readonly kind: "start";
      readonly promptTokens: number;
      /** Prompt tokens whose computation was reused. */
      readonly cachedTokens: number;
      /** What was ignored, relaxed or rewritten on the way to the model, for the client to know. */
      readonly warnings: readonly string[];
    }
  | {
      readonly kind: "text";
      readonly text: string;
      /** Of the tokens that this text was made of, when asked for. */
      readonly logprobs?: readonly ChosenLogprob[] | undefined;
    }
  | { readonly kind: "reasoning"; readonly text: string }
  /** Calls are numbered from 0; `name` is one of the request's tools. */
  | { readonly kind: "call"; readonly index: number; readonly id: string; readonly name: string }
  | { readonly kind: "arguments"; readonly index: number; readonly text: string }
  | { readonly kind: "callEnd"; readonly index: number }
  /** This server runs a tool of an MCP server; the client sees it and must not run it again. */
  | {
      readonly kind: "run";
      readonly id: string;
      readonly server: string;
      /** As its server calls it. */
      readonly name: string;
      readonly arguments: string;
    }
  | { readonly kind: "progress"; readonly id: string; readonly message: string }
  | {
      readonly kind: "result";
      readonly id: string;
      readonly text: string;
      readonly isError: boolean;
    }
  | {
      readonly kind: "end";
      readonly reason: FinishReason;
      /** The stop string that ended the text, if one did. */
      readonly stop?: string | undefined;
      readonly usage: Usage;
    };
