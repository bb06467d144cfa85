import { afterAll, afterEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { McpManager, readMcpConfig, textOfResult } from "#front/mcp";
import { everything, filesystem, httpServer, memory, script, variable } from "../../helpers/mcp.ts";
import { childrenOf, eventually } from "../../helpers/server.ts";

const folder = mkdtempSync(join(tmpdir(), "omlx-mcp-"));
const managers: McpManager[] = [];
afterEach(async () => {
  await Promise.all(managers.splice(0).map((manager) => manager.stop()));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function start(mcpServers: Record<string, unknown>): McpManager {
  const path = join(folder, "mcp.json");
  writeFileSync(path, JSON.stringify({ mcpServers }));
  const manager = new McpManager(readMcpConfig(path), "test");
  managers.push(manager);
  return manager;
}
const status = (manager: McpManager, name: string) =>
  manager.servers.find((server) => server.name === name);
const reaches = (manager: McpManager, name: string, state: string) =>
  eventually(
    async () => (status(manager, name)?.state === state ? true : undefined),
    `${name} being ${state}`,
    30_000,
  );

describe("McpManager with real servers", () => {
  test("lists and calls tools of several programs; text, pictures, resources, progress and errors", async () => {
    writeFileSync(join(folder, "note.txt"), "hello from a file");
    const manager = start({
      all: everything(),
      files: filesystem(folder),
      notes: memory(join(folder, "memory.json")),
      missing: { command: "omlx-no-such-program" },
      off: { ...everything(), disabled: true },
    });
    expect(manager.tools).toEqual([]); // nobody waits for servers
    await Promise.all(["all", "files", "notes"].map((name) => reaches(manager, name, "connected")));
    expect(status(manager, "missing")).toMatchObject({ state: "error", numTools: 0 });
    expect(status(manager, "off")).toMatchObject({ state: "disconnected", error: "disabled" });
    const names = manager.tools.map((tool) => tool.name);
    expect(names).toContain("all__echo");
    expect(names).toContain("files__read_text_file");

    const echo = await manager.execute("all__echo", { message: "hi" });
    expect(echo).toMatchObject({ isError: false, blocks: [{ type: "text", text: "Echo: hi" }] });
    const image = await manager.execute("all__get-tiny-image", {});
    expect(image.blocks.map((block) => block.type)).toContain("image");
    expect(textOfResult(image)).toContain("image/png");
    const file = await manager.execute("files__read_text_file", { path: join(folder, "note.txt") });
    expect(textOfResult(file)).toBe("hello from a file");
    const outside = await manager.execute("files__read_text_file", { path: "/etc/passwd" });
    expect(outside.isError).toBe(true);
    const entity = { name: "Ada", entityType: "person", observations: ["likes numbers"] };
    await manager.execute("notes__create_entities", { entities: [entity] });
    const found = await manager.execute("notes__search_nodes", { query: "Ada" });
    expect(textOfResult(found)).toContain("likes numbers");

    const seen: number[] = [];
    await manager.execute(
      "all__trigger-long-running-operation",
      { duration: 0.2, steps: 2 },
      { onProgress: ({ progress }) => seen.push(progress) },
    );
    expect(seen[0]).toBe(1);

    const wrong = await manager.execute("all__echo", { message: 5 });
    expect(wrong.isError).toBe(true);
    await expect(manager.execute("all__nothing", {})).rejects.toThrow(/no MCP tool.*all__echo/);
  });

  test("a killed program is started again, and calls work as before", async () => {
    const before = new Set(await childrenOf(process.pid));
    const manager = start({ all: everything() });
    await reaches(manager, "all", "connected");
    const [pid] = (await childrenOf(process.pid)).filter((child) => !before.has(child));
    process.kill(pid ?? 0, "SIGKILL");
    await reaches(manager, "all", "error");
    await reaches(manager, "all", "connected");
    const echo = await manager.execute("all__echo", { message: "again" });
    expect(textOfResult(echo)).toBe("Echo: again");
  });

  test("a program that hangs, one that floods and one that ends delay nobody and are told", async () => {
    const manager = start({
      hangs: { ...script("setInterval(() => {}, 1000)"), timeout: 1 },
      floods: script("for (;;) require('fs').writeSync(1, 'noise\\n'.repeat(1000))"),
      endless: script("for (;;) require('fs').writeSync(1, 'x'.repeat(65536))"),
      ends: script("process.exit(3)"),
      all: everything(),
    });
    await reaches(manager, "all", "connected");
    for (const name of ["hangs", "floods", "endless", "ends"]) {
      await eventually(
        async () => (status(manager, name)?.error === undefined ? undefined : true),
        `the error of ${name}`,
        30_000,
      );
    }
    const echo = await manager.execute("all__echo", { message: "hi" });
    expect(textOfResult(echo)).toBe("Echo: hi");
    const lost = await manager.execute("hangs__x", {});
    expect(lost).toMatchObject({ isError: true });
    expect(textOfResult(lost)).toContain('"hangs" is not connected');
  });

  test("a call that takes too long ends with an error, and the server is still there", async () => {
    const manager = start({ all: { ...everything(), timeout: 1 } });
    await reaches(manager, "all", "connected");
    const slow = await manager.execute("all__trigger-long-running-operation", {
      duration: 30,
      steps: 1,
    });
    expect(slow.isError).toBe(true);
    expect(textOfResult(slow)).toMatch(/timed? ?out/i);
    const echo = await manager.execute("all__echo", { message: "hi" });
    expect(echo.isError).toBe(false);
  });

  test("servers over HTTP: headers, changed lists, and a restart", async () => {
    const server = httpServer();
    const manager = start({
      web: { url: server.url, headers: { "x-test": variable("HOME") } },
    });
    await reaches(manager, "web", "connected");
    expect(server.seen[0]?.get("x-test")).toBe(process.env["HOME"] ?? "");
    expect(textOfResult(await manager.execute("web__add", { a: 2, b: 3 }))).toBe("5");
    server.addTool("late");
    await eventually(
      async () => (manager.tools.some((tool) => tool.name === "web__late") ? true : undefined),
      "the new tool",
    );
    await server.stop();
    expect((await manager.execute("web__add", { a: 1, b: 1 })).isError).toBe(true);
    await reaches(manager, "web", "error");
  });

  test("a client that leaves after a call does not cancel it", async () => {
    const server = httpServer();
    const manager = start({ web: { url: server.url } });
    await reaches(manager, "web", "connected");
    const client = new AbortController();
    const add = (signal: AbortSignal) => manager.execute("web__add", { a: 2, b: 3 }, { signal });
    expect(textOfResult(await add(client.signal))).toBe("5");
    const before = server.seen.length;
    client.abort();
    expect((await add(client.signal)).isError).toBe(true); // it has left
    expect(textOfResult(await add(new AbortController().signal))).toBe("5");
    expect(server.seen.length).toBe(before + 1);
    await server.stop();
  });

  test.each([
    ["streamableHttp", "mcp", "http"],
    ["sse", "sse", "sse"],
  ])("the official server over HTTP: %s", async (mode, path, type) => {
    const probe = Bun.serve({ port: 0, fetch: () => new Response() });
    const { port } = probe;
    await probe.stop(true);
    const { command, args } = everything(mode);
    const child = Bun.spawn([command, ...args], {
      env: { ...process.env, PORT: String(port) },
      stdout: "ignore",
      stderr: "ignore",
    });
    try {
      const manager = start({ web: { type, url: `http://127.0.0.1:${port}/${path}` } });
      await reaches(manager, "web", "connected"); // also when it was not there at first
      expect(textOfResult(await manager.execute("web__echo", { message: "hi" }))).toBe("Echo: hi");
    } finally {
      child.kill();
      await child.exited;
    }
  });

  test("results that are too large are cut, with a notice", async () => {
    const big = `
      const { McpServer } = require(${JSON.stringify(require.resolve("@modelcontextprotocol/sdk/server/mcp.js"))});
      const { StdioServerTransport } = require(${JSON.stringify(require.resolve("@modelcontextprotocol/sdk/server/stdio.js"))});
      const server = new McpServer({ name: "big", version: "1" });
      server.registerTool("talk", {}, () => ({ content: [{ type: "text", text: "x".repeat(5e6) }] }));
      server.connect(new StdioServerTransport());`;
    const manager = start({ big: script(big) });
    await reaches(manager, "big", "connected");
    const result = await manager.execute("big__talk", {});
    const text = textOfResult(result);
    expect(text.length).toBeLessThan(70_000);
    expect(text).toContain("of 5000000 characters are shown");
  });
});
