/** GGUF files as they lie in a model folder, through the running server. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import OpenAI from "openai";
import { startServer, type TestServer } from "../helpers/server.ts";

const GGUFS = join(import.meta.dir, "..", "fixtures", "gguf");

let models: string;
let server: TestServer;
let openai: OpenAI;

beforeAll(async () => {
  models = mkdtempSync(join(tmpdir(), "omlx-gguf-e2e-"));
  for (const name of ["llama-Q8_0", "llama-Q6_K", "llama-spm", "qwen2-Q8_0"]) {
    cpSync(join(GGUFS, `${name}.gguf`), join(models, `${name}.gguf`));
  }
  for (const part of [1, 2, 3]) {
    const name = `llama-parts-0000${part}-of-00003.gguf`;
    cpSync(join(GGUFS, name), join(models, "parts", name));
  }
  writeFileSync(join(models, "broken.gguf"), "GGUF");
  server = await startServer({ modelDirs: [models] });
  openai = new OpenAI({ baseURL: server.baseURL, apiKey: "none", maxRetries: 0 });
});
afterAll(async () => {
  await server.stop();
  rmSync(models, { recursive: true });
});

const converted = () => readdirSync(join(server.home, ".omlx", "cache", "gguf")).sort();

async function ask(model: string): Promise<string> {
  const answer = await openai.chat.completions.create({
    model,
    messages: [{ role: "user", content: "Hello there" }],
    max_tokens: 8,
    temperature: 0,
  });
  expect(answer.usage?.completion_tokens).toBe(8);
  return answer.choices[0]?.message.content ?? "";
}

describe("GGUF files", () => {
  test("are listed with what is wrong with them", async () => {
    const list = (await openai.models.list()).data as unknown as {
      id: string;
      max_model_len: number;
      problem?: string;
    }[];
    expect(list.map(({ id }) => id)).toEqual([
      "broken",
      "llama-Q6_K",
      "llama-Q8_0",
      "llama-spm",
      "qwen2-Q8_0",
      "parts",
      "SmolLM2-135M-Instruct",
    ]);
    expect(list[0]?.problem).toContain("cut off");
    expect(list[1]).toMatchObject({ max_model_len: 2048 });
  });

  test("answer, converted once at their first request", async () => {
    const first = await ask("llama-Q8_0");
    const kept = converted().filter((name) => name.startsWith("llama-Q8_0-"));
    expect(kept).toHaveLength(2); // the folder, and what it was made of
    expect(server.output()).toMatch(/model is converted .*llama-Q8_0.*without loss/);
    expect(await ask("llama-Q8_0")).toBe(first);
    for (const model of ["parts", "llama-spm", "qwen2-Q8_0"]) await ask(model);
    await ask("llama-Q6_K");
    expect(server.output()).toMatch(/8 matrices of type Q6_K requantized to 8 bits/);
  });

  test("are converted again when they change, and the old copy goes", async () => {
    const before = converted().filter((name) => name.startsWith("llama-Q8_0-"));
    const old = await ask("llama-Q8_0");
    cpSync(join(GGUFS, "llama-Q4_1.gguf"), join(models, "llama-Q8_0.gguf"));
    let answer = old;
    // the folder is looked at again a second after it was looked at last
    while (answer === old) answer = await ask("llama-Q8_0");
    const after = converted().filter((name) => name.startsWith("llama-Q8_0-"));
    expect(after).toHaveLength(2);
    expect(after).not.toEqual(before);
    expect(await ask("llama-Q8_0")).toBe(answer);
  });

  test("a file that cannot be read is refused with its reason", async () => {
    const error = await ask("broken").catch((e: unknown) => e);
    expect(error).toBeInstanceOf(OpenAI.APIError);
    expect((error as Error).message).toContain("broken.gguf: its header is cut off");
  });
});
