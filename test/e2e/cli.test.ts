import { describe, expect, test } from "bun:test";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import {
  childrenOf,
  DEFAULT_MODEL,
  DEFAULT_MODELS,
  runProgram,
  startServer,
} from "../helpers/server.ts";

const withModel = { modelDirs: [DEFAULT_MODELS] };

function startStream(baseURL: string, maxTokens: number): Promise<Response> {
  return fetch(`${baseURL}/chat/completions`, {
    method: "POST",
    body: JSON.stringify({
      messages: [{ role: "user", content: "Talk." }],
      stream: true,
      ignore_eos: true,
      max_tokens: maxTokens,
    }),
  });
}

describe("command line", () => {
  for (const flag of ["--version", "-v", "version"]) {
    test(`omlx ${flag} prints the version`, async () => {
      expect(await runProgram([flag])).toEqual({
        stdout: `${packageJson.version}\n`,
        stderr: "",
        code: 0,
      });
    });
  }

  test("omlx --help lists commands and flags", async () => {
    for (const args of [["--help"], ["help"], ["serve", "--help"]]) {
      const { stdout, code } = await runProgram(args);
      expect(code).toBe(0);
      for (const word of ["serve", "--port", "--model-dir", "--api-key", "OMLX_HOST"]) {
        expect(stdout).toContain(word);
      }
    }
  });

  const wrong: [string[], string][] = [
    [["bake"], "bake"],
    [["serve", "extra"], "extra"],
    [["serve", "--prot", "1"], "--port"],
    [["serve", "--port"], "--port"],
    [["serve", "--port", "99999"], "99999"],
    [["--log-level", "loud"], "loud"],
  ];
  for (const [args, word] of wrong) {
    test(`omlx ${args.join(" ")} is one line and exit code 2`, async () => {
      const { stdout, stderr, code } = await runProgram(args);
      expect(stderr).toMatch(/^omlx: [^\n]+\n$/);
      expect(stderr).toContain(word);
      expect(stdout).toBe("");
      expect(code).toBe(2);
    });
  }
});

describe("omlx serve", () => {
  test("omlx serve says where it is, what to try and what the model is", async () => {
    await using server = await startServer(withModel);
    const output = await server.outputHas(/very small model/);
    expect(output).toContain(`serves ${server.baseURL}`);
    expect(output).toContain(`curl ${server.baseURL}/chat/completions`);
    expect(output).toContain(DEFAULT_MODEL);
    expect(output).toContain("--model-dir");
    expect(output).not.toContain("WARNING");
  });

  test("omlx serve warns when everybody can reach it", async () => {
    await using server = await startServer({ ...withModel, args: ["--host", "0.0.0.0"] });
    await server.outputHas(/WARNING: everybody who reaches 0\.0\.0\.0/);
  });

  test("omlx serve --host 0.0.0.0 with a key does not warn", async () => {
    const args = ["--host", "0.0.0.0", "--api-key", "sk-abc"];
    await using server = await startServer({ ...withModel, args });
    await server.outputHas(/very small model/);
    expect(server.output()).not.toContain("WARNING");
    expect(server.output()).not.toContain("sk-abc");
  });

  test("omlx serve on a port in use says so and exits with 1", async () => {
    await using server = await startServer(withModel);
    const { port } = new URL(server.origin);
    const { stderr, code } = await runProgram(["serve", "--port", port]);
    expect(stderr).toMatch(/^omlx: [^\n]*\n$/);
    expect(stderr).toContain(`127.0.0.1:${port}: the port is in use`);
    expect(code).toBe(1);
  });

  test("omlx serve with an empty model folder starts, and says what is missing", async () => {
    const empty = mkdtempSync(join(tmpdir(), "omlx-models-"));
    await using server = await startServer({ modelDirs: [empty] });
    const { status } = await fetch(`${server.origin}/health/ready`);
    expect(status).toBe(200);
  });

  test("SIGTERM lets a stream finish, leaves no process and exits with 0", async () => {
    const server = await startServer(withModel);
    const response = await startStream(server.baseURL, 60);
    const reader = (response.body as ReadableStream<Uint8Array>).getReader();
    let text = new TextDecoder().decode((await reader.read()).value);
    const [engine] = await childrenOf(server.pid);
    const ended = server.stop("SIGTERM");
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      text += new TextDecoder().decode(next.value);
    }
    expect(text).toContain('"finish_reason":"length"');
    expect(text).toEndWith("data: [DONE]\n\n");
    expect(await ended).toBe(0);
    if (engine !== undefined) expect(() => process.kill(engine, 0)).toThrow();
    await expect(fetch(server.origin)).rejects.toThrow();
  });

  test("SIGTERM ends a stream that does not finish with an error, in order", async () => {
    const server = await startServer({ ...withModel, args: ["--context-window", "8192"] });
    const response = await startStream(server.baseURL, 8000);
    const reader = (response.body as ReadableStream<Uint8Array>).getReader();
    let text = new TextDecoder().decode((await reader.read()).value);
    const ended = server.stop("SIGTERM");
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      text += new TextDecoder().decode(next.value);
    }
    expect(text).toContain("shutting down");
    expect(text).toEndWith("data: [DONE]\n\n");
    expect(await ended).toBe(0);
  }, 30_000);

  test("a second SIGINT ends the server at once", async () => {
    const server = await startServer({ ...withModel, args: ["--context-window", "8192"] });
    const response = await startStream(server.baseURL, 8000);
    await (response.body as ReadableStream<Uint8Array>).getReader().read();
    process.kill(server.pid, "SIGINT");
    await server.outputHas(/server ends/);
    const start = performance.now();
    const again = setInterval(() => process.kill(server.pid, "SIGINT"), 50);
    const code = await server.stop("SIGINT").finally(() => clearInterval(again));
    expect(code).toBe(130);
    expect(performance.now() - start).toBeLessThan(3000);
  });
});
