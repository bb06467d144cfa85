/**
 * A model with the shape of Qwen3-0.6B and random weights from a fixed seed, as a folder in MLX's format and as a GGUF
 * file with the same weights: for speed at a size that no cache holds. Its words come from the default model's
 * tokenizer, padded with words that no text is split into. Kept in the cache for later runs.
 */
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { copyFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { DEFAULT_MODEL_DIR } from "../scripts/default-model.ts";
import { cacheDir } from "../scripts/wheels.ts";
import { generator } from "./prompts.ts";

const LAYERS = 28;
const HIDDEN = 1024;
const FFN = 3072;
const HEADS = 16;
const KV_HEADS = 8;
const HEAD_DIM = 128;
const VOCAB = 151_936;
const CONTEXT = 40_960;
const ROPE_BASE = 1_000_000;
const EPS = 1e-6;

/** Values that share a scale: in MLX's format, and in a block of GGUF's Q4_0. */
const GROUP = 64;
const BLOCK = 32;
/** A scale in float16, and a byte for two values. */
const BLOCK_BYTES = 2 + BLOCK / 2;

const NAME = "qwen3-0.6b-shape";
/** Raised when other files come out. */
const VERSION = 1;

/** The same weights in two formats. */
export interface ShapeModel {
  readonly folder: string;
  readonly gguf: string;
}

/** Makes the files if an earlier run did not. */
export async function shapeModel(): Promise<ShapeModel> {
  const home = join(cacheDir(), "bench", `${NAME}-${VERSION}`);
  // folders of their own: a server told to look for models beside the one finds no other
  const model = { folder: join(home, "mlx", NAME), gguf: join(home, "gguf", `${NAME}.gguf`) };
  if (existsSync(home)) return model;
  mkdirSync(dirname(home), { recursive: true });
  const work = mkdtempSync(`${home}-`);
  try {
    const mlx = join(work, "mlx", NAME);
    mkdirSync(mlx, { recursive: true });
    mkdirSync(join(work, "gguf"));
    const tokenizer = await paddedTokenizer();
    await Bun.write(join(mlx, "tokenizer.json"), JSON.stringify(tokenizer));
    for (const name of ["tokenizer_config.json", "chat_template.jinja"]) {
      await copyFile(join(DEFAULT_MODEL_DIR, name), join(mlx, name));
    }
    await Bun.write(join(mlx, "config.json"), `${JSON.stringify(CONFIG, null, 2)}\n`);
    await writeSafetensors(join(mlx, "model.safetensors"));
    const template = await Bun.file(join(DEFAULT_MODEL_DIR, "chat_template.jinja")).text();
    await writeGguf(join(work, "gguf", `${NAME}.gguf`), tokenizer, template);
    renameSync(work, home);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return model;
}

const BOS = 1;
const EOS = 2;

const CONFIG = {
  architectures: ["Qwen3ForCausalLM"],
  model_type: "qwen3",
  attention_bias: false,
  bos_token_id: BOS,
  eos_token_id: EOS,
  head_dim: HEAD_DIM,
  hidden_act: "silu",
  hidden_size: HIDDEN,
  intermediate_size: FFN,
  max_position_embeddings: CONTEXT,
  num_attention_heads: HEADS,
  num_hidden_layers: LAYERS,
  num_key_value_heads: KV_HEADS,
  quantization: { group_size: GROUP, bits: 4, mode: "affine" },
  rms_norm_eps: EPS,
  rope_scaling: null,
  rope_theta: ROPE_BASE,
  tie_word_embeddings: true,
  torch_dtype: "bfloat16",
  vocab_size: VOCAB,
};

interface Tokenizer {
  readonly model: {
    readonly vocab: Record<string, number>;
    readonly merges: readonly (string | readonly [string, string])[];
  };
  readonly added_tokens: readonly { readonly id: number; readonly special: boolean }[];
}

async function paddedTokenizer(): Promise<Tokenizer> {
  const tokenizer: Tokenizer = await Bun.file(join(DEFAULT_MODEL_DIR, "tokenizer.json")).json();
  const { vocab } = tokenizer.model;
  // a blank before each, as byte-level vocabularies write it
  for (let id = Object.keys(vocab).length; id < VOCAB; id++) vocab[`Ġword${id}`] = id;
  if (Object.keys(vocab).length !== VOCAB) throw new Error("the vocabulary has such words already");
  return tokenizer;
}

interface Matrix {
  readonly kind: "matrix";
  readonly mlx: string;
  readonly gguf: string;
  readonly rows: number;
  readonly columns: number;
}
interface Norm {
  readonly kind: "norm";
  readonly mlx: string;
  readonly gguf: string;
  readonly columns: number;
}

function* tensors(): Generator<Matrix | Norm> {
  const matrix = (mlx: string, gguf: string, rows: number, columns: number): Matrix => ({
    ...{ kind: "matrix", mlx, gguf, rows, columns },
  });
  const norm = (mlx: string, gguf: string, columns: number): Norm => ({
    ...{ kind: "norm", mlx, gguf, columns },
  });
  yield matrix("model.embed_tokens", "token_embd", VOCAB, HIDDEN);
  for (let i = 0; i < LAYERS; i++) {
    const [to, from] = [`model.layers.${i}`, `blk.${i}`];
    const [queries, keys] = [HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM];
    yield norm(`${to}.input_layernorm`, `${from}.attn_norm`, HIDDEN);
    yield matrix(`${to}.self_attn.q_proj`, `${from}.attn_q`, queries, HIDDEN);
    yield matrix(`${to}.self_attn.k_proj`, `${from}.attn_k`, keys, HIDDEN);
    yield matrix(`${to}.self_attn.v_proj`, `${from}.attn_v`, keys, HIDDEN);
    yield matrix(`${to}.self_attn.o_proj`, `${from}.attn_output`, HIDDEN, queries);
    yield norm(`${to}.self_attn.q_norm`, `${from}.attn_q_norm`, HEAD_DIM);
    yield norm(`${to}.self_attn.k_norm`, `${from}.attn_k_norm`, HEAD_DIM);
    yield norm(`${to}.post_attention_layernorm`, `${from}.ffn_norm`, HIDDEN);
    yield matrix(`${to}.mlp.gate_proj`, `${from}.ffn_gate`, FFN, HIDDEN);
    yield matrix(`${to}.mlp.up_proj`, `${from}.ffn_up`, FFN, HIDDEN);
    yield matrix(`${to}.mlp.down_proj`, `${from}.ffn_down`, HIDDEN, FFN);
  }
  yield norm("model.norm", "output_norm", HIDDEN);
}

/**
 * A matrix's 4-bit values, as MLX packs them, and the last seven bits of each group's scale. A weight is
 * scale · (value − 8) with a scale between 2^-8 and 2^-7: exact in bfloat16 and in float16, and what both formats can say.
 */
function random({ mlx, rows, columns }: Matrix): { values: Uint32Array; scales: Uint16Array } {
  const next = generator(mlx);
  const values = new Uint32Array((rows * columns) / 8);
  for (let i = 0; i < values.length; i++) values[i] = next();
  const scales = new Uint16Array((rows * columns) / GROUP);
  for (let i = 0; i < scales.length; i++) scales[i] = next() & 0x7f;
  return { values, scales };
}

const BFLOAT16_ONE = 127 << 7;
/** Bits of 2^-8 and of −2^-5, which is −8 · 2^-8. */
const BFLOAT16_SCALE = (127 - 8) << 7;
const BFLOAT16_BIAS = 0x8000 | ((127 - 5) << 7);
const FLOAT16_SCALE = (15 - 8) << 10;

/** In the order of the header. */
async function writeSafetensors(path: string): Promise<void> {
  const header: Record<string, unknown> = { __metadata__: { format: "mlx" } };
  let offset = 0;
  const add = (name: string, dtype: "U32" | "BF16", shape: readonly number[]) => {
    const begin = offset;
    offset += shape.reduce((product, n) => product * n, dtype === "U32" ? 4 : 2);
    header[name] = { dtype, shape, data_offsets: [begin, offset] };
  };
  for (const tensor of tensors()) {
    if (tensor.kind === "norm") {
      add(`${tensor.mlx}.weight`, "BF16", [tensor.columns]);
      continue;
    }
    const groups = [tensor.rows, tensor.columns / GROUP];
    add(`${tensor.mlx}.weight`, "U32", [tensor.rows, tensor.columns / 8]);
    add(`${tensor.mlx}.scales`, "BF16", groups);
    add(`${tensor.mlx}.biases`, "BF16", groups);
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const padded = new Uint8Array(Math.ceil(text.length / 8) * 8).fill(0x20);
  padded.set(text);
  const out = Bun.file(path).writer();
  out.write(new BigUint64Array([BigInt(padded.length)]));
  out.write(padded);
  for (const tensor of tensors()) {
    if (tensor.kind === "norm") {
      out.write(new Uint16Array(tensor.columns).fill(BFLOAT16_ONE));
    } else {
      const { values, scales } = random(tensor);
      out.write(values);
      out.write(scales.map((bits) => BFLOAT16_SCALE | bits));
      out.write(scales.map((bits) => BFLOAT16_BIAS | bits));
    }
    await out.flush();
  }
  await out.end();
}

/** Q4_0: like MLX's groups with a bias of −8 scales, in halves that repeat the scale. */
function blocksOf(matrix: Matrix): Uint8Array {
  const { values, scales } = random(matrix);
  const packed = new Uint8Array(values.buffer);
  const blocks = new Uint8Array((matrix.rows * matrix.columns * BLOCK_BYTES) / BLOCK);
  const half = BLOCK / 2;
  for (let block = 0, to = 0; to < blocks.length; block++, to += BLOCK_BYTES) {
    const scale = FLOAT16_SCALE | ((scales[Math.floor((block * BLOCK) / GROUP)] ?? 0) << 3);
    blocks[to] = scale & 0xff;
    blocks[to + 1] = scale >> 8;
    // MLX: a byte has two neighbours. Q4_0: it has a value of the first half below its counterpart of the second.
    const from = block * half;
    for (let i = 0; i < half; i += 2) {
      const low = packed[from + i / 2] ?? 0;
      const high = packed[from + half / 2 + i / 2] ?? 0;
      blocks[to + 2 + i] = (low & 0x0f) | ((high & 0x0f) << 4);
      blocks[to + 3 + i] = (low >> 4) | (high & 0xf0);
    }
  }
  return blocks;
}

const GGUF_ALIGNMENT = 32;
const FLOAT32_TENSOR = 0;
const Q4_0_TENSOR = 2;
/** Kinds of token in GGUF. */
const NORMAL = 1;
const CONTROL = 3;

async function writeGguf(path: string, tokenizer: Tokenizer, template: string): Promise<void> {
  const all = [...tensors()];
  const fields = ggufFields(tokenizer, template);
  const head = new ByteWriter();
  head.text("GGUF");
  head.uint32(3);
  head.uint64(all.length);
  head.uint64(fields.length);
  for (const write of fields) write(head);
  let offset = 0;
  for (const tensor of all) {
    head.string(`${tensor.gguf}.weight`);
    const isNorm = tensor.kind === "norm";
    // the fastest dimension first
    const shape = isNorm ? [tensor.columns] : [tensor.columns, tensor.rows];
    head.uint32(shape.length);
    for (const size of shape) head.uint64(size);
    head.uint32(isNorm ? FLOAT32_TENSOR : Q4_0_TENSOR);
    head.uint64(offset);
    const count = shape.reduce((product, n) => product * n, 1);
    // every size is a multiple of the alignment
    offset += isNorm ? count * 4 : (count / BLOCK) * BLOCK_BYTES;
  }
  head.pad(GGUF_ALIGNMENT);
  const out = Bun.file(path).writer();
  out.write(head.bytes());
  for (const tensor of all) {
    out.write(tensor.kind === "norm" ? new Float32Array(tensor.columns).fill(1) : blocksOf(tensor));
    await out.flush();
  }
  await out.end();
}

type WriteField = (out: ByteWriter) => void;

function ggufFields(tokenizer: Tokenizer, template: string): WriteField[] {
  const words: string[] = [];
  for (const [word, id] of Object.entries(tokenizer.model.vocab)) words[id] = word;
  const special = new Set(tokenizer.added_tokens.filter((t) => t.special).map(({ id }) => id));
  const merges = tokenizer.model.merges.map((m) => (typeof m === "string" ? m : m.join(" ")));
  const uint32 = (key: string, value: number) => (out: ByteWriter) =>
    out.field(key, 4).uint32(value);
  const float32 = (key: string, value: number) => (out: ByteWriter) =>
    out.field(key, 6).float32(value);
  const string = (key: string, value: string) => (out: ByteWriter) =>
    out.field(key, 8).string(value);
  const strings = (key: string, values: readonly string[]) => (out: ByteWriter) => {
    out.field(key, 9).uint32(8).uint64(values.length);
    for (const value of values) out.string(value);
  };
  const kinds: WriteField = (out) => {
    out.field("tokenizer.ggml.token_type", 9).uint32(5).uint64(words.length);
    for (let id = 0; id < words.length; id++) out.uint32(special.has(id) ? CONTROL : NORMAL);
  };
  return [
    string("general.architecture", "qwen3"),
    string("general.name", NAME),
    uint32("general.alignment", GGUF_ALIGNMENT),
    uint32("general.file_type", 2),
    uint32("general.quantization_version", 2),
    uint32("qwen3.block_count", LAYERS),
    uint32("qwen3.context_length", CONTEXT),
    uint32("qwen3.embedding_length", HIDDEN),
    uint32("qwen3.feed_forward_length", FFN),
    uint32("qwen3.attention.head_count", HEADS),
    uint32("qwen3.attention.head_count_kv", KV_HEADS),
    uint32("qwen3.attention.key_length", HEAD_DIM),
    uint32("qwen3.attention.value_length", HEAD_DIM),
    float32("qwen3.attention.layer_norm_rms_epsilon", EPS),
    float32("qwen3.rope.freq_base", ROPE_BASE),
    string("tokenizer.ggml.model", "gpt2"),
    string("tokenizer.ggml.pre", "smollm"),
    strings("tokenizer.ggml.tokens", words),
    kinds,
    strings("tokenizer.ggml.merges", merges),
    uint32("tokenizer.ggml.bos_token_id", BOS),
    uint32("tokenizer.ggml.eos_token_id", EOS),
    uint32("tokenizer.ggml.padding_token_id", EOS),
    string("tokenizer.chat_template", template),
  ];
}

/** Little-endian values one after the other; grows as needed. */
class ByteWriter {
  #view = new DataView(new ArrayBuffer(2 ** 20));
  #size = 0;
  readonly #encoder = new TextEncoder();

  /** The key of a field and the kind of its value, which is to follow. */
  field(key: string, kind: number): this {
    return this.string(key).uint32(kind);
  }

  string(text: string): this {
    const bytes = this.#encoder.encode(text);
    return this.uint64(bytes.length).#raw(bytes);
  }

  text(text: string): this {
    return this.#raw(this.#encoder.encode(text));
  }

  uint32(value: number): this {
    this.#reserve(4).setUint32(this.#size, value, true);
    this.#size += 4;
    return this;
  }

  uint64(value: number): this {
    this.#reserve(8).setBigUint64(this.#size, BigInt(value), true);
    this.#size += 8;
    return this;
  }

  float32(value: number): this {
    this.#reserve(4).setFloat32(this.#size, value, true);
    this.#size += 4;
    return this;
  }

  pad(alignment: number): this {
    return this.#raw(new Uint8Array((alignment - (this.#size % alignment)) % alignment));
  }

  bytes(): Uint8Array {
    return new Uint8Array(this.#view.buffer, 0, this.#size);
  }

  #raw(bytes: Uint8Array): this {
    new Uint8Array(this.#reserve(bytes.length).buffer).set(bytes, this.#size);
    this.#size += bytes.length;
    return this;
  }

  #reserve(count: number): DataView {
    if (this.#size + count > this.#view.byteLength) {
      const grown = new Uint8Array((this.#size + count) * 2);
      grown.set(this.bytes());
      this.#view = new DataView(grown.buffer);
    }
    return this.#view;
  }
}

if (import.meta.main) {
  const { folder, gguf } = await shapeModel();
  process.stdout.write(`${folder}\n${gguf}\n`);
}
