import { afterAll, describe, expect, test } from "bun:test";
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as mx from "#device/mlx";
import { CORE_SIGNATURES } from "../../../src/device/mlx/symbols.gen.ts";

const FILE = process.platform === "darwin" ? "libomlxc.dylib" : "libomlxc.so";
const ROOT = join(import.meta.dir, "../../..");
const work = mkdtempSync(join(tmpdir(), "omlx-library-"));
afterAll(() => rmSync(work, { recursive: true, force: true }));

/** A process that starts as main does: an error is one message and exit code 1. */
async function start(env: Record<string, string>, handedDown = "") {
  const code = `
    import * as mx from "#device/mlx";
    try {
      const dir = ${JSON.stringify(handedDown)};
      if (dir) mx.setLibraryDir(dir);
      mx.init();
      process.stdout.write(mx.libraryDir());
    } catch (error) {
      process.stderr.write(error.code + ": " + error.message);
      process.exit(1);
    }`;
  const child = Bun.spawn([process.execPath, "-e", code], {
    cwd: ROOT,
    env: { ...process.env, OMLX_LIB_DIR: "", ...env },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, err, exit] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { out, err, exit };
}

function folder(name: string): string {
  const dir = join(work, name);
  mkdirSync(dir);
  return dir;
}

/** A folder with all libraries, where libomlxc has some text replaced by another of the same length. */
function altered(name: string, from: string, to: string): string {
  const dir = folder(name);
  const source = mx.libraryDir();
  for (const file of readdirSync(source)) {
    if (file !== FILE) symlinkSync(join(source, file), join(dir, file));
  }
  const bytes = readFileSync(join(source, FILE));
  let at = bytes.indexOf(`${from}\0`);
  expect(at).toBeGreaterThan(0);
  for (; at >= 0; at = bytes.indexOf(`${from}\0`, at + 1)) bytes.write(to, at);
  writeFileSync(join(dir, FILE), bytes);
  return dir;
}

describe("finding the library", () => {
  test("a missing library is one message that names every place, and exit code 1", async () => {
    const dir = folder("empty");
    const { err, exit } = await start({ OMLX_LIB_DIR: dir });
    expect(exit).toBe(1);
    expect(err).toBe(
      `native: Cannot find the native library. Looked for ${join(dir, FILE)} (OMLX_LIB_DIR).`,
    );
  });

  test("a file that is no library is named with the reason", async () => {
    const dir = folder("text");
    writeFileSync(join(dir, FILE), "not a library");
    const { err, exit } = await start({ OMLX_LIB_DIR: dir });
    expect(exit).toBe(1);
    expect(err).toStartWith(`native: Cannot open the native library ${join(dir, FILE)}: `);
    expect(err.split("\n")).toHaveLength(1);
  });

  test("a library without the libraries it needs is named with the missing one", async () => {
    const dir = folder("alone");
    copyFileSync(join(mx.libraryDir(), FILE), join(dir, FILE));
    const { err, exit } = await start({ OMLX_LIB_DIR: dir });
    expect(exit).toBe(1);
    expect(err).toContain("libmlx");
  });

  test("a library built from other declarations is refused before a call goes wrong", async () => {
    const dir = altered("signatures", CORE_SIGNATURES, "0123456789abcdef");
    const { err, exit } = await start({ OMLX_LIB_DIR: dir });
    expect(exit).toBe(1);
    expect(err).toContain(`(0123456789abcdef) than this program (${CORE_SIGNATURES})`);
  });

  test("another version of MLX than the one built for is told", async () => {
    const other = mx.version().replace(/\d$/, (digit) => String((Number(digit) + 1) % 10));
    const dir = altered("version", mx.version(), other);
    const { err, exit } = await start({ OMLX_LIB_DIR: dir });
    expect(exit).toBe(1);
    expect(err).toContain(`built for MLX ${other}, but MLX ${mx.version()} was loaded`);
  });

  test("the folder that main hands down comes before the development build", async () => {
    const dir = altered("handed", CORE_SIGNATURES, CORE_SIGNATURES);
    expect(await start({}, dir)).toEqual({ out: dir, err: "", exit: 0 });
    expect((await start({})).out).toBe(join(ROOT, "build/lib"));
  });
});
