import { afterAll, beforeAll, expect, test } from "bun:test";
import { runPython } from "../helpers/python.ts";
import { DEFAULT_MODEL, DEFAULT_MODELS, startServer, type TestServer } from "../helpers/server.ts";

let server: TestServer;

beforeAll(async () => {
  server = await startServer({ modelDirs: [DEFAULT_MODELS] });
});
afterAll(() => server[Symbol.asyncDispose]());

test("the openai package from PyPI is served on every parameter", async () => {
  const out = await runPython("openai_sdk.py", server, [DEFAULT_MODEL]);
  expect(JSON.parse(out)).toContain("completions");
}, 180_000);
