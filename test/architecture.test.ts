/** Holds the code to the table of rooms in docs/architecture.md and to its rules on packages. */
import { describe, expect, test } from "bun:test";
import { dirname, join, normalize } from "node:path";

const ROOT = join(import.meta.dir, "..");
const SRC = join(ROOT, "src");
// import and export statements at the start of a line, and dynamic imports; type-only ones count too
const IMPORT =
  /^(?:import|export)\b[^"'`;]*?["']([^"'\n]+)["']|\bimport\(\s*["']([^"'\n]+)["']\s*\)/gm;

/** Bare packages that only some rooms may import. */
const PACKAGE_ROOMS: Readonly<Record<string, readonly string[]>> = {
  elysia: ["front/api"],
  zod: ["front/api", "front/config", "front/mcp"],
  "bun:ffi": ["device/mlx"],
};

interface Import {
  readonly file: string;
  readonly from: string;
  readonly spec: string;
}

/** The table: room → rooms it may import. */
async function readTable(): Promise<Map<string, Set<string>>> {
  const text = await Bun.file(join(ROOT, "docs/architecture.md")).text();
  const block = /```rooms\n([\s\S]*?)```/.exec(text)?.[1] ?? "";
  return new Map(
    block
      .trim()
      .split("\n")
      .map((line) => {
        const [room = "", to = ""] = line.split("->").map((s) => s.trim());
        return [room, new Set(to.split(/\s+/).filter(Boolean))] as const;
      }),
  );
}

/** Room of a file below src/: "front/api" of front/api/app.ts, "main" of main.ts. */
function roomOf(file: string): string {
  const parts = file.replace(/\.ts$/, "").split("/");
  return parts.slice(0, Math.max(1, Math.min(2, parts.length - 1))).join("/");
}

async function allImports(): Promise<Import[]> {
  const found: Import[] = [];
  for (const file of new Bun.Glob("**/*.ts").scanSync(SRC)) {
    const code = await Bun.file(join(SRC, file)).text();
    for (const match of code.matchAll(IMPORT)) {
      found.push({ file, from: roomOf(file), spec: match[1] ?? match[2] ?? "" });
    }
  }
  return found;
}

/** Every import that leaves its room, with the room it enters. */
async function crossings(): Promise<(Import & { to: string })[]> {
  return (await allImports()).flatMap((found) => {
    if (found.spec.startsWith("#")) return [{ ...found, to: found.spec.slice(1) }];
    if (!found.spec.startsWith(".") || found.spec.endsWith(".json")) return [];
    const to = roomOf(normalize(join(dirname(found.file), found.spec)));
    return to === found.from ? [] : [{ ...found, to }];
  });
}

describe("rooms", () => {
  test("every import between rooms goes through a #door and stands in the table", async () => {
    const table = await readTable();
    const bad = (await crossings()).filter(
      (c) => !c.spec.startsWith("#") || !table.get(c.from)?.has(c.to),
    );
    expect(bad.map((c) => `${c.file}: ${c.from} -> ${c.to} (${c.spec})`)).toEqual([]);
  });

  test("the table has no arrow that no import uses", async () => {
    const used = new Set((await crossings()).map((c) => `${c.from} -> ${c.to}`));
    const idle = [...(await readTable())]
      .flatMap(([room, to]) => [...to].map((t) => `${room} -> ${t}`))
      .filter((arrow) => !used.has(arrow));
    expect(idle).toEqual([]);
  });

  test("the table has no cycle: each room imports only rooms listed above it", async () => {
    const seen = new Set<string>();
    for (const [room, to] of await readTable()) {
      expect([...to].filter((t) => !seen.has(t))).toEqual([]);
      seen.add(room);
    }
    expect(seen.size).toBeGreaterThan(10);
  });

  test("packages stay in their rooms", async () => {
    const bad = (await allImports()).filter(({ spec, from }) => {
      const name = Object.keys(PACKAGE_ROOMS).find((p) => spec === p || spec.startsWith(`${p}/`));
      return name !== undefined && !PACKAGE_ROOMS[name]?.includes(from);
    });
    expect(bad.map((c) => `${c.file}: ${c.spec}`)).toEqual([]);
  });

  test("codecs import neither elysia nor I/O", async () => {
    const bad = (await allImports()).filter(
      ({ file, spec }) => file.endsWith("-codec.ts") && /^(?:elysia|node:|bun)/.test(spec),
    );
    expect(bad.map((c) => `${c.file}: ${c.spec}`)).toEqual([]);
  });

  test("only front/config reads the environment and only front/cli and main exit", async () => {
    const bad: string[] = [];
    for (const file of new Bun.Glob("**/*.ts").scanSync(SRC)) {
      const code = await Bun.file(join(SRC, file)).text();
      const room = roomOf(file);
      const mayReadEnv = room === "front/config" || file === "device/mlx/library.ts";
      if (/process\.env|Bun\.env/.test(code) && !mayReadEnv) bad.push(`${file}: env`);
      const mayExit = room === "front/cli" || room === "main" || room === "device/runner";
      if (/process\.exit\(/.test(code) && !mayExit) bad.push(`${file}: exit`);
    }
    expect(bad).toEqual([]);
  });
});
