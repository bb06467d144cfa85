import { homedir } from "node:os";
import { join, resolve } from "node:path";

/** Environment variables by name. */
export type Env = Readonly<Record<string, string | undefined>>;

/** "~" and "~/…" lie in the home folder, everything else in the working folder. Absolute. */
export function expandPath(path: string, env: Env = process.env): string {
  if (path !== "~" && !path.startsWith("~/")) return resolve(path);
  return join(env["HOME"] || homedir(), path.slice(1));
}

/** Settings file of a base folder. */
export const settingsFile = (basePath: string): string => join(basePath, "settings.json");

/** Model folder of a base folder. */
export const modelsFolder = (basePath: string): string => join(basePath, "models");
