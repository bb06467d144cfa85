import * as mx from "#device/mlx";
import type { Batch } from "./batch.ts";
import type { CacheShape } from "./contiguous.ts";
import type { KvCache } from "./kv-cache.ts";

/**
 * KvCache of the CPU kernels: one native pool holds the blocks of all layers; the layers write into it in place and
 * read through block tables. Sharing a block costs nothing, so most hooks have nothing to do.
 */
export class PagedCache implements KvCache {
  readonly blockTokens: number;
  readonly #pool: mx.native.Pool;
  #batch: mx.native.BatchHandle | null = null;

  /** Bytes that one token takes in all layers: 16-bit integers, and a scale for each key and each value. */
  static bytesPerToken({ layers, kvHeads, headDim, blockTokens }: CacheShape): number {
    const integers = Math.ceil(headDim / 2) * 2 + Math.ceil(headDim / 16) * 16;
    const head = Math.ceil((blockTokens * (2 * integers + 8)) / 64) * 64; // of a block
    return (layers * kvHeads * head) / blockTokens;
  }

  /** @param numBlocks address space is reserved for all of them, memory is taken as they are written */
  constructor(shape: CacheShape, numBlocks: number) {
    this.blockTokens = shape.blockTokens;
    this.#pool = mx.native.poolNew({ ...shape, numBlocks });
  }

  open(): void {}

  begin(batch: Batch): void {
    const spans: number[] = [];
    const blocks: number[] = [];
    for (const span of batch.spans) {
      spans.push(span.start, span.rows, span.offset, blocks.length);
      for (const id of span.blocks) blocks.push(id);
    }
    this.end();
    this.#batch = mx.native.batchNew(Int32Array.from(spans), Int32Array.from(blocks));
  }

  /**
   * The step's rows x (T, E) through a decoder's layers → (T, E), lazy.
   *
   * @param tables cos and sin of the rows' positions (T, d/2, 2), one for each kind of rotation
   */
  through(stack: mx.native.Stack, x: mx.MxArray, tables: readonly mx.MxArray[]): mx.MxArray {
    if (!this.#batch) throw new Error("through() needs begin()");
    return mx.native.stack(x, stack, tables, this.#pool, this.#batch);
  }

  end(): void {
    if (this.#batch) mx.native.batchFree(this.#batch);
    this.#batch = null;
  }

  seal(): void {}
  close(): void {}
  drop(): void {}

  dispose(): void {
    this.end();
    mx.native.poolFree(this.#pool);
  }
}
