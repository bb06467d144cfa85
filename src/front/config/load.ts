import { readFileSync } from "node:fs";
import { invalidRequest } from "#core/contract";
import { type Env, expandPath, modelsFolder, settingsFile } from "./paths.ts";
import {
  SETTING_NAMES,
  SETTINGS,
  type Setting,
  type SettingName,
  type Settings,
} from "./schema.ts";

/** What a command line says. */
export interface ParsedArgs {
  /** Raw values by setting; a list setting's uses are joined by commas. */
  readonly flags: ReadonlyMap<SettingName, string>;
  /** Everything that is no flag, in order. */
  readonly words: readonly string[];
}

export interface LoadedSettings {
  readonly settings: Settings;
  /** What was wrong in the settings file and is ignored, a sentence each. */
  readonly warnings: readonly string[];
}

const BY_FLAG = new Map<string, SettingName>(
  SETTING_NAMES.map((name) => [SETTINGS[name].flag, name]),
);

/**
 * Splits arguments into settings and words. Takes "--flag value" and "--flag=value"; "--" ends the flags; the last use of
 * a flag wins, those of a list add up.
 *
 * @throws {OmlxError} invalid_request: an unknown flag, or one without a value
 */
export function parseArgs(args: readonly string[]): ParsedArgs {
  const flags = new Map<SettingName, string>();
  const words: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] ?? "";
    if (arg === "--") {
      words.push(...args.slice(i + 1));
      break;
    }
    if (!arg.startsWith("-") || arg === "-") {
      words.push(arg);
      continue;
    }
    const equals = arg.indexOf("=");
    const flag = equals < 0 ? arg : arg.slice(0, equals);
    const name = BY_FLAG.get(flag);
    if (name === undefined) throw unknownFlag(flag);
    let value = equals < 0 ? undefined : arg.slice(equals + 1);
    if (value === undefined) {
      value = args[++i];
      if (value === undefined || value.startsWith("--")) {
        throw invalidRequest(`${flag} needs a value: ${flag} ${SETTINGS[name].value}`, flag);
      }
    }
    const before = (SETTINGS[name] as Setting).isList ? flags.get(name) : undefined;
    flags.set(name, before === undefined ? value : `${before},${value}`);
  }
  return { flags, words };
}

function unknownFlag(flag: string) {
  const near = [...BY_FLAG.keys()]
    .map((known) => ({ known, distance: editDistance(flag, known) }))
    .sort((a, b) => a.distance - b.distance)[0];
  const hint = near && near.distance <= 3 ? `; did you mean ${near.known}?` : "";
  return invalidRequest(`Unknown flag ${JSON.stringify(flag)}${hint}`, flag);
}

/** Levenshtein's distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const swap = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(swap, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

/**
 * Every setting from the first source that names it: arguments, environment, settings file, default.
 *
 * An empty environment variable counts as absent. A wrong value in the file is a warning and its default is used, but a
 * key must never get lost that way: then it is an error.
 *
 * @param flags of parseArgs()
 * @throws {OmlxError} invalid_request: names the flag, variable or file and the value found
 */
export function loadSettings(
  flags: ParsedArgs["flags"] = new Map(),
  env: Env = process.env,
): LoadedSettings {
  const warnings: string[] = [];
  const values: Record<string, unknown> = {};
  const fromOutside = (name: SettingName): boolean => {
    const setting: Setting = SETTINGS[name];
    const flag = flags.get(name);
    const variable = env[setting.env];
    if (flag !== undefined) values[name] = check(setting, setting.flag, flag);
    else if (variable) values[name] = check(setting, setting.env, variable);
    else return false;
    return true;
  };

  if (!fromOutside("basePath")) values["basePath"] = SETTINGS.basePath.default;
  const basePath = expandPath(String(values["basePath"]), env);
  values["basePath"] = basePath;
  const path = settingsFile(basePath);
  const file = readSettingsFile(path, warnings);
  for (const name of SETTING_NAMES) {
    if (name === "basePath" || fromOutside(name)) continue;
    const setting: Setting = SETTINGS[name];
    values[name] = setting.default;
    const found = lookUp(file, setting.file);
    if (found === undefined || found === null) continue;
    try {
      values[name] = check(setting, `${setting.file} in ${path}`, found);
    } catch (error) {
      if (setting.isSecret || !(error instanceof Error)) throw error;
      warnings.push(`${error.message}; using the default`);
    }
  }
  const dirs = values["modelDir"] as readonly string[];
  values["modelDir"] =
    dirs.length > 0 ? dirs.map((dir) => expandPath(dir, env)) : [modelsFolder(basePath)];
  return { settings: values as unknown as Settings, warnings };
}

function check(setting: Setting, place: string, value: unknown): unknown {
  const result = setting.schema.safeParse(value);
  if (result.success) return result.data;
  const shown = setting.isSecret ? "" : ` ${JSON.stringify(value)?.slice(0, 100)}`;
  const why = result.error.issues[0]?.message ?? "is not valid";
  throw invalidRequest(`Cannot use ${place}${shown}: it ${why}`, place);
}

/** The file's object; empty if there is none or it cannot be used. */
function readSettingsFile(path: string, warnings: string[]): unknown {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== "ENOENT" && code !== "ENOTDIR") {
      warnings.push(`Cannot read ${path} (${code ?? String(error)}); using defaults`);
    }
    return {};
  }
  try {
    return text.trim() === "" ? {} : JSON.parse(text);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    const message = `Cannot read ${path}: it is not valid JSON (${reason})`;
    if (text.includes("api_key")) throw invalidRequest(`${message}; it may hold an API key`);
    warnings.push(`${message}; using defaults`);
    return {};
  }
}

/** Value of "section.key", own properties only. */
function lookUp(file: unknown, path: string): unknown {
  let value = file;
  for (const key of path.split(".")) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) return undefined;
    value = (value as Record<string, unknown>)[key];
  }
  return value;
}

/** One line per setting, for a help text. */
export function describeSettings(): string {
  const rows = SETTING_NAMES.map((name) => {
    const s: Setting = SETTINGS[name];
    const isPlain = typeof s.default === "string" || typeof s.default === "number";
    const shown = isPlain && s.default !== "" && s.default !== 0 ? ` (default: ${s.default})` : "";
    return [`  ${s.flag} ${s.value}`, `${s.doc}${shown} [${s.env}]`] as const;
  });
  const width = Math.min(44, Math.max(...rows.map(([left]) => left.length)) + 2);
  return rows.map(([left, right]) => `${left.padEnd(width)}  ${right}`).join("\n");
}
