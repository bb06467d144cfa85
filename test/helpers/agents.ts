/** Coding agents as their users run them, from npm: installed once into the cache folder, run in an empty home. */
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cacheDir, run } from "../../scripts/wheels.ts";
import type { TestServer } from "./server.ts";

/**
 * The folder with node_modules that holds a package.
 *
 * @param spec name and exact version
 * @throws {Error} when npm cannot get it
 */
async function installAgent(spec: string): Promise<string> {
  const parent = join(cacheDir(), "agents");
  const target = join(parent, spec.replaceAll("/", "_"));
  if (existsSync(target)) return target;
  mkdirSync(parent, { recursive: true });
  const work = mkdtempSync(join(parent, "install-"));
  try {
    writeFileSync(join(work, "package.json"), '{"private":true}');
    const flags = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", work];
    await run(["npm", "install", ...flags, spec], `cannot install ${spec}`);
    renameSync(work, target);
  } catch (error) {
    if (!existsSync(target)) throw error; // another run was faster
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return target;
}

/** Runs a program to its end; `home` is its home and its working directory. */
async function runIn(
  home: string,
  command: readonly string[],
  env: Readonly<Record<string, string>>,
) {
  const path = process.env["PATH"] ?? "";
  const child = Bun.spawn([...command], {
    cwd: home,
    env: { PATH: path, HOME: home, NO_PROXY: "127.0.0.1,localhost", ...env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: 240_000,
  });
  const [stdout, stderr] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { stdout, stderr };
}

/** An empty folder for an agent to be at home in. */
export function emptyHome(): Disposable & { readonly path: string } {
  const path = mkdtempSync(join(tmpdir(), "omlx-agent-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

/** What `claude -p PROMPT --output-format json` prints. */
export interface ClaudeResult {
  readonly is_error: boolean;
  readonly result: string;
  readonly num_turns: number;
  readonly terminal_reason?: string;
  readonly usage: {
    readonly input_tokens: number;
    readonly cache_creation_input_tokens: number;
    readonly cache_read_input_tokens: number;
  };
}

/** Lets Claude Code take one task, with a server's model for everything. */
export async function runClaudeCode(
  home: string,
  server: Pick<TestServer, "origin">,
  model: string,
  args: readonly string[],
): Promise<ClaudeResult> {
  const folder = await installAgent("@anthropic-ai/claude-code@2.1.330");
  const name = `claude-code-${process.platform}-${process.arch}`;
  const binary = join(folder, "node_modules", "@anthropic-ai", name, "claude");
  const command = [binary, "-p", ...args, "--model", model, "--output-format", "json"];
  const { stdout, stderr } = await runIn(home, command, {
    ANTHROPIC_BASE_URL: server.origin,
    ANTHROPIC_AUTH_TOKEN: "none",
    ANTHROPIC_MODEL: model,
    ANTHROPIC_SMALL_FAST_MODEL: model,
    ANTHROPIC_DEFAULT_HAIKU_MODEL: model,
    CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
    DISABLE_TELEMETRY: "1",
    DISABLE_AUTOUPDATER: "1",
  });
  try {
    return JSON.parse(stdout) as ClaudeResult;
  } catch {
    throw new Error(`Claude Code ended without a result: ${stdout}${stderr}`);
  }
}

/** Lets Codex take one task; what it printed. */
export async function runCodex(
  home: string,
  server: Pick<TestServer, "baseURL">,
  model: string,
  prompt: string,
): Promise<string> {
  const folder = await installAgent("@openai/codex@0.171.0");
  const settings = join(home, ".codex");
  mkdirSync(settings, { recursive: true });
  writeFileSync(
    join(settings, "config.toml"),
    [
      `model = ${JSON.stringify(model)}`,
      'model_provider = "omlx"',
      "[model_providers.omlx]",
      'name = "oMLX"',
      `base_url = ${JSON.stringify(server.baseURL)}`,
      'env_key = "OMLX_KEY"',
      'wire_api = "responses"',
    ].join("\n"),
  );
  const binary = join(folder, "node_modules", ".bin", "codex");
  const command = [binary, "exec", "--skip-git-repo-check", prompt];
  const { stdout, stderr } = await runIn(home, command, { CODEX_HOME: settings, OMLX_KEY: "none" });
  return `${stdout}\n${stderr}`;
}

/** Lets opencode take one task; what it printed. */
export async function runOpencode(
  home: string,
  server: Pick<TestServer, "baseURL">,
  model: string,
  prompt: string,
): Promise<string> {
  const folder = await installAgent("opencode-ai@1.18.33");
  const settings = join(home, ".config", "opencode");
  mkdirSync(settings, { recursive: true });
  const provider = {
    npm: "@ai-sdk/openai-compatible",
    name: "oMLX",
    options: { baseURL: server.baseURL, apiKey: "none" },
    models: { [model]: { name: model } },
  };
  writeFileSync(join(settings, "opencode.json"), JSON.stringify({ provider: { omlx: provider } }));
  const name = `opencode-${process.platform}-${process.arch}`;
  const binary = join(folder, "node_modules", name, "bin", "opencode");
  const command = [binary, "run", "-m", `omlx/${model}`, prompt];
  const { stdout, stderr } = await runIn(home, command, {});
  return `${stdout}\n${stderr}`;
}

/** Calls a tool of a server's /mcp with the official inspector's command line; what it printed. */
export async function runInspector(
  home: string,
  server: Pick<TestServer, "origin">,
  args: readonly string[],
): Promise<string> {
  const folder = await installAgent("@modelcontextprotocol/inspector@0.15.0");
  const binary = join(folder, "node_modules", ".bin", "mcp-inspector");
  const target = ["--cli", `${server.origin}/mcp`, "--transport", "http"];
  const { stdout, stderr } = await runIn(home, [binary, ...target, ...args], {});
  return `${stdout}\n${stderr}`;
}
