import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  appendFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Catalog } from "../../../src/front/pool/discover.ts";

const GGUFS = join(import.meta.dir, "../../fixtures/gguf");
const FIXTURE = join(import.meta.dir, "../../fixtures/models/llama-f32");

let root = "";
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "omlx-models-"));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

/** A copy of a small model. */
function addModel(id: string, below = root): string {
  const path = join(below, id);
  cpSync(FIXTURE, path, { recursive: true });
  return path;
}

function addGguf(name: string, to: string): void {
  cpSync(join(GGUFS, `${name}.gguf`), join(root, to), { recursive: true });
}

function editConfig(path: string, edit: (config: Record<string, unknown>) => void): void {
  const file = join(path, "config.json");
  const config = JSON.parse(readFileSync(file, "utf8"));
  edit(config);
  writeFileSync(file, JSON.stringify(config));
}

async function scan(roots: string[] = [root], contextWindow = 0) {
  const catalog = new Catalog(roots, contextWindow);
  await catalog.refresh();
  return catalog;
}

const idsOf = (catalog: Catalog) => catalog.entries.map((entry) => entry.id);

/** The problem of the only entry. */
async function problemOf(): Promise<string> {
  const { entries } = await scan();
  expect(entries).toHaveLength(1);
  return entries[0]?.problem ?? "";
}

describe("Catalog.refresh()", () => {
  test("finds models one and two levels deep, in order", async () => {
    addModel("b");
    addModel("group/a");
    addModel("a");
    addModel("deep/er/model");
    expect(idsOf(await scan())).toEqual(["a", "b", "group/a"]);
  });

  test("says what a model is", async () => {
    const path = addModel("small");
    const [entry] = (await scan()).entries;
    const weights = readFileSync(join(path, "model.safetensors"));
    expect(entry).toMatchObject({
      id: "small",
      path,
      kind: "llm",
      modelType: "llama",
      contextWindow: 2048,
      weightBytes: weights.byteLength,
    });
    expect(entry?.problem).toBeUndefined();
    expect(Math.abs((entry?.created ?? 0) * 1000 - Date.now())).toBeLessThan(60_000);
  });

  test("bounds the context window by the setting", async () => {
    addModel("small");
    expect((await scan([root], 100)).entries[0]?.contextWindow).toBe(100);
    expect((await scan([root], 1e6)).entries[0]?.contextWindow).toBe(2048);
  });

  test("takes a folder that is a model itself", async () => {
    const path = addModel("alone");
    expect(idsOf(await scan([path]))).toEqual(["alone"]);
  });

  test("lets the first of two folders win, and bears missing ones", async () => {
    const first = addModel("m", join(root, "one"));
    addModel("m", join(root, "two"));
    const roots = ["missing", "one", "two"].map((name) => join(root, name));
    const { entries } = await scan(roots);
    expect(entries.map((entry) => entry.path)).toEqual([first]);
  });

  test("does not list folders without weights, unfinished downloads, adapters and hidden folders", async () => {
    rmSync(join(addModel("empty"), "model.safetensors"));
    writeFileSync(join(addModel("half"), "model-00002.safetensors.part"), "");
    writeFileSync(join(addModel("lora"), "adapter_config.json"), "{}");
    addModel(".hidden");
    mkdirSync(join(root, "nothing"));
    writeFileSync(join(root, "file.safetensors"), "");
    expect(idsOf(await scan())).toEqual([]);
  });

  test("lists a broken config.json with its reason", async () => {
    const path = addModel("broken");
    writeFileSync(join(path, "config.json"), "{");
    expect(await problemOf()).toContain("config.json");
    writeFileSync(join(path, "config.json"), "[]");
    expect(await problemOf()).toContain("config.json");
    writeFileSync(join(path, "config.json"), "{}");
    expect(await problemOf()).toContain("model_type");
  });

  test("lists an unknown model_type with what is supported", async () => {
    editConfig(addModel("alien"), (config) => {
      config["model_type"] = "constructor";
    });
    const problem = await problemOf();
    expect(problem).toContain('"constructor"');
    expect(problem).toContain("llama");
  });

  test("lists a truncated weight file as a problem until it is whole", async () => {
    const file = join(addModel("cut"), "model.safetensors");
    const whole = readFileSync(file);
    truncateSync(file, whole.byteLength - 1);
    const catalog = await scan();
    expect(catalog.entries[0]?.problem).toContain("model.safetensors");
    appendFileSync(file, whole.subarray(-1));
    await catalog.refresh();
    expect(catalog.entries[0]?.problem).toBeUndefined();
  });

  test("lists an index that leads out of the folder, and one whose shard is missing", async () => {
    const path = addModel("indexed");
    const write = (file: string) =>
      writeFileSync(
        join(path, "model.safetensors.index.json"),
        JSON.stringify({ weight_map: { "lm_head.weight": file } }),
      );
    write("../other/model.safetensors");
    expect(await problemOf()).toContain("../other/model.safetensors");
    write("model-00002-of-00002.safetensors");
    expect(await problemOf()).toContain("model-00002-of-00002.safetensors is missing");
  });

  test("lists a missing tokenizer as a problem", async () => {
    const path = addModel("mute");
    rmSync(join(path, "tokenizer.json"));
    expect(await problemOf()).toContain("tokenizer.json");
  });

  test("says what is wrong with weights of other libraries", async () => {
    const path = addModel("packed");
    editConfig(path, (config) => {
      config["quantization_config"] = { quant_method: "gptq", bits: 4 };
    });
    expect(await problemOf()).toContain('quantized by "gptq", which is not supported');
    rmSync(path, { recursive: true });
    const old = addModel("old");
    renameSync(join(old, "model.safetensors"), join(old, "pytorch_model-00001-of-00001.bin"));
    expect(await problemOf()).toContain("its weights are Python pickles");
  });

  test("finds GGUF files: alone in a folder by its name, else by their own", async () => {
    addGguf("llama-Q8_0", "direct.gguf");
    addGguf("llama-Q4_0", "alone/some-file.gguf");
    addGguf("llama-F32", "alone/mmproj-F16.gguf");
    addGguf("llama-Q4_0", "several/m-Q4_0.gguf");
    addGguf("llama-Q8_0", "several/m-Q8_0.gguf");
    addGguf("qwen3-Q4_0", "group/inner/x.gguf");
    for (const part of [1, 2, 3]) {
      const name = `llama-parts-0000${part}-of-00003`;
      addGguf(name, `split/${name}.gguf`);
    }
    const catalog = await scan();
    expect(catalog.entries.map((e) => [e.id, e.modelType, e.problem])).toEqual([
      ["direct", "llama", undefined],
      ["alone", "llama", undefined],
      ["group/inner", "qwen3", undefined],
      ["several/m-Q4_0", "llama", undefined],
      ["several/m-Q8_0", "llama", undefined],
      ["split", "llama", undefined],
    ]);
    const [direct] = catalog.entries;
    expect(direct).toMatchObject({ path: join(root, "direct.gguf"), contextWindow: 2048 });
    expect(direct?.weightBytes).toBeGreaterThan(100_000);
    await catalog.refresh();
    expect(catalog.entries[0]).toBe(direct as NonNullable<typeof direct>);

    rmSync(join(root, "several/m-Q8_0.gguf"));
    rmSync(join(root, "split/llama-parts-00002-of-00003.gguf"));
    await catalog.refresh();
    expect(idsOf(catalog)).toEqual(["direct", "alone", "group/inner", "several", "split"]);
    expect(catalog.entries[4]?.problem).toContain("llama-parts-00002-of-00003.gguf: it is missing");
  });

  test("says what is wrong with a GGUF file", async () => {
    const path = join(root, "m.gguf");
    writeFileSync(path, "GGUF");
    expect(await problemOf()).toContain("m.gguf: its header is cut off");
    const bytes = readFileSync(join(GGUFS, "llama-Q8_0.gguf"));
    const withText = (from: string, to: string) =>
      writeFileSync(path, Buffer.from(bytes.toString("latin1").replace(from, to), "latin1"));
    withText(
      "architecture\x08\0\0\0\x05\0\0\0\0\0\0\0llama",
      "architecture\x08\0\0\0\x05\0\0\0\0\0\0\0mamba",
    );
    expect(await problemOf()).toContain('architecture "mamba" is not known');
    writeFileSync(path, bytes.subarray(0, bytes.length - 1000));
    expect(await problemOf()).toContain("it is cut off, load it again");
    writeFileSync(path, bytes);
    expect(await problemOf()).toBe("");
  });

  test("tells rerankers, embedding and image models from language models", async () => {
    writeFileSync(join(addModel("a-sentence"), "modules.json"), "[]");
    addModel("b-reranker");
    editConfig(addModel("c-classifier"), (config) => {
      config["architectures"] = ["LlamaForSequenceClassification"];
    });
    editConfig(addModel("d-vision"), (config) => {
      config["vision_config"] = {};
    });
    const { entries } = await scan();
    expect(entries.map((entry) => entry.kind)).toEqual([
      "embedding",
      "reranker",
      "reranker",
      "vlm",
    ]);
    const [sentence, ...others] = entries;
    expect(sentence?.problem).toBeUndefined();
    for (const entry of others) expect(entry.problem).toContain("not supported");
  });

  test("says of encoders with code of their own why they cannot be served", async () => {
    const add = (name: string, over: object) =>
      editConfig(addModel(name), (config) => Object.assign(config, over));
    const alibi = { model_type: "bert", position_embedding_type: "alibi" };
    add("a", { ...alibi, architectures: ["JinaBertForMaskedLM"] });
    add("b", { ...alibi, architectures: ["BertModel"], position_embedding_type: "absolute" });
    add("c", { model_type: "qwen3", architectures: ["JinaForRanking"] });
    const { entries } = await scan();
    expect(entries.map(({ kind, problem }) => [kind, problem])).toEqual([
      ["embedding", 'position_embedding_type "alibi" is not supported'],
      ["embedding", undefined],
      ["reranker", 'architecture "JinaForRanking" is not supported'],
    ]);
  });

  test("ends on links in a circle and follows links to models", async () => {
    const outside = mkdtempSync(join(tmpdir(), "omlx-outside-"));
    try {
      const real = addModel("real", outside);
      symlinkSync(real, join(root, "linked"));
      symlinkSync(root, join(root, "loop"));
      symlinkSync("..", join(root, "up"));
      symlinkSync("self", join(root, "self"));
      symlinkSync("/nowhere", join(root, "dangling"));
      mkdirSync(join(root, "group"));
      symlinkSync(join(root, "group"), join(root, "group", "again"));
      expect(idsOf(await scan())).toEqual(["linked"]);
    } finally {
      rmSync(outside, { recursive: true });
    }
  });

  test("sees folders that come, go and change, and keeps the entries of those that do not", async () => {
    const path = addModel("a");
    const catalog = await scan();
    const [before] = catalog.entries;
    addModel("group/b");
    await catalog.refresh();
    expect(idsOf(catalog)).toEqual(["a", "group/b"]);
    expect(catalog.entries[0] === before).toBe(true);
    editConfig(path, (config) => {
      config["max_position_embeddings"] = 77;
    });
    await catalog.refresh();
    expect(catalog.entries[0]?.contextWindow).toBe(77);
    renameSync(path, join(root, "c"));
    await catalog.refresh();
    expect(idsOf(catalog)).toEqual(["c", "group/b"]);
    rmSync(root, { recursive: true });
    await catalog.refresh();
    expect(catalog.entries).toEqual([]);
  });

  test("runs once for callers at the same time", async () => {
    const catalog = new Catalog([root], 0);
    expect(catalog.refresh()).toBe(catalog.refresh());
    await catalog.refresh();
  });
});
