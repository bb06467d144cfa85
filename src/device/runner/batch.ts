import type { Batch, Span } from "#device/cache";
import type { Sequence } from "./sequence.ts";

/** Rows that one sequence gets in a step. */
export interface PlannedRows {
  readonly sequence: Sequence;
  readonly rows: number;
  /** The last row is the newest id: its logits give the next token. */
  readonly isSampled: boolean;
}

/** What one row of logits is for. */
export interface LogitUse {
  /** Row of the batch. */
  readonly row: number;
  readonly sequence: Sequence;
  /** Index of the row's token in the sequence; the logits are those of the one after it. */
  readonly position: number;
  /** It gives the log-probability of a prompt token. */
  readonly isScored: boolean;
  /** It gives the next token. */
  readonly isSampled: boolean;
}

/** Which rows need logits, in the order of the batch. */
export function logitUses(work: readonly PlannedRows[]): LogitUse[] {
  const uses: LogitUse[] = [];
  let start = 0;
  for (const { sequence, rows, isSampled } of work) {
    const { computed, scored, promptTokens, scoresPrompt } = sequence;
    for (let i = scoresPrompt ? 0 : rows - 1; i < rows; i++) {
      const position = computed + i;
      const isScored = scoresPrompt && position >= scored && position < promptTokens - 1;
      const isLast = isSampled && i === rows - 1;
      if (!isScored && !isLast) continue;
      uses.push({ row: start + i, sequence, position, isScored, isSampled: isLast });
    }
    start += rows;
  }
  return uses;
}

/** Lays the sequences' next rows side by side, in the order given. */
export function assembleBatch(work: readonly PlannedRows[]): Batch {
  const numRows = work.reduce((sum, w) => sum + w.rows, 0);
  const ids = new Int32Array(numRows);
  const positions = new Int32Array(numRows);
  const spans: Span[] = [];
  let start = 0;
  for (const { sequence, rows } of work) {
    const offset = sequence.computed;
    for (let i = 0; i < rows; i++) {
      ids[start + i] = sequence.ids[offset + i] as number;
      positions[start + i] = offset + i;
    }
    spans.push({ seq: sequence.seq, start, rows, offset, blocks: sequence.blocks });
    start += rows;
  }
  const logitRows = Int32Array.from(logitUses(work), (use) => use.row);
  return { ids, positions, spans, logitRows };
}
