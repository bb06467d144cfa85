import { existsSync } from "node:fs";
import { join } from "node:path";
import { invalidRequest } from "#core/contract";
import { type LogLevel, log, setLogLevel } from "#core/log";
import { loadSettings, parseArgs, type Settings } from "#front/config";
import { createPool, type Pool } from "#front/pool";
import { setWorkerUrl } from "#front/text";
import type { CliContext } from "./commands.ts";

export interface Opened {
  readonly settings: Settings;
  readonly pool: Pool;
  /** Everything on the command line that is no flag. */
  readonly words: readonly string[];
}

/**
 * What every command begins with: settings from all their sources, the log, and a pool over the models on disk. No model
 * is loaded.
 *
 * @param quiet the log's level unless another one is set
 * @throws {OmlxError} invalid_request: the command line is wrong
 */
export async function openPool(
  args: readonly string[],
  context: CliContext,
  quiet?: LogLevel,
): Promise<Opened> {
  const { flags, words } = parseArgs(args);
  const { settings, warnings } = loadSettings(flags);
  const isUnsaid = !flags.has("logLevel") && settings.logLevel === "info";
  setLogLevel(isUnsaid && quiet !== undefined ? quiet : settings.logLevel);
  for (const warning of warnings) log.warning(warning);
  setWorkerUrl(context.textWorkerUrl);
  const bundledDir = context.bundledModels() ?? builtModels();
  return { settings, words, pool: await createPool({ settings, bundledDir }) };
}

/** Where a source tree keeps the model that a binary would carry. */
function builtModels(): string | undefined {
  const folder = join(import.meta.dir, "..", "..", "..", "build", "models");
  return !import.meta.dir.startsWith("/$bunfs") && existsSync(folder) ? folder : undefined;
}

/** A command's own flag, taken out of its arguments. */
export interface OwnFlag {
  readonly flag: `--${string}`;
  /** "N": the flag has a value; "": it has none. */
  readonly value: string;
  readonly doc: string;
}

/**
 * Splits off a command's own flags. Takes "--flag value" and "--flag=value"; "--" ends the flags.
 *
 * @returns values by flag ("" for one without a value), and the other arguments in order
 * @throws {OmlxError} invalid_request: a flag without its value
 */
export function takeFlags(args: readonly string[], own: readonly OwnFlag[]) {
  const taken = new Map<string, string>();
  const rest: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] ?? "";
    if (arg === "--") {
      rest.push(...args.slice(i));
      break;
    }
    const equals = arg.indexOf("=");
    const name = equals < 0 ? arg : arg.slice(0, equals);
    const known = own.find(({ flag }) => flag === name);
    if (known === undefined) {
      rest.push(arg);
      continue;
    }
    const value = equals >= 0 ? arg.slice(equals + 1) : known.value === "" ? "" : args[++i];
    if (value === undefined) throw invalidRequest(`${name} needs a value: ${name} ${known.value}`);
    taken.set(name, value);
  }
  return { taken, rest };
}
