import type { TokenOutput } from "#core/contract";
import * as mx from "#device/mlx";
import type { EncoderKernels, SumNorm, TextSpan } from "./encoder-kernels.ts";
import { buildLinear, buildNorm, type EncoderParts, scoped, splitLinear } from "./encoder-parts.ts";
import type {
  EncoderAttentionSpec,
  EncoderLayerSpec,
  EncoderMlpSpec,
  EncoderNorms,
  EncoderSpec,
} from "./encoder-spec.ts";
import { buildHead, type Head } from "./head.ts";
import type { Kernels, Linear, Rotation } from "./kernels.ts";
import { ropeFrequencies } from "./rope.ts";
import type { Weights } from "./weights.ts";

/** Texts that pass through an encoder side by side, without padding. */
export interface EncodeBatch {
  /** Token ids of all texts, one text after the other. */
  readonly ids: Int32Array;
  /** Text i ends before row ends[i]; none is empty. */
  readonly ends: Int32Array;
  /** 0 or 1 for each row: the part of the text that it belongs to. */
  readonly parts: Int32Array;
  /** What to compute for single tokens; the model must have it. */
  readonly tokenOutputs: readonly TokenOutput[];
}

/** A model that gives one row of numbers for each text, as the runner sees it. */
export interface Encoder {
  readonly vocabSize: number;
  /** Numbers per text. */
  readonly width: number;
  /** What it can give for single tokens, and how many numbers that is. */
  readonly tokenWidths: Readonly<Partial<Record<TokenOutput, number>>>;
  /** Units of work that `begin` cuts a batch of so many blocks into, about equally long. */
  readonly unitsPerBlock: number;
  /**
   * Starts a batch.
   *
   * @param maxRows rows that one unit of work handles at most
   */
  begin(batch: EncodeBatch, maxRows: number): EncodePass;
  dispose(): void;
}

/** One batch on its way through the layers, a unit of work at a time. */
export interface EncodePass {
  /** Does one unit of work; true when it was the last one. */
  advance(): boolean;
  /** (texts, width) after the last unit. */
  readonly rows: Float32Array;
  /** (T, width) for what was asked for, after the last unit. */
  readonly tokens: Readonly<Partial<Record<TokenOutput, Float32Array>>>;
  /** Frees what the pass still holds. */
  dispose(): void;
}

type Rotate = (positions: mx.MxArray) => Rotation;

interface Layer {
  /** Rows → queries, keys and values (T, heads · D). */
  project(x: mx.MxArray, rotations: readonly Rotation[]): mx.MxArray[];
  /** The layer's rows, from its input, the queries of the same rows, and all keys and values. */
  finish(
    x: mx.MxArray,
    q: mx.MxArray,
    k: mx.MxArray,
    v: mx.MxArray,
    spans: readonly TextSpan[],
  ): mx.MxArray;
}

/**
 * The encoder loop over a spec. Rows never depend on their neighbours, except for the keys of their own text.
 *
 * @throws {OmlxError} model_load naming a tensor that is missing, misshapen or left over
 */
export function buildEncoder(
  spec: EncoderSpec,
  weights: Weights,
  kernels: Kernels,
  more: EncoderKernels,
): Encoder {
  const parts: EncoderParts = { weights, kernels, more, owned: [] };
  const embed = buildEmbedding(spec, parts);
  const rotations = new Map<string, { readonly index: number; readonly make: Rotate }>();
  const layers = spec.layers.map((layer) => buildLayer(layer, spec, parts, rotations));
  const finalNorm = buildNorm(spec.finalNorm, spec.hidden, spec, parts);
  const head = buildHead(spec, parts);
  weights.audit(spec.unused);
  const makers = [...rotations.values()].map(({ make }) => make);
  return {
    vocabSize: spec.vocab,
    width: head.width,
    tokenWidths: Object.fromEntries([...head.tokens].map(([name, { width }]) => [name, width])),
    unitsPerBlock: 2 * layers.length + 1,
    begin: (batch, maxRows) =>
      new Pass({ batch, maxRows, embed, layers, finalNorm, head, makers, hidden: spec.hidden }),
    dispose() {
      head.dispose();
      for (const array of parts.owned.splice(0)) mx.free(array);
      kernels.dispose();
      weights.dispose();
    },
  };
}

interface PassOptions {
  readonly batch: EncodeBatch;
  readonly maxRows: number;
  readonly embed: Embed;
  readonly layers: readonly Layer[];
  readonly finalNorm: SumNorm | null;
  readonly head: Head;
  readonly makers: readonly Rotate[];
  readonly hidden: number;
}

/** Rows that are computed together, and the texts that they belong to. */
interface Block {
  readonly from: number;
  readonly to: number;
  readonly positions: Int32Array;
  readonly spans: readonly TextSpan[];
  x: mx.MxArray | null;
  qkv: mx.MxArray[];
}

class Pass implements EncodePass {
  rows: Float32Array = new Float32Array();
  tokens: Readonly<Partial<Record<TokenOutput, Float32Array>>> = {};
  readonly #options: PassOptions;
  readonly #blocks: Block[];
  readonly #work: Generator<void>;
  /** Keys and values of the layer that runs now. */
  #keys: mx.MxArray[] = [];

  constructor(options: PassOptions) {
    this.#options = options;
    this.#blocks = cutBlocks(options.batch, options.maxRows);
    this.#work = this.#run();
  }

  advance(): boolean {
    return this.#work.next().done === true;
  }

  dispose(): void {
    for (const block of this.#blocks) {
      for (const array of block.qkv.splice(0)) mx.free(array);
      if (block.x) mx.free(block.x);
      block.x = null;
    }
    for (const array of this.#keys.splice(0)) mx.free(array);
  }

  *#run(): Generator<void> {
    const { batch, embed, layers, makers } = this.#options;
    for (const block of this.#blocks) {
      const { from, to, positions } = block;
      this.#replace(block, () =>
        embed(batch.ids.subarray(from, to), positions, batch.parts.subarray(from, to)),
      );
      yield;
    }
    for (const layer of layers) {
      for (const block of this.#blocks) {
        block.qkv = scoped(() => {
          const positions = mx.array(block.positions, [block.positions.length], "int32");
          const rotations = makers.map((make) => make(positions));
          return layer.project(block.x as mx.MxArray, rotations);
        });
        yield;
      }
      this.#gatherKeys();
      const [k, v] = this.#keys as [mx.MxArray, mx.MxArray];
      for (const block of this.#blocks) {
        const [q] = block.qkv.splice(0) as [mx.MxArray];
        try {
          const x = block.x as mx.MxArray;
          this.#replace(block, () => layer.finish(x, q, k, v, block.spans));
        } finally {
          mx.free(q);
        }
        yield;
      }
      for (const array of this.#keys.splice(0)) mx.free(array);
    }
    this.#pool();
  }

  /** The block's rows become what `make` computes from them. */
  #replace(block: Block, make: () => mx.MxArray): void {
    const [x] = scoped(() => [make()]);
    if (block.x) mx.free(block.x);
    block.x = x as mx.MxArray;
  }

  /** The blocks' keys and values as one array each. */
  #gatherKeys(): void {
    const blocks = this.#blocks;
    this.#keys = scoped(() =>
      [1, 2].map((i) => {
        const parts = blocks.map((block) => block.qkv[i] as mx.MxArray);
        return parts.length === 1 ? (parts[0] as mx.MxArray) : mx.concatenate(parts, 0);
      }),
    );
    for (const block of blocks) {
      for (const array of block.qkv.splice(1)) if (!this.#keys.includes(array)) mx.free(array);
    }
  }

  #pool(): void {
    const { batch, finalNorm, head, hidden } = this.#options;
    const states = new Float32Array(batch.ids.length * hidden);
    for (const block of this.#blocks) {
      mx.scope(() => {
        const x = block.x as mx.MxArray;
        const out = states.subarray(block.from * hidden, block.to * hidden);
        mx.readFloat32(finalNorm ? finalNorm(x) : x, out);
      });
    }
    this.dispose();
    this.rows = head.rows(states, batch.ends);
    this.tokens = Object.fromEntries(
      batch.tokenOutputs.map((name) => [name, head.tokens.get(name)?.rows(states)]),
    );
  }
}

/** Rows in blocks of at most maxRows, nearly equal ones. */
function cutBlocks({ ends }: EncodeBatch, maxRows: number): Block[] {
  const numRows = ends.at(-1) ?? 0;
  const count = Math.max(1, Math.ceil(numRows / maxRows));
  const blocks: Block[] = [];
  for (let b = 0; b < count; b++) {
    const from = Math.floor((numRows * b) / count);
    const to = Math.floor((numRows * (b + 1)) / count);
    const positions = new Int32Array(to - from);
    const spans: TextSpan[] = [];
    let begin = 0;
    for (const end of ends) {
      const first = Math.max(begin, from);
      const last = Math.min(end, to);
      if (first < last) {
        const offset = first - begin;
        const rows = last - first;
        const keys = end - begin;
        spans.push({ start: first - from, rows, offset, firstKey: begin, keys });
        for (let i = 0; i < rows; i++) positions[first - from + i] = offset + i;
      }
      begin = end;
    }
    blocks.push({ from, to, positions, spans, x: null, qkv: [] });
  }
  return blocks;
}

/** ids, positions and parts of some rows → (T, E) */
type Embed = (ids: Int32Array, positions: Int32Array, parts: Int32Array) => mx.MxArray;

function buildEmbedding(spec: EncoderSpec, parts: EncoderParts): Embed {
  const { weights, kernels } = parts;
  const { words, positions, types, scale } = spec.embedding;
  const table = (path: string, rows: number) =>
    kernels.embedding(weights.matrix(path, rows, spec.hidden));
  const wordRows = table(words, spec.vocab);
  const positionRows = positions ? table(positions.path, positions.count) : null;
  const typeRows = types ? table(types.path, types.count) : null;
  const norm = buildNorm(spec.embedding.norm, spec.hidden, spec, parts);
  const ints = (values: Int32Array) => mx.array(values.slice(), [values.length], "int32");
  return (ids, at, part) => {
    let x = wordRows(ints(ids));
    if (scale !== 1) x = mx.multiply(x, scale);
    if (typeRows)
      x = mx.add(x, typeRows(ints(types && types.count > 1 ? part : part.map(() => 0))));
    const offset = positions?.offset ?? 0;
    const more = positionRows?.(ints(at.map((p) => p + offset)));
    if (norm) return norm(x, more);
    return more ? mx.add(x, more) : x;
  };
}

/** x, r → sumNorm(x + outNorm(r)) */
function buildSum(
  norms: EncoderNorms,
  path: string,
  spec: EncoderSpec,
  parts: EncoderParts,
): (x: mx.MxArray, r: mx.MxArray) => mx.MxArray {
  const at = (name: string | null) =>
    buildNorm(name === null ? null : `${path}.${name}`, spec.hidden, spec, parts);
  const out = at(norms.out);
  const sum = at(norms.sum);
  return (x, r) => {
    const normed = out ? out(r) : r;
    return sum ? sum(x, normed) : mx.add(x, normed);
  };
}

function buildLayer(
  { path, attention, attentionNorms, mlp, mlpNorms }: EncoderLayerSpec,
  spec: EncoderSpec,
  parts: EncoderParts,
  rotations: Map<string, { readonly index: number; readonly make: Rotate }>,
): Layer {
  const entrance = (name: string | null): SumNorm =>
    buildNorm(name === null ? null : `${path}.${name}`, spec.hidden, spec, parts) ?? ((x) => x);
  const attentionIn = entrance(attentionNorms.in);
  const mlpIn = entrance(mlpNorms.in);
  const attentionSum = buildSum(attentionNorms, path, spec, parts);
  const mlpSum = buildSum(mlpNorms, path, spec, parts);
  const project = buildProjections(attention, path, spec, parts);
  const { heads, kvHeads, headDim, rope } = attention;
  const out = buildLinear(`${path}.${attention.out}`, spec.hidden, heads * headDim, parts);
  const feedForward = buildMlp(mlp, path, spec, parts);
  const rotation = rope && rotationIndex(rope, headDim, parts.kernels, rotations);
  return {
    project(x, made) {
      const [q, k, v] = project(attentionIn(x)) as [mx.MxArray, mx.MxArray, mx.MxArray];
      if (rotation === null) return [q, k, v];
      const { rotate } = made[rotation] as Rotation;
      return [rotate(q, heads), rotate(k, kvHeads), v];
    },
    finish(x, q, k, v, spans) {
      const mixed = out(parts.more.attend(q, k, v, spans, attention));
      const y = attentionSum(x, mixed);
      return mlpSum(y, feedForward(mlpIn(y)));
    },
  };
}

function rotationIndex(
  rope: NonNullable<EncoderAttentionSpec["rope"]>,
  headDim: number,
  kernels: Kernels,
  rotations: Map<string, { readonly index: number; readonly make: Rotate }>,
): number {
  const key = JSON.stringify([rope, headDim]);
  const known = rotations.get(key);
  if (known) return known.index;
  const index = rotations.size;
  rotations.set(key, { index, make: kernels.rotation(ropeFrequencies(rope), headDim, false) });
  return index;
}

function buildProjections(
  { heads, kvHeads, headDim, qkv, qkNorms }: EncoderAttentionSpec,
  path: string,
  spec: EncoderSpec,
  parts: EncoderParts,
): (x: mx.MxArray) => mx.MxArray[] {
  const rows = [heads * headDim, kvHeads * headDim, kvHeads * headDim];
  const linears =
    typeof qkv === "string"
      ? splitLinear(`${path}.${qkv}`, rows, spec.hidden, parts)
      : qkv.map((name, i) => buildLinear(`${path}.${name}`, rows[i] as number, spec.hidden, parts));
  if (!qkNorms) return (x) => linears.map((linear) => linear(x));
  const perHead = qkNorms.map((name) => buildNorm(`${path}.${name}`, headDim, spec, parts));
  return (x) =>
    linears.map((linear, i) => {
      const y = linear(x);
      const normalize = perHead[i];
      if (!normalize) return y;
      const [n = 0, width = 0] = y.shape;
      return mx.reshape(normalize(mx.reshape(y, [n, width / headDim, headDim])), [n, width]);
    });
}

function buildMlp(
  { hidden, activation, gate, up, down }: EncoderMlpSpec,
  path: string,
  spec: EncoderSpec,
  parts: EncoderParts,
): (x: mx.MxArray) => mx.MxArray {
  const downward = buildLinear(`${path}.${down}`, spec.hidden, hidden, parts);
  const { activate } = parts.more;
  if (gate === null) {
    const upward = buildLinear(`${path}.${up}`, hidden, spec.hidden, parts);
    return (x) => downward(activate(activation, upward(x)));
  }
  const [gateLinear, upLinear] = (
    gate === up
      ? splitLinear(`${path}.${up}`, [hidden, hidden], spec.hidden, parts)
      : [gate, up].map((name) => buildLinear(`${path}.${name}`, hidden, spec.hidden, parts))
  ) as [Linear, Linear];
  return (x) => downward(activate(activation, gateLinear(x), upLinear(x)));
}
