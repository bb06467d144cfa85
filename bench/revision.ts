/** Which code was measured. */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "..");
/** Folders that the measured program is built from. */
const SOURCES = ["src", "libmlxc"];

export interface Revision {
  readonly commit: string;
  /** Sources differ from the commit. */
  readonly isChanged: boolean;
}

export function revision(): Revision {
  const git = (...args: string[]) =>
    Bun.spawnSync(["git", ...args], { cwd: ROOT })
      .stdout.toString()
      .trim();
  return {
    commit: git("rev-parse", "--short=12", "HEAD") || "unknown",
    isChanged: git("status", "--porcelain", "--", ...SOURCES) !== "",
  };
}

/** A source file is newer than `program`: its numbers may not be those of the code that is read beside them. */
export function isOutdated(program: string): boolean {
  if (program.endsWith(".ts")) return false;
  const built = statSync(program).mtimeMs;
  return SOURCES.some((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true }).some(
      (entry) => entry.isFile() && statSync(join(entry.parentPath, entry.name)).mtimeMs > built,
    ),
  );
}
