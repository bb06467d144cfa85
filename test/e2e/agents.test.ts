/** Agents from npm, as their users run them. Long: each is a large download. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  emptyHome,
  runClaudeCode,
  runCodex,
  runInspector,
  runOpencode,
} from "../helpers/agents.ts";
import { callingScript, writeScriptedModel } from "../helpers/scripted-model.ts";
import { DEFAULT_MODEL, DEFAULT_MODELS, startServer, type TestServer } from "../helpers/server.ts";

const SAYS = "Two and two make four, as far as anybody here can tell.";

describe.if(process.env["OMLX_LONG"] === "1")("agents", () => {
  let server: TestServer;
  let models: string;

  beforeAll(async () => {
    models = mkdtempSync(join(tmpdir(), "omlx-agents-"));
    await writeScriptedModel(join(models, "scripted"), { text: SAYS, window: 262_144 });
    const call =
      '{"name": "Bash", "arguments": {"command": "echo 12345 | rev", "description": "Turn"}}';
    const script = callingScript("I ask the shell.", call, "The shell has turned it around.");
    await writeScriptedModel(join(models, "caller"), { ...script, window: 262_144 });
    server = await startServer({ modelDirs: [models] });
  });
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
    rmSync(models, { recursive: true, force: true });
  });

  test("Claude Code ends a turn, and its next one finds the prompt in the cache", async () => {
    using home = emptyHome();
    const first = await runClaudeCode(home.path, server, "scripted", ["What is two and two?"]);
    expect([first.is_error, first.result, first.num_turns]).toEqual([false, SAYS, 1]);
    const { usage } = first;
    const total = usage.cache_creation_input_tokens + usage.cache_read_input_tokens;
    const more = ["--continue", "And three and three?"];
    const next = await runClaudeCode(home.path, server, "scripted", more);
    expect(next.result).toBe(SAYS);
    expect(next.usage.cache_read_input_tokens).toBeGreaterThanOrEqual(0.95 * total);
  }, 300_000);

  test("Claude Code runs the command that the model asks for, and ends", async () => {
    using home = emptyHome();
    const args = ["Turn it around.", "--allowedTools", "Bash"];
    const { result, is_error, num_turns } = await runClaudeCode(home.path, server, "caller", args);
    expect([is_error, num_turns, result]).toEqual([false, 2, "The shell has turned it around."]);
  }, 300_000);

  test("Claude Code is told that its prompt is too long, and understands", async () => {
    using home = emptyHome();
    await using small = await startServer({ modelDirs: [DEFAULT_MODELS] });
    const told = await runClaudeCode(home.path, small, DEFAULT_MODEL, ["What is two and two?"]);
    expect([told.is_error, told.terminal_reason]).toEqual([true, "prompt_too_long"]);
    expect((await fetch(`${small.origin}/health`)).status).toBe(200);
  }, 300_000);

  test("Codex ends a turn", async () => {
    using home = emptyHome();
    expect(await runCodex(home.path, server, "scripted", "What is two and two?")).toContain(SAYS);
  }, 300_000);

  test("opencode ends a turn", async () => {
    using home = emptyHome();
    expect(await runOpencode(home.path, server, "scripted", "What is two and two?")).toContain(
      SAYS,
    );
  }, 300_000);

  test("the MCP inspector lists and calls this server's tools", async () => {
    using home = emptyHome();
    const list = await runInspector(home.path, server, ["--method", "tools/list"]);
    expect(list).toContain('"generate"');
    const call = ["--method", "tools/call", "--tool-name", "generate"];
    const args = ["--tool-arg", "prompt=Hi", "--tool-arg", "model=scripted"];
    expect(await runInspector(home.path, server, [...call, ...args])).toContain(SAYS);
  }, 300_000);
});
