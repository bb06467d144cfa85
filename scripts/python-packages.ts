/** The Python clients that the end-to-end tests use: installed once with pip, kept beside the wheels. */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cacheDir, run } from "./wheels.ts";

const REQUIREMENTS = join(import.meta.dir, "..", "test", "python", "requirements.txt");

/**
 * The folder that holds test/python/requirements.txt's packages, for PYTHONPATH. A folder instead of a virtual environment:
 * it needs nothing but pip and may be renamed.
 *
 * @throws {Error} when pip cannot get them
 */
export async function pythonPackages(): Promise<string> {
  const key = createHash("sha256")
    .update(readFileSync(REQUIREMENTS))
    .update(await interpreter());
  const parent = join(cacheDir(), "python");
  const target = join(parent, key.digest("hex").slice(0, 16));
  if (existsSync(target)) return target;
  mkdirSync(parent, { recursive: true });
  const work = mkdtempSync(join(parent, "install-"));
  try {
    const command = [
      ...["python3", "-m", "pip", "install", "--disable-pip-version-check", "--quiet"],
      ...["--target", work, "--requirement", REQUIREMENTS],
    ];
    await run(command, "cannot install the tests' Python packages");
    renameSync(work, target);
  } catch (error) {
    // another run was faster
    if (!existsSync(target)) throw error;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return target;
}

/** Wheels differ by version and machine. */
async function interpreter(): Promise<string> {
  const code = "import sys, sysconfig; print(sys.version, sysconfig.get_platform())";
  const child = Bun.spawn(["python3", "-c", code], { stdout: "pipe", stderr: "inherit" });
  return await new Response(child.stdout).text();
}

if (import.meta.main) await pythonPackages();
