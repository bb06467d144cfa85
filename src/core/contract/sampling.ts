/** How the next token is drawn from the logits. Every request carries its own set. */
export interface SamplingParams {
  /** 0 is argmax. */
  readonly temperature: number;
  /** Nucleus mass in (0, 1]; 1 keeps everything. */
  readonly topP: number;
  /** 0 keeps everything. */
  readonly topK: number;
  /** Keeps tokens with probability >= minP * the largest one; 0 is off. */
  readonly minP: number;
  /** Chance in [0, 1] that a step cuts the most probable tokens off; 0 is off. */
  readonly xtcProbability: number;
  /** All tokens above this probability but the least probable of them are cut; above 0.5 nothing ever is. */
  readonly xtcThreshold: number;
  /** Ids that XTC never cuts: newline and end of text. */
  readonly xtcSpared: readonly number[];
  /** > 0; 1 is off. As in CTRL (arXiv:1909.05858): positive logits are divided, negative ones multiplied. */
  readonly repetitionPenalty: number;
  /** How many of the last tokens (prompt included) the repetition penalty sees. */
  readonly repetitionContext: number;
  /** OpenAI's penalties, over generated tokens only; 0 is off. */
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  /** Added to the logits: [token id, bias]. */
  readonly logitBias: readonly (readonly [id: number, bias: number])[];
  /** Same seed, same tokens, alone or in a batch. null: a random seed. */
  readonly seed: number | null;
}

/** Greedy decoding. */
export const GREEDY: SamplingParams = {
  temperature: 0,
  topP: 1,
  topK: 0,
  minP: 0,
  xtcProbability: 0,
  xtcThreshold: 0.1,
  xtcSpared: [],
  repetitionPenalty: 1,
  repetitionContext: 20,
  presencePenalty: 0,
  frequencyPenalty: 0,
  logitBias: [],
  seed: null,
};
