import { readdirSync } from "node:fs";
import { join } from "node:path";

/** Formats: scripts/golden/README.md. */
const FIXTURES = join(import.meta.dir, "..", "fixtures");

/** Folder of the tiny encoders' folders. */
export const ENCODER_MODELS = join(FIXTURES, "encoders");

/** Folder of what the reference libraries compute with them. */
export const GOLDEN_ENCODERS = join(FIXTURES, "golden", "encoders");

export interface EmbedderGolden {
  readonly texts: readonly string[];
  /** Without a prompt, with what the tokenizer puts around. */
  readonly ids: readonly number[][];
  readonly cases: readonly {
    /** 1_Pooling/config.json. */
    readonly pooling: Readonly<Record<string, unknown>>;
    /** Asked for by name; null: the model's default, if it has one. */
    readonly prompt: string | null;
    /** With the prompt. */
    readonly ids: readonly number[][];
    readonly width: number;
    /** One for each text. */
    readonly vectors: readonly Float32Array[];
  }[];
}

/** What FlagEmbedding computes beside the vectors, for each text. */
export interface TokenGolden {
  readonly texts: readonly string[];
  readonly ids: readonly number[][];
  /** By token id, as a string. */
  readonly lexicalWeights: readonly Readonly<Record<string, number>>[];
  /** Of all tokens but the first. */
  readonly colbertVecs: readonly (readonly Float32Array[])[];
}

export interface RerankerGolden {
  readonly queries: readonly {
    readonly query: string;
    readonly documents: readonly string[];
    readonly ids: readonly number[][];
    readonly scores: readonly number[];
  }[];
}

const names = readdirSync(ENCODER_MODELS).sort();
export const RERANKER_NAMES = names.filter((name) => /reranker|labels/.test(name));
export const EMBEDDER_NAMES = names.filter((name) => !RERANKER_NAMES.includes(name));

const read = (name: string) => Bun.file(join(GOLDEN_ENCODERS, `${name}.json`)).json();

export async function readEmbedder(name: string): Promise<EmbedderGolden> {
  const { texts, ids, cases } = await read(name);
  return {
    texts,
    ids,
    cases: cases.map((c: { width: number; vectors: string }) => ({
      ids,
      ...c,
      vectors: unpackRows(c.vectors, c.width),
    })),
  };
}

/** Of bge-m3. */
export async function readTokenGolden(): Promise<TokenGolden> {
  const { texts, ids, lexical_weights, colbert_vecs, colbert_width } = await read("bge-m3");
  return {
    texts,
    ids,
    lexicalWeights: lexical_weights,
    colbertVecs: colbert_vecs.map((rows: string) => unpackRows(rows, colbert_width)),
  };
}

export function readReranker(name: string): Promise<RerankerGolden> {
  return read(name);
}

export interface MiniLmGolden {
  readonly texts: readonly string[];
  /** Of each text, uncut. */
  readonly numTokens: readonly number[];
  readonly maxTokens: number;
  /** A sentence, one that says the same, a stranger. */
  readonly triples: readonly (readonly string[])[];
  readonly vectors: readonly Float32Array[];
}

export async function readMiniLm(): Promise<MiniLmGolden> {
  const golden = await Bun.file(join(FIXTURES, "golden", "minilm.json")).json();
  const bytes = Uint8Array.fromBase64(golden.vectors);
  const values = new Float32Array(new Float16Array(bytes.buffer, 0, bytes.byteLength / 2));
  const vectors = golden.texts.map((_: string, i: number) =>
    values.subarray(i * 384, (i + 1) * 384),
  );
  return { ...golden, vectors };
}

/** Rows of little-endian float32 in base64. */
export function unpackRows(base64: string, width: number): Float32Array[] {
  const bytes = Uint8Array.fromBase64(base64);
  const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  return Array.from({ length: values.length / width }, (_, i) =>
    values.subarray(i * width, (i + 1) * width),
  );
}

/** Largest difference of two rows; infinite where their lengths differ or one has no number. */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  let most = 0;
  for (let i = 0; i < a.length; i++) {
    const d = Math.abs((a[i] as number) - (b[i] as number));
    if (!(d <= most)) most = Number.isNaN(d) ? Number.POSITIVE_INFINITY : d;
  }
  return most;
}

export function cosine(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let ab = 0;
  let aa = 0;
  let bb = 0;
  for (let i = 0; i < a.length; i++) {
    const x = a[i] as number;
    const y = b[i] as number;
    ab += x * y;
    aa += x * x;
    bb += y * y;
  }
  return ab / Math.sqrt(aa * bb);
}
