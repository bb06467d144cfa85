import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readMcpConfig } from "#front/mcp";
import { variable } from "../../helpers/mcp.ts";

const folder = mkdtempSync(join(tmpdir(), "omlx-mcp-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function read(config: unknown, name = "mcp.json") {
  const path = join(folder, name);
  writeFileSync(path, typeof config === "string" ? config : JSON.stringify(config));
  return readMcpConfig(path);
}
const one = (entry: unknown) => read({ mcpServers: { s: entry } }).servers[0];

describe("readMcpConfig()", () => {
  test("takes the shapes of other clients", () => {
    expect(one({ command: "x", args: ["-a", 1], env: { A: "b" } })?.target).toEqual({
      transport: "stdio",
      command: "x",
      args: ["-a", "1"],
      env: { A: "b" },
      cwd: undefined,
    });
    const url = "https://example.com/mcp";
    for (const entry of [
      { url },
      { type: "http", url },
      { transport: "streamable_http", url },
      { httpUrl: url },
      { serverUrl: url },
    ]) {
      expect(one(entry)?.target).toEqual({ transport: "streamable-http", url, headers: {} });
    }
    expect(one({ type: "sse", url, headers: { a: "b" } })?.target).toEqual({
      transport: "sse",
      url,
      headers: { a: "b" },
    });
    expect(read({ servers: { t: { command: "x" } } }).servers[0]?.name).toBe("t");
    expect(read("mcpServers:\n  y:\n    command: x\n", "mcp.yaml").servers[0]?.name).toBe("y");
  });

  test("replaces variables of the environment; a missing one is that server's problem", () => {
    const home = process.env["HOME"] ?? "";
    const target = one({
      command: "x",
      args: [variable("HOME", "/a"), variable("env:HOME"), variable("OMLX_NOT_SET:-d")],
    })?.target;
    expect(target).toMatchObject({ args: [`${home}/a`, home, "d"] });
    const broken = one({ command: "x", env: { A: variable("OMLX_NOT_SET") } });
    expect(broken?.target).toBeNull();
    expect(broken?.problem).toContain("OMLX_NOT_SET");
  });

  test("reads time limits, switches and lists of tools", () => {
    expect(one({ command: "x" })).toMatchObject({ timeoutMs: 30_000, isEnabled: true });
    expect(one({ command: "x", timeout: 5 })?.timeoutMs).toBe(5000);
    expect(one({ command: "x", timeout: 60_000 })?.timeoutMs).toBe(60_000);
    expect(one({ command: "x", disabled: true })?.isEnabled).toBe(false);
    expect(one({ command: "x", enabled: false })?.isEnabled).toBe(false);
    const listed = one({
      command: "x",
      allowed_tools: ["read_*", "a.b"],
      excludeTools: ["read_x"],
    });
    const offered = ["read_a", "read_x", "write", "a.b", "aXb"].filter((t) => listed?.allows(t));
    expect(offered).toEqual(["read_a", "a.b"]);
    const limits = read({ default_timeout: 7, mcpServers: { s: { command: "x" } } });
    expect(limits.servers[0]?.timeoutMs).toBe(7000);
  });

  test("a broken entry is told, the others are served; a broken file is refused by its name", () => {
    const { servers } = read({
      mcpServers: {
        a: 5,
        b: {},
        c: { command: "x" },
        d: { type: "carrier-pigeon" },
        e: { url: "ftp://x" },
      },
    });
    expect(servers.map(({ target }) => target !== null)).toEqual([
      false,
      false,
      true,
      false,
      false,
    ]);
    expect(servers[1]?.problem).toContain('"url" is missing');
    expect(servers[3]?.problem).toContain("carrier-pigeon");
    expect(() => read("{")).toThrow(/mcp\.json/);
    expect(() => read("[1]")).toThrow(/mcpServers/);
    expect(() => readMcpConfig(join(folder, "none.json"))).toThrow(/none\.json/);
  });
});
