/**
 * Builds libomlxc against the pinned MLX wheel and puts it, with every library it needs, flat into build/lib.
 *
 *   bun scripts/native.ts
 */
import { createHash } from "node:crypto";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { cpus } from "node:os";
import { basename, join, relative } from "node:path";
import { HEADERS, readDeclarations, signatureDigest } from "./gen-symbols.ts";
import { fetchWheel, run, WHEELS, type Wheel } from "./wheels.ts";

const ROOT = join(import.meta.dir, "..");
const SOURCE = join(ROOT, "libmlxc");
const BUILD = join(ROOT, "build/native");
const LIB = join(ROOT, "build/lib");
const STAMP = join(ROOT, "build/lib.json");

export interface NativeLibraries {
  /** Absolute path of the folder that holds the libraries. */
  readonly dir: string;
  /** File names in it; they must stay together under these names. */
  readonly files: string[];
}

/** build/lib, up to date: nothing is done when sources and wheel are what they were. */
export async function buildNative(): Promise<NativeLibraries> {
  const wheel = wheelOfThisMachine();
  const files = filesOf(contentKey(wheel));
  if (files) return { dir: LIB, files };
  mkdirSync(join(ROOT, "build"), { recursive: true });
  const unlock = await lock(join(ROOT, "build/native.lock"));
  try {
    // another build may have done it, and the sources may have changed meanwhile
    const key = contentKey(wheel);
    return { dir: LIB, files: filesOf(key) ?? (await build(wheel, key)) };
  } finally {
    unlock();
  }
}

function wheelOfThisMachine(): Wheel {
  const name = `mlx-${process.platform}-${process.arch}`;
  const wheel = (WHEELS as Record<string, Wheel>)[name];
  if (!wheel) throw new Error(`no MLX wheel is known for ${process.platform} on ${process.arch}`);
  return wheel;
}

/** What the result depends on. */
function contentKey(wheel: Wheel): string {
  const hash = createHash("sha256");
  hash.update(`${wheel.name} ${wheel.version} ${wheel.sha256}\n`);
  for (const file of sourceFiles(SOURCE)) {
    hash.update(`${relative(SOURCE, file)}\n`);
    hash.update(readFileSync(file));
  }
  return hash.digest("hex");
}

function sourceFiles(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const path = join(dir, entry.name);
      if (entry.isDirectory()) return sourceFiles(path);
      return entry.name.endsWith(".md") ? [] : [path];
    });
}

/** The files of an earlier build with the same key, if they are still there. */
function filesOf(key: string): string[] | null {
  if (!existsSync(STAMP)) return null;
  const stamp = JSON.parse(readFileSync(STAMP, "utf8")) as { key: string; files: string[] };
  const complete = stamp.files.every((file) => existsSync(join(LIB, file)));
  return stamp.key === key && complete ? stamp.files : null;
}

async function build(wheel: Wheel, key: string): Promise<string[]> {
  const unpacked = await compile(wheel);
  const mlxRoot = join(unpacked, "mlx");
  const suffix = process.platform === "darwin" ? "dylib" : "so";
  const sources = [
    join(BUILD, `libomlxc.${suffix}`),
    ...libraries(join(mlxRoot, "lib")),
    // what auditwheel put beside the package
    ...readdirSync(unpacked)
      .filter((entry) => entry.endsWith(".libs"))
      .flatMap((entry) => libraries(join(unpacked, entry))),
  ];
  const files = sources.map((source) => basename(source));
  mkdirSync(LIB, { recursive: true });
  for (const entry of readdirSync(LIB)) {
    if (!files.includes(entry)) rmSync(join(LIB, entry), { recursive: true });
  }
  for (const source of sources) install(source, join(LIB, basename(source)));
  writeFileSync(STAMP, `${JSON.stringify({ key, files }, null, 2)}\n`);
  return files;
}

/** Runs CMake. Returns the wheel's folder. */
async function compile(wheel: Wheel, ...targets: readonly string[]): Promise<string> {
  const unpacked = await fetchWheel(wheel);
  const signatures = (header: string) => signatureDigest(readDeclarations(header));
  await run(
    [
      ...["cmake", "-S", SOURCE, "-B", BUILD, `-DMLX_ROOT=${join(unpacked, "mlx")}`],
      `-DOMLX_SIGNATURES=${signatures(HEADERS.core)}`,
      `-DOMLX_KERNEL_SIGNATURES=${signatures(HEADERS.kernels)}`,
    ],
    "cannot configure libmlxc; a C++20 compiler and CMake 3.20 are needed",
  );
  const jobs = String(Math.max(1, cpus().length));
  const chosen = targets.flatMap((target) => ["--target", target]);
  await run(["cmake", "--build", BUILD, "--parallel", jobs, ...chosen], "cannot build libmlxc");
  return unpacked;
}

/** Builds the kernels' test programs. Returns their folder; MLX is found in build/lib. */
export async function buildKernelTests(): Promise<string> {
  const unlock = await lock(join(ROOT, "build/native.lock"));
  try {
    await compile(wheelOfThisMachine(), "omlx_tests");
    return join(BUILD, "kernels");
  } finally {
    unlock();
  }
}

/** Libraries and Metal shaders in a folder. */
function libraries(dir: string): string[] {
  return readdirSync(dir)
    .filter((name) => /\.(so|dylib|metallib)(\.|$)/.test(name))
    .map((name) => join(dir, name));
}

/** Replaces the target as a whole: a process that has the old file mapped keeps it. */
function install(source: string, target: string): void {
  if (existsSync(target) && statSync(target).size === statSync(source).size) {
    if (readFileSync(target).equals(readFileSync(source))) return;
  }
  const staged = `${target}.new`;
  copyFileSync(source, staged);
  renameSync(staged, target);
}

/** Waits for another build in this folder to end. Returns the function that lets the next one in. */
async function lock(path: string): Promise<() => void> {
  for (;;) {
    try {
      writeFileSync(path, String(process.pid), { flag: "wx" });
      return () => rmSync(path, { force: true });
    } catch {
      if (isStale(path)) rmSync(path, { force: true });
      else await Bun.sleep(100);
    }
  }
}

/** Whether the process that made a lock is gone. */
function isStale(path: string): boolean {
  try {
    const holder = Number(readFileSync(path, "utf8"));
    if (holder > 0) return !isAlive(holder);
    // made, but not yet written: that takes no time
    return Date.now() - statSync(path).mtimeMs > 10_000;
  } catch {
    return false;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

if (import.meta.main) {
  try {
    const started = performance.now();
    const { dir, files } = await buildNative();
    const ms = Math.round(performance.now() - started);
    process.stdout.write(`${dir}: ${files.join(" ")} (${ms} ms)\n`);
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exit(1);
  }
}
