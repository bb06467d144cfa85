import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import OpenAI from "openai";
import { textCompletion } from "../../src/front/api/openai/answers.ts";
import { readPassages, readTiny } from "../helpers/golden.ts";
import { DEFAULT_MODEL, DEFAULT_MODELS, startServer, type TestServer } from "../helpers/server.ts";

type Params = OpenAI.CompletionCreateParamsNonStreaming & Record<string, unknown>;

const FIXTURES = join(import.meta.dir, "..", "fixtures", "models");
const TINY = "llama-f32";
/** A tiny model whose folder has no chat template. */
const BARE = "bare";

let server: TestServer;
let client: OpenAI;
let models: string;

beforeAll(async () => {
  models = mkdtempSync(join(tmpdir(), "omlx-models-"));
  cpSync(join(FIXTURES, TINY), join(models, TINY), { recursive: true });
  cpSync(join(FIXTURES, TINY), join(models, BARE), { recursive: true });
  const file = Bun.file(join(models, BARE, "tokenizer_config.json"));
  const { chat_template: _, ...config } = await file.json();
  await Bun.write(file, JSON.stringify(config));
  rmSync(join(models, BARE, "chat_template.jinja"), { force: true });
  server = await startServer({
    modelDirs: [DEFAULT_MODELS, models],
    args: ["--context-window", "2048"],
  });
  client = new OpenAI({ baseURL: server.baseURL, apiKey: "none", maxRetries: 0 });
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(models, { recursive: true, force: true });
});

const ask = (prompt: Params["prompt"], params: Partial<Params> = {}): Params => ({
  model: DEFAULT_MODEL,
  prompt,
  temperature: 0,
  max_tokens: 12,
  ...params,
});
const whole = (params: Params) => client.completions.create(params);
/** The same of a server that computes in float32 throughout. */
async function inFloat32<T>(use: (complete: typeof whole) => Promise<T>): Promise<T> {
  await using plain = await startServer({ modelDirs: [models], args: ["--kernels", "stock"] });
  const own = new OpenAI({ baseURL: plain.baseURL, apiKey: "none", maxRetries: 0 });
  return await use((params) => own.completions.create(params));
}
const texts = async (params: Params) => (await whole(params)).choices.map(({ text }) => text);

async function streamed(params: Params) {
  const pieces: OpenAI.Completion[] = [];
  for await (const piece of await client.completions.create({ ...params, stream: true })) {
    pieces.push(piece);
  }
  const texts: string[] = [];
  for (const { choices } of pieces) {
    for (const { index, text } of choices) texts[index] = (texts[index] ?? "") + text;
  }
  return { pieces, texts };
}

async function refusal(params: Params): Promise<{ status: number; param: unknown }> {
  try {
    await whole(params);
  } catch (error) {
    if (!(error instanceof OpenAI.APIError)) throw error;
    return { status: error.status, param: error.param };
  }
  throw new Error("it was not refused");
}

const FRANCE = "The capital of France is";
const SKY = "On a clear day the sky is";

describe("completions", () => {
  test("completions continue a text, streamed as whole", async () => {
    const params = ask(FRANCE, { stream_options: { include_usage: true } });
    const answer = await whole({ ...params, stream_options: null });
    textCompletion.parse(answer);
    expect(answer.id).toMatch(/^cmpl-[0-9a-f]{32}$/);
    expect(answer.choices[0]?.text).toContain("Paris");
    expect(answer.choices[0]?.finish_reason).toBe("length");
    expect(answer.usage).toMatchObject({ prompt_tokens: 5, completion_tokens: 12 });
    const { pieces, texts } = await streamed(params);
    for (const piece of pieces) textCompletion.parse(piece);
    expect(texts).toEqual([answer.choices[0]?.text as string]);
    expect(new Set(pieces.map(({ id }) => id)).size).toBe(1);
    expect(pieces.flatMap((piece) => piece.choices[0]?.finish_reason ?? [])).toEqual(["length"]);
    expect(pieces.at(-1)?.choices).toEqual([]);
    expect(pieces.at(-1)?.usage).toMatchObject({ prompt_tokens: 5, completion_tokens: 12 });
  });

  test("completions generate 16 tokens when nobody says how many", async () => {
    const { usage } = await whole(ask(FRANCE, { max_tokens: null, ignore_eos: true }));
    expect(usage?.completion_tokens).toBe(16);
  });

  test("completions take prompts as text, as token ids, and as lists of both", async () => {
    const [passage] = await readPassages();
    const ids = passage?.ids.slice(0, 8) as number[];
    const [plain] = await texts(ask(FRANCE));
    const [fromIds] = await texts(ask(ids));
    expect(await texts(ask([FRANCE, SKY, FRANCE]))).toEqual([
      plain as string,
      ...(await texts(ask(SKY))),
      plain as string,
    ]);
    expect(await texts(ask([ids, ids.slice(0, 4)]))).toEqual([
      fromIds as string,
      ...(await texts(ask(ids.slice(0, 4)))),
    ]);
    const { usage } = await whole(ask([ids, ids.slice(0, 4)]));
    expect(usage?.prompt_tokens).toBe(12);
  });

  test("completions stream several prompts and choices side by side, each by its index", async () => {
    const params = ask([FRANCE, SKY], { n: 3, temperature: 1, seed: 5, max_tokens: 24 });
    const { pieces, texts: streams } = await streamed(params);
    const order = pieces.flatMap(({ choices }) => choices.map(({ index }) => index));
    expect(new Set(order)).toEqual(new Set([0, 1, 2, 3, 4, 5]));
    const changes = order.filter((index, i) => i > 0 && index !== order[i - 1]).length;
    expect(changes).toBeGreaterThan(5); // one after the other it would be 5
    expect(streams).toEqual(await texts(params));
    const alone = await Promise.all(
      [FRANCE, SKY].flatMap((prompt) =>
        [5, 6, 7].map(async (seed) => (await texts({ ...params, prompt, n: 1, seed }))[0]),
      ),
    );
    expect(streams).toEqual(alone as string[]);
    expect(new Set(streams).size).toBe(6);
  });

  test("completions serve more choices than the engine takes at a time", async () => {
    const answer = await whole(ask(FRANCE, { model: TINY, n: 40, temperature: 1, max_tokens: 4 }));
    expect(answer.choices.map(({ index }) => index)).toEqual(
      Array.from({ length: 40 }, (_, i) => i),
    );
    expect(answer.usage?.prompt_tokens).toBeLessThan(40);
  });

  test("a seed gives the same tokens alone and among others", async () => {
    const params = ask(SKY, { temperature: 1.2, seed: 99, max_tokens: 32, top_p: 0.98 });
    const [alone] = await texts(params);
    const crowd = await Promise.all(
      Array.from({ length: 7 }, (_, i) => texts(i === 3 ? params : { ...params, seed: i })),
    );
    expect(crowd[3]).toEqual([alone as string]);
    expect(new Set(crowd.map(([text]) => text)).size).toBe(7);
  });

  test("echo begins with the prompt, text as it was sent and tokens as they print", async () => {
    const [plain] = await texts(ask(FRANCE));
    expect(await texts(ask(FRANCE, { echo: true }))).toEqual([FRANCE + plain]);
    expect((await streamed(ask(FRANCE, { echo: true }))).texts).toEqual([FRANCE + plain]);
    const [chat] = await texts(ask([1, 4093, 198], { echo: true, max_tokens: 1 }));
    expect(chat).toStartWith("<|im_start|>user\n");
  });

  test("control tokens in a prompt are tokens", async () => {
    const prompt = `<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n`;
    const answer = await whole(ask(prompt));
    expect(answer.choices[0]?.text).toBe("The capital of France is Paris.");
    expect(answer.choices[0]?.finish_reason).toBe("stop");
    expect(answer.usage?.prompt_tokens).toBe(16);
  });

  test("stop strings end the text before them", async () => {
    const [text] = await texts(ask(FRANCE, { stop: ["Par", "zzz"] }));
    expect(text).toBe(" ");
  });

  test("a model without a chat template continues text, and says why it cannot chat", async () => {
    expect((await whole(ask("Hello", { model: BARE }))).choices).toHaveLength(1);
    const chat = client.chat.completions.create({
      model: BARE,
      messages: [{ role: "user", content: "Hello" }],
    });
    await expect(chat.then()).rejects.toThrow("no chat template");
  });

  const refused: [string, Partial<Params>, string][] = [
    ["an empty prompt", { prompt: "" }, "prompt"],
    ["an empty prompt in a list", { prompt: ["a", ""] }, "prompt[1]"],
    ["an empty list", { prompt: [] }, "prompt"],
    ["no prompt", { prompt: null }, "prompt"],
    ["a token the model does not have", { prompt: [5, 70_000] }, "prompt[1]"],
    ["a negative token", { prompt: [[1], [-1]] }, "prompt[1][0]"],
    ["texts and tokens in one list", { prompt: ["a", 1] as never }, "prompt[0]"],
    ["a prompt longer than the window", { prompt: "word ".repeat(3000) }, "prompt"],
    ["ranking", { best_of: 3 }, "best_of"],
    ["a suffix", { suffix: "end" }, "suffix"],
    ["no tokens without echo", { max_tokens: 0 }, "max_tokens"],
    ["too many log-probabilities", { logprobs: 21 }, "logprobs"],
    ["129 choices", { n: 129 }, "n"],
    ["more choices than fit", { prompt: new Array(100).fill("a"), n: 100 }, "n"],
  ];
  for (const [name, params, param] of refused) {
    test(`completions refuse ${name}`, async () => {
      expect(await refusal(ask(FRANCE, params))).toEqual({ status: 400, param });
    });
  }
});

describe("completions, log-probabilities", () => {
  test("they are those of the reference, at every position of a text", async () => {
    const [passage] = await readPassages();
    if (!passage) throw new Error("no passage");
    for (const at of [1, 17, 200]) {
      const { choices } = await whole(
        ask(passage.ids.slice(0, at), { logprobs: 20, max_tokens: 1 }),
      );
      const found = Object.values(choices[0]?.logprobs?.top_logprobs?.[0] ?? {});
      const expected = passage.top[at - 1]?.logprobs.subarray(0, 20);
      expect(found).toHaveLength(20);
      found.sort((a, b) => b - a);
      for (const [i, value] of found.entries()) {
        expect(Math.abs(value - (expected?.[i] as number))).toBeLessThan(0.05);
      }
    }
  });

  test("they are those of the reference to four digits in float32", async () => {
    const { prompts, last } = await readTiny(TINY);
    await inFloat32(async (complete) => {
      for (const [p, { ids, greedy }] of prompts.entries()) {
        const row = last[p] as Float32Array;
        const max = Math.max(...row);
        const lse = max + Math.log(row.reduce((sum, value) => sum + Math.exp(value - max), 0));
        const answer = await complete(ask(ids, { model: TINY, logprobs: 1, max_tokens: 1 }));
        const found = answer.choices[0]?.logprobs?.token_logprobs?.[0];
        expect(found).toBeCloseTo((row[greedy[0] as number] as number) - lse, 4);
      }
    });
  });

  test("those of an echoed prompt are the reference's in float32", async () => {
    const { prompts, full, fullPrompt } = await readTiny(TINY);
    const ids = prompts[fullPrompt]?.ids ?? [];
    const params = ask(ids, { model: TINY, echo: true, logprobs: 3, max_tokens: 0 });
    const { choices, usage } = await inFloat32((complete) => complete(params));
    const { tokens = [], token_logprobs = [], top_logprobs = [] } = choices[0]?.logprobs ?? {};
    expect(usage?.completion_tokens).toBe(0);
    expect(choices[0]?.finish_reason).toBe("length");
    expect(tokens).toHaveLength(ids.length);
    expect([token_logprobs[0], top_logprobs[0]]).toEqual([null as never, null as never]);
    for (const [i, id] of ids.entries()) {
      if (i === 0) continue;
      const row = full[i - 1] as Float32Array;
      const max = Math.max(...row);
      const lse = max + Math.log(row.reduce((sum, value) => sum + Math.exp(value - max), 0));
      expect(token_logprobs[i]).toBeCloseTo((row[id] as number) - lse, 4);
      expect(Math.max(...Object.values(top_logprobs[i] ?? {}))).toBeCloseTo(max - lse, 4);
    }
  });

  test("those of an echoed prompt are the same whatever was computed before", async () => {
    const [passage] = await readPassages();
    const ids = passage?.ids.slice(0, 140) as number[];
    const params = ask(ids, { echo: true, logprobs: 1, max_tokens: 2 });
    const [first, second] = await Promise.all([whole(params), whole(params)]);
    const third = await whole(params);
    const [a, b, c] = [first, second, third].map(({ choices }) => choices[0]?.logprobs);
    expect(a?.tokens).toHaveLength(142);
    expect(b).toEqual(a as never);
    expect(c).toEqual(a as never);
    expect(third.usage?.prompt_tokens_details?.cached_tokens).toBe(0);
    let compared = 0;
    for (const [i, id] of ids.entries()) {
      const reference = passage?.top[i - 1];
      const at = reference?.ids.indexOf(id) ?? -1;
      if (!reference || at < 0) continue;
      compared++;
      const expected = reference.logprobs[at] as number;
      expect(Math.abs((a?.token_logprobs?.[i] as number) - expected)).toBeLessThan(0.1);
    }
    expect(compared).toBeGreaterThan(110);
  });

  test("places of an echoed prompt and its answer are places in the whole text", async () => {
    const prompt = "<|im_start|>user\nCafé 🙂 – 東京";
    const { choices } = await whole(ask(prompt, { echo: true, logprobs: 1, max_tokens: 6 }));
    const { tokens = [], text_offset = [] } = choices[0]?.logprobs ?? {};
    const characters = [...(choices[0]?.text ?? "")];
    expect(characters.join("")).toStartWith(prompt);
    const { pieces } = await streamed(ask(prompt, { echo: true, logprobs: 1, max_tokens: 6 }));
    const parts = pieces.flatMap((piece) => piece.choices[0]?.logprobs ?? []);
    expect(parts.flatMap((part) => part.tokens ?? [])).toEqual(tokens);
    expect(parts.flatMap((part) => part.text_offset ?? [])).toEqual(text_offset);
    for (const [i, token] of tokens.entries()) {
      if (token.startsWith("bytes:")) continue;
      const at = text_offset[i] as number;
      expect(characters.slice(at, at + [...token].length).join("")).toBe(token);
    }
  });

  test("they name every token, where it begins, and its rivals with itself", async () => {
    const params = ask("Emoji: 🙂🙃 🙂🙃 🙂", { logprobs: 2, max_tokens: 12 });
    const { choices } = await whole(params);
    const [choice] = choices;
    const { tokens = [], token_logprobs, top_logprobs, text_offset } = choice?.logprobs ?? {};
    expect(tokens).toHaveLength(12);
    expect(tokens.some((token) => /^bytes:(\\x[0-9a-f]{2})+$/.test(token))).toBe(true);
    const characters = [...(choice?.text ?? "")];
    for (const [i, token] of tokens.entries()) {
      const offset = text_offset?.[i] as number;
      if (!token.startsWith("bytes:")) {
        expect(characters.slice(offset, offset + [...token].length).join("")).toBe(token);
      }
      expect(top_logprobs?.[i]?.[token]).toBe(token_logprobs?.[i] as number);
      expect(Object.keys(top_logprobs?.[i] ?? {}).length).toBeLessThanOrEqual(3);
    }
    const { pieces } = await streamed(params);
    const parts = pieces.flatMap((piece) => piece.choices[0]?.logprobs ?? []);
    expect(parts.flatMap((part) => part.tokens ?? [])).toEqual(tokens);
    expect(parts.flatMap((part) => part.text_offset ?? [])).toEqual(text_offset as number[]);
  });
});
