/**
 * Makes the project ready on a fresh machine, with nothing but Node: installs the packages of the lock file when it changed,
 * then lets build.ts do the rest. Everything that is already there is left alone.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

export const ROOT = fileURLToPath(new URL("..", import.meta.url));
export const BUN = join(ROOT, "node_modules", ".bin", "bun");

/** Runs a command in the project's folder with our standard streams; a failure ends this process. */
export function run(command, args, options = {}) {
  const result = spawnSync(command, args, { cwd: ROOT, stdio: "inherit", ...options });
  if (result.error) {
    console.error(`Cannot run ${command}: ${result.error.message}`);
    process.exit(1);
  }
  if (result.status !== 0) process.exit(result.status ?? 1);
}

/** Packages as the lock file says, then wheels, libmlxc, default model and dist/omlx. */
export function setUp() {
  const stamp = join(ROOT, "node_modules", ".omlx-lock");
  const lock = createHash("sha256")
    .update(readFileSync(join(ROOT, "package-lock.json")))
    .digest("hex");
  if (!existsSync(stamp) || readFileSync(stamp, "utf8") !== lock) {
    run("npm", ["install", "--no-save", "--no-audit", "--no-fund"], {
      shell: process.platform === "win32",
    });
    writeFileSync(stamp, lock);
  }
  run(BUN, ["build.ts"]);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) setUp();
