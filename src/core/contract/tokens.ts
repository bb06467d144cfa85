import type { SamplingParams } from "./sampling.ts";

/** Background work waits for interactive work, but not for ever (aging). */
export type Lane = "interactive" | "background";

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
}

export interface TokenLogprob {
  readonly id: number;
  /** Natural logarithm of the probability before temperature and filters. */
  readonly logprob: number;
  /** Most probable first. */
  readonly top: readonly (readonly [id: number, logprob: number])[];
}

/** "stop": a stop id was drawn; "length": maxTokens or the end of the window. */
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
