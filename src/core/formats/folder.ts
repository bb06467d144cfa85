import { readFileSync, readSync } from "node:fs";
import { basename, join } from "node:path";
import { ids, type ModelConfig, normalizeConfig, unique } from "./config.ts";
import { Fields, type JsonObject, loadError, parseJsonObject } from "./fields.ts";

/** What generation_config.json recommends; a request overrides each. */
export interface GenerationDefaults {
  readonly temperature?: number | undefined;
  readonly topP?: number | undefined;
  readonly topK?: number | undefined;
  readonly minP?: number | undefined;
  readonly repetitionPenalty?: number | undefined;
}

/** A model folder's small JSON files. */
export interface ModelFolder {
  readonly config: ModelConfig;
  /** Of config.json and generation_config.json. */
  readonly eosIds: readonly number[];
  readonly generation: GenerationDefaults;
}

/**
 * Reads config.json and, if there is one, generation_config.json.
 *
 * @throws {OmlxError} model_load
 */
export function readModelFolder(folder: string): ModelFolder {
  const file = readJsonFile(join(folder, "config.json"));
  if (file === null) throw loadError(`Cannot load "${basename(folder)}": config.json is missing`);
  const config = normalizeConfig(file);
  const generation = readJsonFile(join(folder, "generation_config.json")) ?? {};
  return {
    config,
    eosIds: unique([...config.eosIds, ...ids(generation["eos_token_id"])]),
    generation: readDefaults(generation),
  };
}

/** Sampling defaults. do_sample: false means argmax, whatever else the file says. */
function readDefaults(raw: JsonObject): GenerationDefaults {
  const f = new Fields(raw, "generation_config.json");
  const isGreedy = f.bool("do_sample") === false;
  return {
    temperature: isGreedy ? 0 : f.number("temperature"),
    topP: f.number("top_p"),
    topK: f.number("top_k"),
    minP: f.number("min_p"),
    repetitionPenalty: f.number("repetition_penalty"),
  };
}

/** Text of a file; null if there is none. */
export function readTextFile(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (isErrno(error, "ENOENT")) return null;
    throw loadError(`Cannot read ${basename(path)}: ${reasonOf(error)}`, error);
  }
}

/** The object in a JSON file; null if there is no such file. */
export function readJsonFile(path: string): JsonObject | null {
  const text = readTextFile(path);
  return text === null ? null : parseJsonObject(text, basename(path));
}

export function isErrno(error: unknown, code: string): boolean {
  return error instanceof Error && (error as NodeJS.ErrnoException).code === code;
}

export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Bytes [offset, offset + length) of an open file, or fewer where it ends. */
export function readAt(fd: number, offset: number, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  let done = 0;
  while (done < length) {
    const count = readSync(fd, bytes, done, length - done, offset + done);
    if (count === 0) break;
    done += count;
  }
  return bytes.subarray(0, done);
}
