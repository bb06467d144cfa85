/** The same weights under the names and the configs of every dialect: the same logits, to the bit. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { layoutSafetensors, readSafetensorsHeader } from "#core/formats";
import { ForwardSession } from "../helpers/forward.ts";

const MODELS = join(import.meta.dir, "..", "fixtures", "models");
const IDS = [9, 81, 200, 17, 300, 4];
const root = mkdtempSync(join(tmpdir(), "omlx-dialects-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

type Config = Record<string, unknown>;
type Rename = (name: string) => string;

const DTYPES: Readonly<Record<string, string>> = { float32: "F32", uint32: "U32", float16: "F16" };

/** A copy of a model with other tensor names and another config. */
function copyOf(model: string, name: string, rename: Rename, edit: (config: Config) => Config) {
  const folder = join(root, name);
  cpSync(join(MODELS, model), folder, { recursive: true });
  const file = join(folder, "model.safetensors");
  const bytes = readFileSync(file);
  const { tensors } = readSafetensorsHeader(file);
  const layout = layoutSafetensors(
    tensors.map((t) => ({
      name: rename(t.name),
      dtype: DTYPES[t.dtype] ?? "",
      shape: t.shape,
      byteLength: t.byteLength,
    })),
    { format: "pt" },
  );
  const out = new Uint8Array(layout.fileBytes);
  out.set(layout.start);
  for (const t of tensors) {
    const source = bytes.subarray(t.byteOffset, t.byteOffset + t.byteLength);
    out.set(source, layout.byteOffsets.get(rename(t.name)));
  }
  writeFileSync(file, out);
  const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as Config;
  writeFileSync(join(folder, "config.json"), JSON.stringify(edit(config)));
  return folder;
}

async function logitsOf(folder: string): Promise<number[][]> {
  const session = await ForwardSession.open(folder, "native");
  try {
    return session.run(session.start(), IDS).map((row) => [...row]);
  } finally {
    session.dispose();
  }
}

const same = <T>(value: T): T => value;
const without = (config: Config, ...keys: string[]): Config =>
  Object.fromEntries(Object.entries(config).filter(([key]) => !keys.includes(key)));

/** transformers since 5: rope_parameters and dtype instead of rope_theta, rope_scaling and torch_dtype. */
const newDialect = (config: Config): Config => ({
  ...without(config, "rope_theta", "rope_scaling", "torch_dtype"),
  dtype: config["torch_dtype"],
  rope_parameters: {
    rope_theta: config["rope_theta"],
    rope_type: "default",
    ...(config["rope_scaling"] as Config | undefined),
  },
});

/** A wrapper around a text model. */
const wrapped = (config: Config): Config => ({
  model_type: "wrapper",
  architectures: ["WrapperForConditionalGeneration"],
  eos_token_id: config["eos_token_id"],
  quantization: config["quantization"],
  tie_word_embeddings: config["tie_word_embeddings"],
  text_config: without(config, "eos_token_id", "quantization", "quantization_config"),
});

const CASES: readonly [model: string, what: string, Rename, (config: Config) => Config][] = [
  ["llama-f32", "the new config", same, newDialect],
  ["llama3-f32", "the new config with scaled positions", same, newDialect],
  ["llama-f32", "a wrapper's names", (name) => `language_model.${name}`, wrapped],
  [
    "llama-f32",
    "a wrapper's newer names",
    (name) => name.replace(/^model\./, "model.language_model."),
    wrapped,
  ],
  ["llama-tied-4bit", "a wrapper's names, quantized", (name) => `language_model.${name}`, wrapped],
  ["qwen2-f32", "the base class's names", (name) => name.replace(/^model\./, ""), same],
  [
    "qwen3-f32",
    "the base class's names, new config",
    (name) => name.replace(/^model\./, ""),
    newDialect,
  ],
  [
    "llama-f32",
    "the base class's names beside a head",
    (name) => name.replace(/^model\./, ""),
    same,
  ],
];

describe("dialects", () => {
  const expected = new Map<string, number[][]>();
  beforeAll(async () => {
    for (const [model] of CASES) {
      if (!expected.has(model)) expected.set(model, await logitsOf(join(MODELS, model)));
    }
  });

  for (const [i, [model, what, rename, edit]] of CASES.entries()) {
    test(`${model} with ${what}`, async () => {
      const folder = copyOf(model, `case-${i}`, rename, edit);
      expect(await logitsOf(folder)).toEqual(expected.get(model) ?? []);
    });
  }

  test("a tied head that is stored all the same is left aside", async () => {
    // the head's tensor under the embedding's name would be wrong: it holds other values
    const folder = copyOf("llama-f32", "tied", same, (c) => ({ ...c, tie_word_embeddings: true }));
    expect(await logitsOf(folder)).not.toEqual(expected.get("llama-f32") ?? []);
  });

  test("another library's quantization is refused by its name", async () => {
    const folder = copyOf("llama-f32", "awq", same, (config) => ({
      ...config,
      quantization_config: { quant_method: "awq" },
    }));
    const error = await logitsOf(folder).catch((e: unknown) => e);
    expect((error as Error).message).toContain('quantized by "awq", which is not supported');
  });
});
