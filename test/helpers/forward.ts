import type { KernelMode } from "#core/contract";
import type { Span } from "#device/cache";
import * as mx from "#device/mlx";
import { type LoadedModel, loadModel } from "../../src/device/runner/load.ts";

/** One text that a ForwardSession feeds to the model; `numTokens` of it are in the cache. */
export interface Text {
  readonly seq: number;
  readonly blocks: number[];
  numTokens: number;
}

/** What a text adds to a step. */
export interface Feed {
  readonly text: Text;
  readonly ids: readonly number[];
  /** Which of the new rows to read logits of; all of them if not given. */
  readonly logits?: "all" | "last" | "none";
}

/**
 * A model in this process, driven step by step without scheduler and sampler: the caller says which tokens of which
 * texts stand in a step. Blocks are given out here, in order.
 */
export class ForwardSession {
  readonly loaded: LoadedModel;
  readonly #freeBlocks: number[];
  #nextSeq = 1;

  private constructor(loaded: LoadedModel, numBlocks: number) {
    this.loaded = loaded;
    this.#freeBlocks = Array.from({ length: numBlocks }, (_, i) => numBlocks - 1 - i);
  }

  /** `cacheTokens`: what all texts together may hold. `threads` 0: one per core. */
  static async open(
    path: string,
    kernels: KernelMode,
    { cacheTokens = 4096, threads = 0 } = {},
  ): Promise<ForwardSession> {
    const loaded = await loadModel({
      modelPath: path,
      kernels,
      threads,
      contextWindow: 0,
      cacheBytes: 0,
      maxRunning: 64,
      prefillTargetMs: 100,
      heartbeatPath: "",
    });
    if (loaded.info.kernels !== kernels) throw new Error(`${kernels} kernels are not available`);
    const numBlocks = Math.ceil(cacheTokens / loaded.cache.blockTokens);
    if (numBlocks > loaded.numBlocks) throw new Error(`only ${loaded.numBlocks} blocks fit`);
    return new ForwardSession(loaded, numBlocks);
  }

  get blockTokens(): number {
    return this.loaded.cache.blockTokens;
  }

  get vocabSize(): number {
    return this.loaded.model.vocabSize;
  }

  /** A new text, or one that begins with `held` whole sealed blocks of another one. */
  start(held: readonly number[] = []): Text {
    const text: Text = {
      seq: this.#nextSeq++,
      blocks: [...held],
      numTokens: held.length * this.blockTokens,
    };
    this.loaded.cache.open(text.seq, held, text.numTokens);
    return text;
  }

  /** Makes the text's full blocks outlive it; returns them. */
  seal(text: Text): number[] {
    const held = text.blocks.slice(0, Math.floor(text.numTokens / this.blockTokens));
    for (const [index, block] of held.entries()) this.loaded.cache.seal(text.seq, index, block);
    return held;
  }

  /** Ends the text; `keep` lists blocks that another text goes on using. */
  close(text: Text, keep: readonly number[] = []): void {
    this.loaded.cache.close(text.seq);
    this.release(text.blocks.filter((block) => !keep.includes(block)));
  }

  release(blocks: readonly number[]): void {
    this.loaded.cache.drop(blocks);
    this.#freeBlocks.push(...blocks);
  }

  /** One forward pass over all feeds together; per feed the logits asked for, a row of vocabSize each. */
  step(feeds: readonly Feed[]): Float32Array[][] {
    let values: Float32Array = new Float32Array();
    this.#forward(feeds, (logits) => {
      values = mx.toFloat32(logits);
    });
    let row = 0;
    return feeds.map(({ ids: fresh, logits = "all" }) => {
      const count = logits === "all" ? fresh.length : logits === "last" ? 1 : 0;
      return Array.from({ length: count }, () => {
        const begin = row++ * this.vocabSize;
        return values.subarray(begin, begin + this.vocabSize);
      });
    });
  }

  /** As step(), for who wants to know how long it takes: the logits are computed and stay where they are. */
  compute(feeds: readonly Feed[]): void {
    this.#forward(feeds, (logits) => mx.evaluate(logits));
  }

  #forward(feeds: readonly Feed[], use: (logits: mx.MxArray) => void): void {
    const { model, cache } = this.loaded;
    const ids: number[] = [];
    const positions: number[] = [];
    const spans: Span[] = [];
    const logitRows: number[] = [];
    for (const { text, ids: fresh, logits = "all" } of feeds) {
      const start = ids.length;
      const offset = text.numTokens;
      this.#grow(text, offset + fresh.length);
      for (const [i, id] of fresh.entries()) {
        ids.push(id);
        positions.push(offset + i);
        const isRead = logits === "all" || (logits === "last" && i === fresh.length - 1);
        if (isRead) logitRows.push(start + i);
      }
      spans.push({ seq: text.seq, start, rows: fresh.length, offset, blocks: [...text.blocks] });
    }
    const batch = {
      ids: Int32Array.from(ids),
      positions: Int32Array.from(positions),
      spans,
      logitRows: Int32Array.from(logitRows),
    };
    cache.begin(batch);
    try {
      mx.scope(() => {
        const logits = model.forward(batch, cache);
        if (logits) use(logits);
      });
    } finally {
      cache.end();
    }
    for (const { text, ids: fresh } of feeds) text.numTokens += fresh.length;
  }

  /** The text in steps of `chunk` tokens (all at once if not given); logits of every position. */
  run(text: Text, ids: readonly number[], chunk = ids.length): Float32Array[] {
    const rows: Float32Array[] = [];
    for (let i = 0; i < ids.length; i += chunk) {
      rows.push(...(this.step([{ text, ids: ids.slice(i, i + chunk) }])[0] ?? []));
    }
    return rows;
  }

  dispose(): void {
    this.loaded.cache.dispose();
    this.loaded.model.dispose();
  }

  #grow(text: Text, numTokens: number): void {
    while (text.blocks.length * this.blockTokens < numTokens) {
      const block = this.#freeBlocks.pop();
      if (block === undefined) throw new Error("the session's cache is full");
      text.blocks.push(block);
    }
  }
}

/** Index of the largest value; of equal ones the first. */
export function argmax(row: Float32Array): number {
  let best = 0;
  for (let i = 1; i < row.length; i++) {
    if ((row[i] ?? Number.NaN) > (row[best] ?? Number.NaN)) best = i;
  }
  return best;
}
