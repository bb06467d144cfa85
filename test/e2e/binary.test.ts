import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { copyFileSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import OpenAI from "openai";
import { BINARY, DEFAULT_MODEL, startServer } from "../helpers/server.ts";

let folder: string;
let program: string;

/** The binary alone in a folder; it gets no PATH and an empty home. */
beforeAll(() => {
  if (!existsSync(BINARY)) throw new Error("dist/omlx is missing: npm run build makes it");
  folder = mkdtempSync(join(tmpdir(), "omlx-alone-"));
  program = join(folder, "omlx");
  copyFileSync(BINARY, program);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("the binary alone", () => {
  test("the binary alone serves its own model to the openai SDK", async () => {
    await using server = await startServer({ program, args: ["--host", "0.0.0.0"] });
    const { port } = new URL(server.origin);
    const client = new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, apiKey: "none" });
    expect((await client.models.list()).data.map(({ id }) => id)).toEqual([DEFAULT_MODEL]);
    const params = {
      model: DEFAULT_MODEL,
      messages: [{ role: "user" as const, content: "What is the capital of France?" }],
      temperature: 0,
    };
    const whole = await client.chat.completions.create(params);
    expect(whole.choices[0]?.message.content).toBe("The capital of France is Paris.");
    let streamed = "";
    for await (const chunk of await client.chat.completions.create({ ...params, stream: true })) {
      streamed += chunk.choices[0]?.delta.content ?? "";
    }
    expect(streamed).toBe("The capital of France is Paris.");
    expect(readdirSync(folder)).toEqual(["omlx"]);
  });

  test("the binary alone ends with 0 and starts again from what it unpacked", async () => {
    const home = mkdtempSync(join(tmpdir(), "omlx-home-"));
    try {
      for (let start = 0; start < 2; start++) {
        const server = await startServer({ program, env: { HOME: home } });
        expect(server.output()).toContain(DEFAULT_MODEL);
        expect(await server.stop()).toBe(0);
        expect(readdirSync(join(home, ".cache", "omlx"))).toHaveLength(1);
      }
    } finally {
      rmSync(home, { recursive: true, force: true });
    }
  });
});
