import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ChatRequest, type ModelEntry, OmlxError } from "#core/contract";
import { openText, setWorkerUrl, type TextModel } from "#front/text";
import { openText as openWithLimits } from "../../../src/front/text/open-text.ts";

const FIXTURE = join(import.meta.dir, "../../fixtures/models/llama-f32");
const WORKER = new URL("../../../src/front/text/worker.ts", import.meta.url);
const root = mkdtempSync(join(tmpdir(), "omlx-open-text-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** Loops for so long that only ending the Worker ends it. */
const HANG =
  "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}";

let folders = 0;
/** The tiny model with other files. */
function modelWith(files: Record<string, string>): ModelEntry {
  const path = join(root, String(folders++));
  cpSync(FIXTURE, path, { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(join(path, name), text);
  return {
    id: "tiny",
    path,
    kind: "llm",
    modelType: "llama",
    contextWindow: 512,
    weightBytes: 0,
    created: 0,
  };
}

function requestOf(text: string, more: Partial<ChatRequest> = {}): ChatRequest {
  return {
    model: "tiny",
    messages: [{ role: "user", parts: [{ kind: "text", text }] }],
    tools: [],
    templateKwargs: {},
    sampling: {},
    maxTokens: undefined,
    minTokens: 0,
    ignoreEos: false,
    stop: [],
    topLogprobs: null,
    lane: "interactive",
    toolChoice: { kind: "auto" },
    parallelToolCalls: true,
    format: null,
    thinking: {},
    ...more,
  };
}

async function errorOf(promise: Promise<unknown>): Promise<OmlxError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof OmlxError) return error;
  throw error ?? new Error("nothing was thrown");
}

const WINDOW = { contextWindow: 512 };

describe("openText()", () => {
  let text: TextModel;
  beforeAll(async () => {
    text = await openText(modelWith({}));
  });
  afterAll(() => text.dispose());

  test("encodes a conversation and fills in what the request leaves out", async () => {
    const prompt = await text.encode(requestOf("Hello"), WINDOW);
    expect(prompt.promptIds.length).toBeGreaterThan(5);
    expect(prompt.maxTokens).toBe(512 - prompt.promptIds.length);
    expect(prompt.stopIds).toEqual([...text.eosIds]);
    expect(text.eosIds.length).toBeGreaterThan(0);
    expect(prompt.promptIds.every((id) => id < text.vocabSize)).toBe(true);
    expect(prompt.sampling).toMatchObject({ topK: 0, seed: null });
  });

  test("counts the tokens that are used", async () => {
    const request = requestOf("How many tokens are these?");
    const prompt = await text.encode(request, WINDOW);
    expect(await text.countTokens(request)).toBe(prompt.promptIds.length);
  });

  test("clamps the answer to the window", async () => {
    const request = (maxTokens: number) => requestOf("Hi", { maxTokens });
    const room = 512 - (await text.countTokens(requestOf("Hi")));
    expect((await text.encode(request(1e9), WINDOW)).maxTokens).toBe(room);
    expect((await text.encode(request(3), WINDOW)).maxTokens).toBe(3);
  });

  test("refuses a prompt that leaves no room, with both numbers", async () => {
    const request = requestOf("word ".repeat(50));
    const numTokens = await text.countTokens(request);
    const tooSmall = await errorOf(text.encode(request, { contextWindow: 20 }));
    expect(tooSmall.toData()).toEqual({
      code: "context_length",
      message: `prompt is too long: ${numTokens} tokens > 20 maximum`,
      param: "messages",
      data: { numTokens, maxTokens: 20 },
    });
    const full = await errorOf(text.encode(request, { contextWindow: numTokens }));
    expect(full.code).toBe("context_length");
    const fits = await text.encode(request, { contextWindow: numTokens + 1 });
    expect(fits.maxTokens).toBe(1);
  });

  test("stops at nothing when the end of a text is ignored", async () => {
    const request = requestOf("Hi", { ignoreEos: true });
    expect((await text.encode(request, WINDOW)).stopIds).toEqual([]);
  });

  test("stops at the id of a stop string that is a control token", async () => {
    const request = requestOf("Hi", { stop: ["<|im_start|>", "x"], ignoreEos: true });
    const prompt = await text.encode(request, WINDOW);
    expect(prompt.stopIds).toHaveLength(1);
    const reader = text.reader(request, prompt);
    const usage = { promptTokens: 1, cachedTokens: 0, completionTokens: 0 };
    const [stopId] = prompt.stopIds;
    const events = [
      ...reader.read({ kind: "finish", reason: "stop", stopId, usage }),
      ...reader.end(),
    ];
    expect(events.at(-1)).toMatchObject({ kind: "end", reason: "stop", stop: "<|im_start|>" });
  });

  test("refuses stop strings that are too long together", async () => {
    const error = await errorOf(
      text.encode(requestOf("Hi", { stop: ["a".repeat(70_000)] }), WINDOW),
    );
    expect([error.code, error.param]).toEqual(["invalid_request", "stop"]);
  });

  test("prefers the client's sampling to the model's", async () => {
    const generation = JSON.stringify({ temperature: 0.6, top_p: 0.9, top_k: 20 });
    const other = await openText(modelWith({ "generation_config.json": generation }));
    const prompt = await other.encode(
      requestOf("Hi", { sampling: { topP: 0.5, seed: 7 } }),
      WINDOW,
    );
    expect(prompt.sampling).toMatchObject({ temperature: 0.6, topP: 0.5, topK: 20, seed: 7 });
    other.dispose();
  });

  test("reads answers back to the text they spell", async () => {
    const request = requestOf("The capital is Zürich 🙂");
    const prompt = await text.encode(request, WINDOW);
    const reader = text.reader(request, prompt);
    const read = prompt.promptIds.flatMap((id) => [...reader.read({ kind: "tokens", ids: [id] })]);
    const all = [...read, ...reader.end()].map((e) => (e.kind === "text" ? e.text : "")).join("");
    expect(all).toContain("The capital is Zürich 🙂");
    expect(all).not.toContain("<|im_start|>");
  });

  test("answers many requests at once, each its own", async () => {
    const texts = Array.from({ length: 50 }, (_, i) => `request ${"x".repeat(i)}`);
    const prompts = await Promise.all(texts.map((t) => text.encode(requestOf(t), WINDOW)));
    const again = await Promise.all(texts.map((t) => text.encode(requestOf(t), WINDOW)));
    expect(again.map((p) => p.promptIds)).toEqual(prompts.map((p) => p.promptIds));
    expect(new Set(prompts.map((p) => p.id)).size).toBe(50);
  });
});

describe("openText() with a template that never ends", () => {
  const source = `{% if messages[0].content == 'hang' %}${HANG}{% endif %}{{ messages[0].content }}`;
  const limits = { timeLimitMs: 400, loadLimitMs: 30_000 };

  test("refuses the request after its time, and answers the ones behind it", async () => {
    const text = await openWithLimits(modelWith({ "chat_template.jinja": source }), limits);
    const begun = performance.now();
    const [hanging, next, other] = await Promise.allSettled([
      text.encode(requestOf("hang"), WINDOW),
      text.encode(requestOf("go on"), WINDOW),
      text.countTokens(requestOf("go on")),
    ]);
    const elapsedMs = performance.now() - begun;
    expect(hanging.status).toBe("rejected");
    const error = hanging.status === "rejected" ? hanging.reason : undefined;
    expect(error).toBeInstanceOf(OmlxError);
    expect(error.toData()).toMatchObject({ code: "invalid_request", param: "messages" });
    expect(error.message).toBe("Cannot render the messages: it took more than 0.4 s");
    expect(elapsedMs).toBeGreaterThanOrEqual(400);
    if (next.status === "rejected") throw next.reason;
    expect(other).toEqual({ status: "fulfilled", value: next.value.promptIds.length });
    text.dispose();
  });

  test("leaves the event loop free meanwhile", async () => {
    const text = await openWithLimits(modelWith({ "chat_template.jinja": source }), limits);
    const refused = errorOf(text.encode(requestOf("hang"), WINDOW));
    let turns = 0;
    const timer = setInterval(() => turns++, 5);
    await refused;
    clearInterval(timer);
    expect(turns).toBeGreaterThan(10);
    text.dispose();
  });

  test("ends open requests when the model is unloaded", async () => {
    const text = await openWithLimits(modelWith({ "chat_template.jinja": source }), {
      ...limits,
      timeLimitMs: 30_000,
    });
    const open = [
      errorOf(text.encode(requestOf("hang"), WINDOW)),
      errorOf(text.countTokens(requestOf("a"))),
    ];
    text.dispose();
    expect((await Promise.all(open)).map((error) => error.code)).toEqual([
      "cancelled",
      "cancelled",
    ]);
    expect((await errorOf(text.countTokens(requestOf("a")))).code).toBe("cancelled");
  });
});

describe("openText() of a broken folder", () => {
  const broken: readonly [what: string, files: Record<string, string>, message: RegExp][] = [
    [
      "tokenizer.json is cut off",
      { "tokenizer.json": '{"model": {' },
      /tokenizer\.json: it is not valid/,
    ],
    ["tokenizer.json has no model", { "tokenizer.json": "{}" }, /Cannot read tokenizer\.json/],
    [
      "tokenizer_config.json is a list",
      { "tokenizer_config.json": "[]" },
      /expected a JSON object/,
    ],
    ["config.json is empty", { "config.json": "" }, /config\.json: it is not valid/],
  ];
  for (const [what, files, message] of broken) {
    test(`tells that ${what}`, async () => {
      const error = await errorOf(openText(modelWith(files)));
      expect(error.code).toBe("model_load");
      expect(error.message).toMatch(message);
    });
  }

  test("tells that the folder is gone", async () => {
    const error = await errorOf(openText({ ...modelWith({}), path: join(root, "none") }));
    expect(error.code).toBe("model_load");
  });

  test("fails when the Worker's entry cannot be found", async () => {
    setWorkerUrl(new URL("./no-such-worker.ts", import.meta.url));
    try {
      expect((await errorOf(openText(modelWith({})))).message).toMatch(/text Worker died/);
    } finally {
      setWorkerUrl(WORKER);
    }
  });
});
