import type { GrammarSpec, GrammarVocabulary } from "#core/contract";

/** Engine thread to grammar Worker. */
export type ToGrammar =
  /** The first message; answered by "ready". */
  | {
      readonly kind: "vocabulary";
      readonly vocabulary: GrammarVocabulary;
      /** Of the logits. */
      readonly vocabSize: number;
      /** Two counters: compilations begun and ended. */
      readonly progress: SharedArrayBuffer;
    }
  /** Answered by "compiled" or "failed". */
  | {
      readonly kind: "compile";
      readonly key: string;
      readonly spec: GrammarSpec;
      readonly isStrict: boolean;
    }
  /** Begins a text in the grammar; what may come first is told in `shared`. */
  | {
      readonly kind: "open";
      readonly matcher: number;
      readonly key: string;
      readonly stopIds: readonly number[];
      readonly shared: SharedArrayBuffer;
    }
  /** Tokens were drawn, each by the matcher's own mask; what may come next is told in its shared memory. */
  | { readonly kind: "accept"; readonly matcher: number; readonly id: number }
  | { readonly kind: "close"; readonly matcher: number }
  | { readonly kind: "drop"; readonly key: string };

export type FromGrammar =
  | { readonly kind: "ready" }
  /** A fault of ours: the Worker is of no use any more. */
  | { readonly kind: "broken"; readonly reason: string }
  | {
      readonly kind: "compiled";
      readonly key: string;
      readonly ms: number;
      readonly ignored: readonly string[];
    }
  | {
      readonly kind: "failed";
      readonly key: string;
      readonly reason: string;
      readonly keyword?: string | undefined;
    };

/** Most tokens that are forced at once. */
export const MAX_FORCED = 48;

/** An Int32Array over a matcher's shared memory: these slots, the forced ids, then the mask. */
export const SHARED = {
  /** Grows when an answer is there: 1 after "open", one more after each "accept". */
  turn: 0,
  /** "going": the mask tells what may come next, after the forced ids. "ended": the text is complete and nothing may follow. */
  state: 1,
  numForced: 2,
  forced: 3,
  mask: 3 + MAX_FORCED,
} as const;

export const STATE = { going: 0, ended: 1, failed: 2 } as const;

/** Words of a mask. */
export const maskWords = (vocabSize: number): number => Math.ceil(vocabSize / 32);
