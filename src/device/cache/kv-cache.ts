import type { Batch } from "./batch.ts";

/**
 * Where keys and values live. Block ids are given out by BlockPool; a storage only keeps what belongs to them. How rows
 * are written and attended to is each storage's own matter.
 *
 * Per step: `begin`, the layers, evaluation of the logits, `end`. Between steps: `open`, `seal`, `close`,
 * `drop`. No scope of the caller owns what a storage keeps.
 */
export interface KvCache {
  /** Tokens per block. */
  readonly blockTokens: number;

  /** A sequence starts, or resumes, from `numTokens` cached tokens that whole `blocks` hold. */
  open(seq: number, blocks: readonly number[], numTokens: number): void;

  /** A step begins; `batch` stays valid until `end`. */
  begin(batch: Batch): void;

  /** The step's logits are evaluated (or the step failed). */
  end(): void;

  /** Block `index` of the sequence is full: its content must outlive the sequence, under the id `block`. */
  seal(seq: number, index: number, block: number): void;

  /** The sequence ended: finished, cancelled or preempted. */
  close(seq: number): void;

  /** Nothing refers to these blocks any more; their ids may be given out again. */
  drop(blocks: readonly number[]): void;

  dispose(): void;
}
