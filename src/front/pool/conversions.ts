import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { ModelEntry } from "#core/contract";
import { GGUF_CONVERTER, ggufFiles, readJsonFile } from "#core/formats";
import { log } from "#core/log";
import { convertModel } from "#front/engine";

/** What a converted folder was made of; lies beside it as "<folder>.json". */
interface Origin {
  /** The GGUF file, or the first of its parts. */
  readonly source: string;
  readonly identity: string;
}

/**
 * Converted copies of GGUF models: a folder each, named by the identity of its source (path, size and time of every part)
 * and the converter's version, so that a changed file is converted again. Copies whose source is gone go, too.
 */
export class Conversions {
  readonly #folder: string;
  readonly #command: readonly string[];
  readonly #stallTimeoutMs: number;

  /** @param folder made when needed */
  constructor(folder: string, command: readonly string[], stallTimeoutMs: number) {
    this.#folder = folder;
    this.#command = command;
    this.#stallTimeoutMs = stallTimeoutMs;
  }

  /**
   * The folder to load a model from: its own, or the converted copy, made now if it is not there yet.
   *
   * @throws {OmlxError} model_load; the signal's reason
   */
  async folderOf(entry: ModelEntry, signal: AbortSignal): Promise<string> {
    if (!isGguf(entry.path)) return entry.path;
    const identity = identityOf(entry.path);
    const folder = join(
      this.#folder,
      `${basename(entry.path).replace(/\.gguf$/i, "")}-${identity}`,
    );
    if (exists(join(folder, "config.json"))) return folder;
    const begun = performance.now();
    log.info("model is being converted", { model: entry.id, from: basename(entry.path) });
    mkdirSync(this.#folder, { recursive: true });
    await this.#prune();
    const origin: Origin = { source: entry.path, identity };
    writeFileSync(`${folder}.json`, JSON.stringify(origin));
    const changes = await convertModel(
      {
        name: entry.id,
        command: this.#command,
        source: entry.path,
        folder,
        stallTimeoutMs: this.#stallTimeoutMs,
      },
      signal,
    );
    const ms = Math.round(performance.now() - begun);
    const weights = changes.length === 0 ? "without loss" : changes.join(", ");
    log.info("model is converted", { model: entry.id, ms, weights });
    return folder;
  }

  /** Removes copies whose source changed or is gone, and what ended processes left half done. */
  async #prune(): Promise<void> {
    for (const name of readdirSync(this.#folder)) {
      const path = join(this.#folder, name);
      const part = /\.part-(\d+)$/.exec(name);
      if (part !== null) {
        if (!isAlive(Number(part[1]))) await rm(path, { recursive: true, force: true });
        continue;
      }
      if (!name.endsWith(".json")) continue;
      if (isCurrent(path)) continue;
      rmSync(path, { force: true });
      await rm(path.slice(0, -".json".length), { recursive: true, force: true });
      log.info("converted model is removed: its source changed", { folder: name });
    }
  }
}

export const isGguf = (path: string): boolean => /\.gguf$/i.test(path);

function isCurrent(originFile: string): boolean {
  try {
    const origin = readJsonFile(originFile);
    const { source, identity } = origin ?? {};
    return typeof source === "string" && identity === identityOf(source);
  } catch {
    return false; // no origin that could be read: nothing can ever ask for its folder
  }
}

/** @throws {OmlxError} model_load: a part is missing */
function identityOf(path: string): string {
  const hash = createHash("sha256").update(GGUF_CONVERTER);
  for (const file of ggufFiles(path)) {
    const { size, mtimeMs } = statSync(join(dirname(path), file));
    hash.update(`\0${join(dirname(path), file)}\0${size}\0${mtimeMs}`);
  }
  return hash.digest("hex").slice(0, 16);
}

function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
