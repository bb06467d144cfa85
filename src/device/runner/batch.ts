import type { Batch, Span } from "#device/cache";
import type { Sequence } from "./sequence.ts";

/** Rows that one sequence gets in a step. */
export interface PlannedRows {
  readonly sequence: Sequence;
  readonly rows: number;
  /** The last row is the newest id: its logits give the next token. */
  readonly isSampled: boolean;
}

/** Lays the sequences' next rows side by side, in the order given. */
export function assembleBatch(work: readonly PlannedRows[]): Batch {
  const numRows = work.reduce((sum, w) => sum + w.rows, 0);
  const ids = new Int32Array(numRows);
  const positions = new Int32Array(numRows);
  const spans: Span[] = [];
  const logitRows: number[] = [];
  let start = 0;
  for (const { sequence, rows, isSampled } of work) {
    const offset = sequence.computed;
    for (let i = 0; i < rows; i++) {
      ids[start + i] = sequence.ids[offset + i] as number;
      positions[start + i] = offset + i;
    }
    spans.push({ seq: sequence.seq, start, rows, offset, blocks: sequence.blocks });
    start += rows;
    if (isSampled) logitRows.push(start - 1);
  }
  return { ids, positions, spans, logitRows: Int32Array.from(logitRows) };
}
