/** Every encoder family against sentence-transformers and transformers in float32, by both forms of the kernels. */
import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { KernelMode } from "#core/contract";
import { layoutSafetensors, readTensors, type TensorInfo } from "#core/formats";
import * as mx from "#device/mlx";
import type { Encoder } from "#device/zoo";
import { readTorchTensors } from "../../../src/core/formats/torch-file.ts";
import { loadEncoder } from "../../../src/device/runner/load.ts";
import {
  distance,
  EMBEDDER_NAMES,
  ENCODER_MODELS,
  RERANKER_NAMES,
  readEmbedder,
  readReranker,
  readTokenGolden,
} from "../../helpers/encoders.ts";

const scratch = mkdtempSync(join(tmpdir(), "omlx-encoders-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

async function open(
  path: string,
  purpose: "embedding" | "reranker",
  kernels: KernelMode,
  threads = 1,
): Promise<Encoder> {
  const { encoder, info } = await loadEncoder(
    {
      modelPath: path,
      purpose,
      kernels,
      threads, // a region of two waits long for a thread that a busy machine does not run
      contextWindow: 0,
      cacheBytes: 0,
      maxRunning: 1,
      prefillTargetMs: 100,
      heartbeatPath: "",
    },
    purpose,
  );
  expect(info.kernels).toBe(kernels);
  return encoder;
}

/** Dense weights meet the same activations in both forms of the own kernels. */
const modesOf = (name: string): readonly KernelMode[] =>
  name.includes("4bit") ? ["native", "exact", "stock"] : ["native", "stock"];

/** Activations meet quantized weights with 16 bits. */
const toleranceOf = (name: string, kernels: KernelMode): number =>
  kernels === "native" && name.includes("4bit") ? 2e-4 : 1e-5;

/** A safetensors file of float16 tensors that lie in other files. */
function safetensorsOf(tensors: readonly TensorInfo[]): Uint8Array {
  const layout = layoutSafetensors(
    tensors.map((tensor) => ({ ...tensor, dtype: "F16" })),
    {},
  );
  const bytes = new Uint8Array(layout.fileBytes);
  bytes.set(layout.start);
  for (const { name, file, byteOffset, byteLength } of tensors) {
    const data = readFileSync(file).subarray(byteOffset, byteOffset + byteLength);
    bytes.set(data, layout.byteOffsets.get(name));
  }
  return bytes;
}

/** Rows of some texts that pass through side by side. */
function encode(
  encoder: Encoder,
  texts: readonly (readonly number[])[],
  { maxRows = 10_000, seconds = [] as readonly number[] } = {},
): Float32Array[] {
  const ids = Int32Array.from(texts.flat());
  const parts = new Int32Array(ids.length);
  let at = 0;
  const ends = Int32Array.from(texts, (text, i) => {
    parts.fill(1, at + (seconds[i] ?? text.length), at + text.length);
    at += text.length;
    return at;
  });
  const pass = encoder.begin({ ids, ends, parts, tokenOutputs: [] }, maxRows);
  while (!pass.advance());
  const { rows } = pass;
  return texts.map((_, i) => rows.slice(i * encoder.width, (i + 1) * encoder.width));
}

/** The fixture with another 1_Pooling/config.json. */
function withPooling(name: string, pooling: object, index: number): string {
  const path = join(scratch, `${name}-${index}`);
  cpSync(join(ENCODER_MODELS, name), path, { recursive: true });
  if (!existsSync(join(path, "1_Pooling"))) return path;
  writeFileSync(join(path, "1_Pooling", "config.json"), JSON.stringify(pooling));
  return path;
}

describe.each(EMBEDDER_NAMES)("%s", (name) => {
  test.each(modesOf(name))("%s vectors agree with sentence-transformers", async (kernels) => {
    const golden = await readEmbedder(name);
    for (const [index, { pooling, width, vectors, ids }] of golden.cases.entries()) {
      const encoder = await open(withPooling(name, pooling, index), "embedding", kernels);
      expect(encoder.width).toBe(width);
      const rows = encode(encoder, ids);
      const scale = Math.max(1, ...vectors.flatMap((v) => Math.hypot(...v)));
      const worst = Math.max(...rows.map((r, i) => distance(r, vectors[i] ?? [])));
      expect(worst / scale).toBeLessThanOrEqual(toleranceOf(name, kernels));
      encoder.dispose();
    }
  });

  test("a text's vector has the same bits alone, beside others, in any order and in blocks of rows", async () => {
    const { ids } = await readEmbedder(name);
    const encoder = await open(join(ENCODER_MODELS, name), "embedding", "native");
    const alone = ids.map((text) => encode(encoder, [text])[0] as Float32Array);
    const before = mx.liveArrays();
    expect(encode(encoder, ids)).toEqual(alone);
    expect(encode(encoder, ids.toReversed())).toEqual(alone.toReversed());
    expect(encode(encoder, ids, { maxRows: 37 })).toEqual(alone);
    expect(mx.liveArrays()).toBe(before);
    encoder.dispose();
  });
});

test("vectors have the same bits with one thread and with two", async () => {
  const { ids } = await readEmbedder("modernbert");
  const path = join(ENCODER_MODELS, "modernbert");
  const rows: Float32Array[][] = [];
  for (const threads of [1, 2]) {
    const encoder = await open(path, "embedding", "native", threads);
    rows.push(encode(encoder, ids.slice(0, 12)));
    encoder.dispose();
  }
  expect(rows[1]).toEqual(rows[0] as Float32Array[]);
});

describe.each(RERANKER_NAMES)("%s", (name) => {
  test.each(modesOf(name))("%s scores agree with transformers", async (kernels) => {
    const { queries } = await readReranker(name);
    const encoder = await open(join(ENCODER_MODELS, name), "reranker", kernels);
    expect(encoder.width).toBe(1);
    for (const { ids, scores } of queries) {
      const seconds = name.startsWith("bert") ? ids.map(secondPart) : [];
      const rows = encode(encoder, ids, { seconds });
      expect(
        distance(
          rows.map(([score]) => score ?? Number.NaN),
          scores,
        ),
      ).toBeLessThan(toleranceOf(name, kernels));
    }
    encoder.dispose();
  });
});

test("an XLM-RoBERTa with flash-attention's names, as jina-reranker-v2, gives the same scores", async () => {
  const source = join(ENCODER_MODELS, "xlm-roberta-reranker");
  const path = join(scratch, "flash");
  cpSync(source, path, { recursive: true });
  writeFileSync(join(path, "model.safetensors"), withFlashNames(source));
  const { queries } = await readReranker("xlm-roberta-reranker");
  const ids = queries.flatMap((query) => query.ids);
  const [plain, flash] = [
    await open(source, "reranker", "native"),
    await open(path, "reranker", "native"),
  ];
  expect(encode(flash, ids)).toEqual(encode(plain, ids));
  plain.dispose();
  flash.dispose();
});

/** The checkpoint as flash-attention's BERT names it: one matrix for query, key and value. */
function withFlashNames(folder: string): Uint8Array {
  const tensors = readTensors(folder);
  const bytesOf = ({ file, byteOffset, byteLength }: TensorInfo) =>
    readFileSync(file).subarray(byteOffset, byteOffset + byteLength);
  const renamed = new Map<string, { shape: readonly number[]; data: Uint8Array[] }>();
  for (const [name, tensor] of tensors) {
    const to = name
      .replace("embeddings.LayerNorm", "emb_ln")
      .replace("encoder.layer.", "encoder.layers.")
      .replace("attention.output.LayerNorm", "norm1")
      .replace(/(\d)\.output\.LayerNorm/, "$1.norm2")
      .replace("attention.output.dense", "mixer.out_proj")
      .replace("intermediate.dense", "mlp.fc1")
      .replace(/(\d)\.output\.dense/, "$1.mlp.fc2");
    if (to.includes("attention.self.")) {
      if (!to.includes("query")) continue;
      const parts = ["query", "key", "value"].map(
        (part) => tensors.get(name.replace("query", part)) as TensorInfo,
      );
      const [rows = 0, ...columns] = tensor.shape;
      const fused = to.replace("attention.self.query", "mixer.Wqkv");
      renamed.set(fused, { shape: [3 * rows, ...columns], data: parts.map(bytesOf) });
    } else renamed.set(to, { shape: tensor.shape, data: [bytesOf(tensor)] });
  }
  const entries = [...renamed].map(([name, { shape, data }]) => {
    const bytes = Buffer.concat(data);
    return { name, dtype: "F32", shape, byteLength: bytes.length, bytes };
  });
  const layout = layoutSafetensors(entries, {});
  const out = new Uint8Array(layout.fileBytes);
  out.set(layout.start);
  for (const { name, bytes } of entries) out.set(bytes, layout.byteOffsets.get(name));
  return out;
}

describe("bge-m3's heads", () => {
  const outputs = ["lexical", "colbert"] as const;

  /** What the heads give for each text of a batch. */
  function tokensOf(encoder: Encoder, texts: readonly (readonly number[])[]) {
    const ids = Int32Array.from(texts.flat());
    let at = 0;
    const ends = Int32Array.from(texts, (text) => {
      at += text.length;
      return at;
    });
    const parts = new Int32Array(ids.length);
    const pass = encoder.begin({ ids, ends, parts, tokenOutputs: outputs }, 10_000);
    while (!pass.advance());
    return texts.map((text, i) => {
      const begin = ends[i - 1] ?? 0;
      const part = (name: (typeof outputs)[number], width: number) =>
        pass.tokens[name]?.slice(begin * width, (begin + text.length) * width);
      return { lexical: part("lexical", 1), colbert: part("colbert", 40) };
    });
  }

  test.each(["native", "stock"] as const)(
    "%s token vectors agree with FlagEmbedding",
    async (kernels) => {
      const { ids, colbertVecs } = await readTokenGolden();
      const encoder = await open(join(ENCODER_MODELS, "bge-m3"), "embedding", kernels);
      expect(encoder.tokenWidths).toEqual({ lexical: 1, colbert: 40 });
      tokensOf(encoder, ids).forEach(({ colbert }, i) => {
        const wanted = Float32Array.from((colbertVecs[i] ?? []).flatMap((row) => [...row]));
        expect(distance(colbert?.subarray(40) ?? [], wanted)).toBeLessThan(1e-5);
      });
      encoder.dispose();
    },
  );

  test("a token has the same bits alone and beside other texts", async () => {
    const { ids } = await readTokenGolden();
    const encoder = await open(join(ENCODER_MODELS, "bge-m3"), "embedding", "native");
    const together = tokensOf(encoder, ids);
    expect(ids.flatMap((text) => tokensOf(encoder, [text]))).toEqual(together);
    encoder.dispose();
  });

  test.each([
    ["in safetensors files of their own", false],
    ["in the model's own file", true],
  ])("%s give the same", async (_, isInModel) => {
    const { ids } = await readTokenGolden();
    const path = join(scratch, `heads-${isInModel}`);
    const source = join(ENCODER_MODELS, "bge-m3");
    cpSync(source, path, { recursive: true });
    for (const head of ["sparse_linear", "colbert_linear"]) {
      const tensors = [...readTorchTensors(join(source, `${head}.pt`)).values()];
      const named = tensors.map((t) => ({ ...t, name: isInModel ? `${head}.${t.name}` : t.name }));
      const target = isInModel ? `model-${head}.safetensors` : `${head}.safetensors`;
      writeFileSync(join(path, target), safetensorsOf(named));
      rmSync(join(path, `${head}.pt`));
    }
    const [plain, moved] = [
      await open(source, "embedding", "native"),
      await open(path, "embedding", "native"),
    ];
    expect(tokensOf(moved, ids)).toEqual(tokensOf(plain, ids));
    plain.dispose();
    moved.dispose();
  });
});

/** Behind BERT's first separator. */
const secondPart = (ids: readonly number[]): number => ids.indexOf(3) + 1;

test("a pass that is given up leaves no arrays behind", async () => {
  const { ids } = await readEmbedder("bert");
  const encoder = await open(join(ENCODER_MODELS, "bert"), "embedding", "native");
  const before = mx.liveArrays();
  for (let units = 0; units < 20; units++) {
    const [first = [], second = []] = ids;
    const flat = Int32Array.from([...first, ...second]);
    const ends = Int32Array.of(first.length, flat.length);
    const pass = encoder.begin(
      { ids: flat, ends, parts: new Int32Array(flat.length), tokenOutputs: [] },
      16,
    );
    for (let i = 0; i < units; i++) pass.advance();
    pass.dispose();
    expect(mx.liveArrays()).toBe(before);
  }
  encoder.dispose();
});
