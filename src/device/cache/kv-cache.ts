import type { MxArray, native } from "#device/mlx";
import type { Batch } from "./batch.ts";

/**
 * Where keys and values live. Block ids are given out by BlockPool; a storage only keeps what belongs to them.
 *
 * Per step: `begin`, one `attend` per layer, evaluation of the logits, `end`. Between steps: `open`, `seal`, `close`,
 * `drop`. No scope of the caller owns what a storage keeps.
 */
export interface KvCache {
  /** Tokens per block. */
  readonly blockTokens: number;

  /** A sequence starts, or resumes, from `numTokens` cached tokens that whole `blocks` hold. */
  open(seq: number, blocks: readonly number[], numTokens: number): void;

  /** A step begins; `batch` stays valid until `end`. */
  begin(batch: Batch): void;

  /**
   * Writes the rows' keys and values, then attends causally, each row to its own sequence up to itself.
   *
   * @param q       (T, H*D) float32
   * @param k       (T, K*D) float32
   * @param v       (T, K*D) float32
   * @param scale   multiplies q·k
   * @param prepare norms and rotation that q and k still need; null: they are applied. Only for native kernels
   * @returns (T, H*D), lazy
   */
  attend(
    layer: number,
    q: MxArray,
    k: MxArray,
    v: MxArray,
    scale: number,
    prepare: native.RowPreparation | null,
  ): MxArray;

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
