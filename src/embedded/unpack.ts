import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { homedir, tmpdir, userInfo } from "node:os";
import { dirname, join } from "node:path";
import { EMBEDDED_FILES, EMBEDDED_HASH } from "./files.ts";

/** Folders of the unpacked files; undefined where the binary carries none. */
export interface EmbeddedAssets {
  readonly libraryDir?: string | undefined;
  /** Holds one folder per model. */
  readonly modelsDir?: string | undefined;
}

/**
 * Unpacks what the binary carries into a cache folder named by its content, once: a later start only looks. Staged and
 * renamed, so that a half-written folder is never used.
 *
 * @throws {Error} when no folder can be written
 */
export function unpackEmbedded(): EmbeddedAssets {
  if (EMBEDDED_FILES.length === 0) return {};
  const tried: string[] = [];
  for (const base of [join(homedir(), ".cache", "omlx"), join(tmpdir(), `omlx-${userId()}`)]) {
    try {
      return assetsIn(unpackInto(base));
    } catch (error) {
      tried.push(`${base} (${error instanceof Error ? error.message : String(error)})`);
    }
  }
  throw new Error(`Cannot unpack the files of this binary: ${tried.join("; ")}`);
}

function unpackInto(base: string): string {
  const target = join(base, EMBEDDED_HASH.slice(0, 16));
  if (isComplete(target)) return target;
  mkdirSync(base, { recursive: true, mode: 0o700 });
  const info = lstatSync(base);
  if (!info.isDirectory() || (process.getuid && info.uid !== process.getuid())) {
    throw new Error("the folder belongs to somebody else");
  }
  const staging = mkdtempSync(join(base, "unpack-"));
  try {
    for (const file of EMBEDDED_FILES) {
      const path = join(staging, file.name);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, readFileSync(file.source));
      if (file.name.startsWith("lib/")) chmodSync(path, 0o755);
    }
    if (existsSync(target) && !isComplete(target)) rmSync(target, { recursive: true, force: true });
    renameSync(staging, target);
  } catch (error) {
    rmSync(staging, { recursive: true, force: true });
    if (!isComplete(target)) throw error; // else another process was faster
  }
  return target;
}

function isComplete(folder: string): boolean {
  return EMBEDDED_FILES.every((file) => {
    const info = statSync(join(folder, file.name), { throwIfNoEntry: false });
    return info?.isFile() && info.size === file.bytes;
  });
}

function assetsIn(folder: string): EmbeddedAssets {
  const has = (dir: string) => EMBEDDED_FILES.some((file) => file.name.startsWith(`${dir}/`));
  return {
    libraryDir: has("lib") ? join(folder, "lib") : undefined,
    modelsDir: has("models") ? join(folder, "models") : undefined,
  };
}

function userId(): string {
  try {
    return String(userInfo().uid);
  } catch {
    return "user"; // no entry in the user database
  }
}
