/** Every encoder family against sentence-transformers and transformers in float32, by both forms of the kernels. */
import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { KernelMode } from "#core/contract";
import * as mx from "#device/mlx";
import type { Encoder } from "#device/zoo";
import { loadEncoder } from "../../../src/device/runner/load.ts";
import {
  distance,
  EMBEDDER_NAMES,
  ENCODER_MODELS,
  RERANKER_NAMES,
  readEmbedder,
  readReranker,
} from "../../helpers/encoders.ts";

const scratch = mkdtempSync(join(tmpdir(), "omlx-encoders-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

async function open(
  path: string,
  purpose: "embedding" | "reranker",
  kernels: KernelMode,
): Promise<Encoder> {
  const { encoder, info } = await loadEncoder(
    {
      modelPath: path,
      purpose,
      kernels,
      threads: 0,
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
  const pass = encoder.begin({ ids, ends, parts }, maxRows);
  while (!pass.advance());
  const { rows } = pass;
  return texts.map((_, i) => rows.slice(i * encoder.width, (i + 1) * encoder.width));
}

/** The fixture with another 1_Pooling/config.json. */
function withPooling(name: string, pooling: object, index: number): string {
  const path = join(scratch, `${name}-${index}`);
  cpSync(join(ENCODER_MODELS, name), path, { recursive: true });
  writeFileSync(join(path, "1_Pooling", "config.json"), JSON.stringify(pooling));
  return path;
}

describe.each(EMBEDDER_NAMES)("%s", (name) => {
  test.each(["native", "stock"] as const)(
    "%s vectors agree with sentence-transformers",
    async (kernels) => {
      const golden = await readEmbedder(name);
      for (const [index, { pooling, width, vectors, ids }] of golden.cases.entries()) {
        const encoder = await open(withPooling(name, pooling, index), "embedding", kernels);
        expect(encoder.width).toBe(width);
        const rows = encode(encoder, ids);
        const scale = Math.max(1, ...vectors.flatMap((v) => Math.hypot(...v)));
        const worst = Math.max(...rows.map((r, i) => distance(r, vectors[i] ?? [])));
        expect(worst / scale).toBeLessThanOrEqual(1e-5);
        encoder.dispose();
      }
    },
  );

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

describe.each(RERANKER_NAMES)("%s", (name) => {
  test.each(["native", "stock"] as const)("%s scores agree with transformers", async (kernels) => {
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
      ).toBeLessThan(1e-5);
    }
    encoder.dispose();
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
    const pass = encoder.begin({ ids: flat, ends, parts: new Int32Array(flat.length) }, 16);
    for (let i = 0; i < units; i++) pass.advance();
    pass.dispose();
    expect(mx.liveArrays()).toBe(before);
  }
  encoder.dispose();
});
