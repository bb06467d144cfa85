/** Why a generation ended, in our own words. */
export type FinishReason = "stop" | "length" | "tool_calls";

export interface Usage {
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly completionTokens: number;
  readonly reasoningTokens: number;
}

/** What a conversation answers, free of any vendor's shape. The last event is always "end". */
export type ChatEvent =
  | { readonly kind: "start"; readonly promptTokens: number }
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "reasoning"; readonly text: string }
  | {
      readonly kind: "end";
      readonly reason: FinishReason;
      /** The stop string that ended the text, if one did. */
      readonly stop?: string | undefined;
      readonly usage: Usage;
    };
