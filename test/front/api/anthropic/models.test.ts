import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Anthropic, { BadRequestError, NotFoundError } from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { createApp, OpenRequests } from "#front/api";
import { loadSettings } from "#front/config";
import { createPool, type Pool } from "#front/pool";
import { modelInfo, modelPage } from "../../../../src/front/api/anthropic/answers.ts";

const MODELS = join(import.meta.dir, "..", "..", "..", "fixtures", "models");
const ENCODER = "qwen2-f32";

let folder: string;
let pool: Pool;
let client: Anthropic;
/** Ids of the models that can answer. */
let ids: string[];

/** Answers as the server does, without a socket. */
async function handle(input: string | URL | Request, init?: RequestInit): Promise<Response> {
  const app = createApp({
    pool,
    apiKey: "",
    version: "1",
    keepAliveMs: 60_000,
    responsesFolder: folder,
    mcp: null,
    bodyLimit: 1000,
    requests: new OpenRequests(),
    shutdown: new AbortController().signal,
  });
  return app.handle(new Request(input as string, init));
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "omlx-models-"));
  const { settings } = loadSettings(new Map([["basePath", folder]]), {});
  const modelKind = new Map([[ENCODER, "embedding" as const]]);
  pool = await createPool({ settings: { ...settings, modelDir: [MODELS], modelKind } });
  client = new Anthropic({ apiKey: "none", baseURL: "http://omlx", fetch: handle, maxRetries: 0 });
  ids = pool.list().flatMap(({ id }) => (id === ENCODER ? [] : [id]));
});
afterAll(async () => {
  await pool.stop();
  rmSync(folder, { recursive: true });
});

describe("the model list for Anthropic's clients", () => {
  test("models.list() pages through every model that can answer, the newest first", async () => {
    expect(ids.length).toBeGreaterThan(20); // more than one page
    const first = await client.models.list();
    modelPage.parse(
      await client.models
        .list()
        .asResponse()
        .then((response) => response.json()),
    );
    expect(first.data.length).toBe(20);
    expect([first.has_more, first.first_id]).toEqual([true, first.data[0]?.id ?? ""]);
    for (const limit of [1, 7, 1000]) {
      const seen: Anthropic.ModelInfo[] = [];
      for await (const model of client.models.list({ limit })) seen.push(model);
      expect(seen.map(({ id }) => id).sort()).toEqual([...ids].sort());
      const times = seen.map(({ created_at }) => Date.parse(created_at));
      expect(times).toEqual(times.toSorted((a, b) => b - a));
    }
  });

  test("models.list() goes back from before_id to the first model", async () => {
    const all = (await client.models.list({ limit: 1000 })).data.map(({ id }) => id);
    const back: string[] = [];
    for await (const page of (
      await client.models.list({ limit: 4, before_id: all[10] as string })
    ).iterPages()) {
      back.unshift(...page.data.map(({ id }) => id));
    }
    expect(back).toEqual(all.slice(0, 10));
    const behind = await client.models.list({ after_id: all.at(-1) as string });
    expect([behind.data, behind.has_more, behind.last_id]).toEqual([[], false, null]);
  });

  test("models.retrieve() gives one of them, by any of its names", async () => {
    const model = await client.models.retrieve("OMLX/llama-F32");
    modelInfo.parse(model);
    expect(model).toMatchObject({ type: "model", id: "llama-f32", display_name: "llama-f32" });
    expect(model.max_input_tokens).toBeGreaterThan(0);
    expect((await client.models.list({ limit: 1000 })).data).toContainEqual(model);
  });

  test("what cannot answer is not found, and a wrong page is refused, in Anthropic's shape", async () => {
    for (const id of ["nope", ENCODER]) {
      const error = await client.models.retrieve(id).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(NotFoundError);
      expect((error as NotFoundError).error).toMatchObject({
        type: "error",
        error: { type: "not_found_error" },
      });
    }
    for (const query of [
      { limit: 0 },
      { limit: 1001 },
      { after_id: "nope" },
      { after_id: "llama-f32", before_id: "llama-f16" },
    ]) {
      const error = await client.models.list(query).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(BadRequestError);
    }
  });

  test("OpenAI's clients get all models, in OpenAI's shape, as before", async () => {
    const openai = new OpenAI({ apiKey: "none", baseURL: "http://omlx/v1", fetch: handle });
    const { data } = await openai.models.list();
    expect(data.map(({ id }) => id)).toEqual(pool.list().map(({ id }) => id));
    expect((await openai.models.retrieve(ENCODER)).object).toBe("model");
  });
});
