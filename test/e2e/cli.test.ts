import { describe, expect, test } from "bun:test";
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import {
  BINARY,
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

describe("omlx list", () => {
  test("omlx list shows models, their size and window, and what is wrong", async () => {
    const folder = mkdtempSync(join(tmpdir(), "omlx-list-"));
    const fixtures = join(import.meta.dir, "..", "fixtures");
    cpSync(join(fixtures, "models", "llama-f32"), join(folder, "small"), { recursive: true });
    cpSync(join(fixtures, "gguf", "qwen3-Q4_0.gguf"), join(folder, "one.gguf"));
    writeFileSync(join(folder, "broken.gguf"), "GGUF");
    const args = ["list", "--model-dir", folder, "--default-model", "small"];
    const { stdout, stderr, code } = await runProgram(args);
    expect([stderr, code]).toEqual(["", 0]);
    expect(stdout).toMatch(/^MODEL +KIND +TYPE +SIZE +CONTEXT\n/);
    expect(stdout).toMatch(/^broken +llm +- +- +- +cannot be served: .*cut off/m);
    expect(stdout).toMatch(/^one +llm +qwen3 +\d+ KB +2048$/m);
    expect(stdout).toMatch(/^small \* +llm +llama +\d+ KB +2048$/m);
    const json = JSON.parse((await runProgram([...args, "--json"])).stdout);
    expect(json).toContainEqual({
      id: "one",
      kind: "llm",
      model_type: "qwen3",
      weight_bytes: expect.any(Number),
      context_window: 2048,
      path: join(folder, "one.gguf"),
      is_default: false,
      problem: null,
    });

    const shown = await runProgram(["show", "one", "--model-dir", folder]);
    expect(shown).toMatchObject({ code: 0, stderr: "" });
    expect(shown.stdout).toMatch(/^format +GGUF; converted at its first request: without loss$/m);
    const small = await runProgram(["show", "small", "--model-dir", folder]);
    expect(small.stdout).toMatch(/^format +safetensors; float32$/m);
    expect(small.stdout).toMatch(/^vocabulary +384 tokens; ends with 383, 381$/m);
    const broken = await runProgram(["show", "broken", "--model-dir", folder]);
    expect(broken.code).toBe(1);
    expect(broken.stdout).toMatch(/^problem +.*cut off/m);
    rmSync(folder, { recursive: true });
  });
});

describe("omlx run", () => {
  const run = (args: string[], stdin = "") =>
    runProgram(["run", "--model-dir", DEFAULT_MODELS, "--temperature", "0", ...args], {}, stdin);

  test("omlx run answers on standard output, and tells its speed on standard error", async () => {
    const asked = await run([DEFAULT_MODEL, "What is the capital of France?"]);
    expect(asked).toMatchObject({ stdout: "The capital of France is Paris.\n", code: 0 });
    expect(asked.stderr).toMatch(/^omlx: \d+ tokens, [\d.]+ tokens\/s .*\n$/);
  });

  test("omlx run reads standard input, and takes a system prompt and a limit", async () => {
    const piped = await run([DEFAULT_MODEL], "What is the capital of France?\n");
    expect(piped.stdout).toBe("The capital of France is Paris.\n");
    const mixed = await run(
      [DEFAULT_MODEL, "What is the capital of", "-", "--max-tokens", "3", "--system", "Be brief."],
      "France?",
    );
    expect(mixed.code).toBe(0);
    expect(mixed.stderr).toMatch(/^omlx: 3 tokens, /);
  });

  test("omlx run ends by Ctrl-C with its engine", async () => {
    const home = mkdtempSync(join(tmpdir(), "omlx-run-"));
    const command = ["run", DEFAULT_MODEL, "Count to one million.", "--model-dir", DEFAULT_MODELS];
    const child = Bun.spawn([BINARY, ...command], {
      env: { HOME: home },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "ignore",
    });
    const reader = child.stdout.getReader();
    await reader.read(); // the first words
    const engines = await childrenOf(child.pid);
    expect(engines.length).toBeGreaterThan(0);
    child.kill("SIGINT");
    expect(await child.exited).toBe(130);
    expect(engines.filter(isRunning)).toEqual([]);
    rmSync(home, { recursive: true });
  });

  for (const [args, message, code] of [
    [["run"], /Which model\?/, 2],
    [["run", "m", "x", "--max-tokens", "0"], /--max-tokens "0"/, 2],
    [["run", "m", "x", "--temperature"], /--temperature needs a value/, 2],
    [["run", DEFAULT_MODEL], /The prompt is empty/, 2],
    [["run", "nope", "x"], /Model "nope" not found/, 1],
    [["show"], /Which model\?/, 2],
    [["show", "nope"], /Model "nope" not found/, 1],
    [["list", "x"], /Unknown argument "x"/, 2],
  ] as const) {
    test(`omlx ${args.join(" ")} is one line and exit code ${code}`, async () => {
      const ended = await runProgram(args);
      expect(ended.stderr).toMatch(/^omlx: [^\n]+\n$/);
      expect(ended.stderr).toMatch(message);
      expect([ended.stdout, ended.code]).toEqual(["", code]);
    });
  }

  test("omlx COMMAND --help tells of that command", async () => {
    for (const [name, word] of [
      ["run", "--max-tokens"],
      ["list", "--json"],
      ["show", "MODEL"],
    ] as const) {
      const { stdout, code } = await runProgram([name, "--help"]);
      expect(code).toBe(0);
      expect(stdout).toStartWith(`omlx ${name} `);
      expect(stdout).toContain(word);
    }
  });
});

const isRunning = (pid: number): boolean => {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
};

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
    const reader = (response.body as ReadableStream<Uint8Array>).getReader();
    await reader.read();
    process.kill(server.pid, "SIGINT");
    await server.outputHas(/server ends/);
    const start = performance.now();
    const again = setInterval(() => process.kill(server.pid, "SIGINT"), 50);
    const code = await server.stop("SIGINT").finally(() => clearInterval(again));
    expect(code).toBe(130);
    await reader.cancel().catch(() => {}); // held until here: a collected response would close its connection
    expect(performance.now() - start).toBeLessThan(3000);
  });
});
