import type { SamplingParams } from "./sampling.ts";

/** Background work waits for interactive work, but not for ever (aging). */
export type Lane = "interactive" | "background";

/** A formal language that XGrammar can enforce. */
export type GrammarSpec =
  /** JSON text of a JSON schema; "{}" is any JSON value. */
  | { readonly kind: "schema"; readonly schema: string }
  | { readonly kind: "regex"; readonly pattern: string }
  /** GBNF, as in llama.cpp; the start symbol is "root". */
  | { readonly kind: "ebnf"; readonly grammar: string }
  /** JSON text of an XGrammar structural tag: free text with tagged parts that follow schemas. */
  | { readonly kind: "structuralTag"; readonly tag: string };

/** What the generated text must be. Special tokens other than the stop ids are never drawn inside a grammar. */
export interface Constraint {
  readonly grammar: GrammarSpec;
  /**
   * A grammar that cannot be enforced, or not in time: an error when strict, else the answer goes on without it and the
   * "prefill" event tells why.
   */
  readonly strict: boolean;
  /** The request's field that demands it, for errors. */
  readonly param?: string | undefined;
  /** Token ids of the end-of-thinking marker: the grammar begins after them. null: at the first token. */
  readonly after: readonly number[] | null;
}

/** Thoughts end after so many tokens: these ids are forced then. */
export interface ThinkingBudget {
  readonly maxTokens: number;
  readonly endIds: readonly number[];
}

/** What the device floor is asked to do: token ids in, token ids out. */
export interface TokenRequest {
  /** Unique among the open requests of one engine. */
  readonly id: string;
  /** Not empty. */
  readonly promptIds: readonly number[];
  /** Upper bound of generated tokens; the device clamps it to the window. */
  readonly maxTokens: number;
  /** Stop ids are not sampled before so many tokens were generated. */
  readonly minTokens: number;
  /** Generation ends with any of these (EOS); they are not part of the output. */
  readonly stopIds: readonly number[];
  readonly sampling: SamplingParams;
  readonly lane: Lane;
  /** How many alternatives to report per token; null: no log-probabilities. */
  readonly topLogprobs: number | null;
  /** Whether the prompt's own tokens have their log-probabilities reported, too; nothing of it is reused then. */
  readonly scoresPrompt?: boolean | undefined;
  readonly constraint: Constraint | null;
  readonly thinkingBudget: ThinkingBudget | null;
}

export interface TokenLogprob {
  readonly id: number;
  /** Natural logarithm of the probability before temperature and filters. */
  readonly logprob: number;
  /** Most probable first. */
  readonly top: readonly (readonly [id: number, logprob: number])[];
}

/** "stop": a stop id was drawn, or the grammar is complete; "length": maxTokens or the end of the window. */
export type TokenFinish = "stop" | "length";

export interface TokenUsage {
  readonly promptTokens: number;
  /** Prompt tokens whose keys and values were reused. */
  readonly cachedTokens: number;
  readonly completionTokens: number;
}

/** What the device floor answers. The last event is always "finish"; errors are thrown. */
export type TokenEvent =
  | {
      readonly kind: "prefill";
      readonly done: number;
      readonly total: number;
      /** Prompt tokens whose keys and values were reused; part of `done`. */
      readonly cached?: number | undefined;
      /** Of further prompt tokens in their order, when asked for; the first token of a prompt has none. */
      readonly logprobs?: readonly TokenLogprob[] | undefined;
      /** Told once: why the request's constraint is not enforced. */
      readonly relaxed?: string | undefined;
    }
  | {
      readonly kind: "tokens";
      readonly ids: readonly number[];
      readonly logprobs?: readonly TokenLogprob[] | undefined;
    }
  | {
      readonly kind: "finish";
      readonly reason: TokenFinish;
      /** The stop id that ended the text, if one did. */
      readonly stopId?: number | undefined;
      readonly usage: TokenUsage;
    };
