import * as mx from "#device/mlx";
import type { Batch, Span } from "./batch.ts";
import type { KvCache } from "./kv-cache.ts";

/** Buffers grow by this many tokens, so that most steps write in place. */
const CAPACITY_STEP = 256;

interface Buffers {
  /** Per layer (1, K, capacity, D). Owned here: a scope never holds them, so a write can donate the old buffer. */
  keys: (mx.MxArray | null)[];
  values: (mx.MxArray | null)[];
  capacity: number;
}

export interface CacheShape {
  readonly layers: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly blockTokens: number;
}

/**
 * KvCache on stock MLX operations, for any device: one growing buffer per sequence and layer, attended by one
 * scaled_dot_product_attention call per span. Full blocks are copied out for the prefix tree and joined again when a
 * sequence opens on them.
 */
export class ContiguousCache implements KvCache {
  readonly blockTokens: number;
  readonly #shape: CacheShape;
  readonly #dtype: mx.Dtype;
  readonly #sequences = new Map<number, Buffers>();
  /** Block id → keys and values of every layer, each (1, K, blockTokens, D). */
  readonly #blocks = new Map<number, { keys: mx.MxArray[]; values: mx.MxArray[] }>();
  #spans: readonly Span[] = [];

  /** Bytes that one token takes in all layers. */
  static bytesPerToken({ layers, kvHeads, headDim }: CacheShape, dtype: mx.Dtype): number {
    return layers * 2 * kvHeads * headDim * (dtype === "float32" ? 4 : 2);
  }

  constructor(shape: CacheShape, dtype: mx.Dtype) {
    this.#shape = shape;
    this.#dtype = dtype;
    this.blockTokens = shape.blockTokens;
  }

  open(seq: number, blocks: readonly number[], numTokens: number): void {
    this.close(seq);
    const { layers } = this.#shape;
    const buffers: Buffers = {
      keys: Array(layers).fill(null),
      values: Array(layers).fill(null),
      capacity: 0,
    };
    this.#sequences.set(seq, buffers);
    const held = blocks.slice(0, numTokens / this.blockTokens);
    if (held.length === 0) return;
    const stored = held.map((id) => {
      const block = this.#blocks.get(id);
      if (!block) throw new Error(`block ${id} of sequence ${seq} holds nothing`);
      return block;
    });
    mx.scope(() => {
      for (let layer = 0; layer < layers; layer++) {
        buffers.keys[layer] = mx.keep(joined(stored.map((b) => b.keys[layer] as mx.MxArray)));
        buffers.values[layer] = mx.keep(joined(stored.map((b) => b.values[layer] as mx.MxArray)));
      }
      mx.evaluate(...(buffers.keys as mx.MxArray[]), ...(buffers.values as mx.MxArray[]));
    });
    buffers.capacity = numTokens;
  }

  begin(batch: Batch): void {
    this.#spans = batch.spans;
    for (const span of batch.spans) this.#reserve(span.seq, span.offset + span.rows);
  }

  /**
   * Writes the rows' keys and values, then attends causally, each row to its own sequence up to itself.
   *
   * @param q     (T, H*D)
   * @param k     (T, K*D)
   * @param v     (T, K*D)
   * @param scale multiplies q·k
   * @returns (T, H*D), lazy
   */
  attend(layer: number, q: mx.MxArray, k: mx.MxArray, v: mx.MxArray, scale: number): mx.MxArray {
    const outputs = this.#spans.map((span) => this.#attendSpan(span, layer, q, k, v, scale));
    return outputs.length === 1 ? (outputs[0] as mx.MxArray) : mx.concatenate(outputs, 0);
  }

  #attendSpan(
    span: Span,
    layer: number,
    q: mx.MxArray,
    k: mx.MxArray,
    v: mx.MxArray,
    scale: number,
  ): mx.MxArray {
    const { kvHeads, headDim } = this.#shape;
    const buffers = this.#buffers(span.seq);
    const numHeads = (q.shape[1] as number) / headDim;
    const end = span.offset + span.rows;
    const heads = (x: mx.MxArray, n: number) =>
      mx.transpose(mx.reshape(rowsOf(x, span), [1, span.rows, n, headDim]), [0, 2, 1, 3]); // (1, n, rows, D)
    const write = (owned: (mx.MxArray | null)[], rows: mx.MxArray) => {
      const old = owned[layer] as mx.MxArray;
      const next = mx.keep(
        mx.sliceUpdate(old, rows, [0, 0, span.offset, 0], [1, kvHeads, end, headDim]),
      );
      owned[layer] = next;
      mx.free(old); // before evaluation: the write then happens in place
      return mx.slice(next, [0, 0, 0, 0], [1, kvHeads, end, headDim]);
    };
    const keys = write(buffers.keys, heads(k, kvHeads));
    const values = write(buffers.values, heads(v, kvHeads));
    const out = mx.fast.scaledDotProductAttention(heads(q, numHeads), keys, values, {
      scale,
      mask: span.rows > 1 ? "causal" : "none",
    });
    return mx.reshape(mx.transpose(out, [0, 2, 1, 3]), [span.rows, numHeads * headDim]);
  }

  end(): void {
    this.#spans = [];
  }

  seal(seq: number, index: number, block: number): void {
    const buffers = this.#buffers(seq);
    const { kvHeads, headDim, layers } = this.#shape;
    const from = index * this.blockTokens;
    const copy = (buffer: mx.MxArray | null) =>
      mx.keep(
        copied(
          mx.slice(
            buffer as mx.MxArray,
            [0, 0, from, 0],
            [1, kvHeads, from + this.blockTokens, headDim],
          ),
        ),
      );
    mx.scope(() => {
      const keys: mx.MxArray[] = [];
      const values: mx.MxArray[] = [];
      for (let layer = 0; layer < layers; layer++) {
        keys.push(copy(buffers.keys[layer] ?? null));
        values.push(copy(buffers.values[layer] ?? null));
      }
      mx.evaluate(...keys, ...values);
      this.drop([block]);
      this.#blocks.set(block, { keys, values });
    });
  }

  close(seq: number): void {
    const buffers = this.#sequences.get(seq);
    if (!buffers) return;
    this.#sequences.delete(seq);
    for (const array of [...buffers.keys, ...buffers.values]) if (array) mx.free(array);
  }

  drop(blocks: readonly number[]): void {
    for (const id of blocks) {
      const block = this.#blocks.get(id);
      if (!block) continue;
      this.#blocks.delete(id);
      for (const array of [...block.keys, ...block.values]) mx.free(array);
    }
  }

  dispose(): void {
    for (const seq of [...this.#sequences.keys()]) this.close(seq);
    this.drop([...this.#blocks.keys()]);
  }

  #buffers(seq: number): Buffers {
    const buffers = this.#sequences.get(seq);
    if (!buffers) throw new Error(`sequence ${seq} is not open`);
    return buffers;
  }

  /** Makes room for `numTokens` tokens; existing keys and values move into the larger buffers. */
  #reserve(seq: number, numTokens: number): void {
    const buffers = this.#buffers(seq);
    if (numTokens <= buffers.capacity) return;
    const { kvHeads, headDim, layers } = this.#shape;
    const capacity = Math.ceil(numTokens / CAPACITY_STEP) * CAPACITY_STEP;
    const added = capacity - buffers.capacity;
    const grow = (owned: (mx.MxArray | null)[], layer: number) => {
      const old = owned[layer] ?? null;
      const tail = mx.zeros([1, kvHeads, added, headDim], this.#dtype);
      owned[layer] = mx.keep(old ? mx.concatenate([old, tail], 2) : tail);
      if (old) mx.free(old);
    };
    mx.scope(() => {
      for (let layer = 0; layer < layers; layer++) {
        grow(buffers.keys, layer);
        grow(buffers.values, layer);
      }
    });
    buffers.capacity = capacity;
  }
}

const rowsOf = (x: mx.MxArray, span: Span): mx.MxArray =>
  span.rows === x.shape[0]
    ? x
    : mx.slice(x, [span.start, 0], [span.start + span.rows, x.shape[1] as number]);

/** The blocks in one buffer of its own; a single block is copied, for the buffer will be written. */
const joined = (parts: mx.MxArray[]): mx.MxArray =>
  parts.length === 1 ? copied(parts[0] as mx.MxArray) : mx.concatenate(parts, 2);

/** The values in a buffer of their own. MLX's copy and contiguous may share the source's buffer, a product never does. */
const copied = (x: mx.MxArray): mx.MxArray => mx.multiply(x, mx.full([1], 1, x.dtype));
