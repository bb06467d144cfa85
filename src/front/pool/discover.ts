import type { Stats } from "node:fs";
import { readdir, realpath, stat } from "node:fs/promises";
import { basename, dirname, join, sep } from "node:path";
import type { ModelEntry, ModelKind } from "#core/contract";
import {
  foreignQuantization,
  ggufFiles,
  ggufPart,
  inspectGguf,
  listWeightFiles,
  type ModelConfig,
  normalizeConfig,
  positionsOf,
  readJsonFile,
  readSafetensorsHeader,
  readSentencePipeline,
} from "#core/formats";
import { classify } from "./classify.ts";
import { isGguf } from "./conversions.ts";

/** Files that a download leaves behind until it is done. */
const PARTIAL = /\.(?:part|partial|incomplete|download|crdownload|aria2|tmp)$/i;

/** Weights as older checkpoints keep them. */
const isPickle = (name: string): boolean =>
  /^(?:pytorch_model|model|consolidated).*\.(?:bin|pth?)$/.test(name);

/** A folder as it was looked at last. */
interface Seen {
  readonly signature: string;
  readonly entry: ModelEntry;
}

/**
 * The models below some folders, one or two levels deep ("name", "group/name"); a folder may also be a model itself.
 *
 * A model is a folder with config.json and safetensors files, or a GGUF file: the only one of a folder goes by the folder's
 * name, else by its own. Unfinished downloads, folders without weights, adapters and
 * hidden folders are no models. What is broken is listed with its problem. Where two have the same id the first wins.
 */
export class Catalog {
  readonly #roots: readonly string[];
  readonly #contextWindow: number;
  readonly #kinds: ReadonlyMap<string, ModelKind>;
  #entries: readonly ModelEntry[] = [];
  #seen = new Map<string, Seen>();
  #scan: Promise<void> | undefined;
  #scannedAt = Number.NEGATIVE_INFINITY;

  /**
   * @param roots         absolute paths, searched in order; missing ones are empty
   * @param contextWindow upper bound of every entry's window; 0: none
   * @param kinds         what models are for where their files do not say it right, by id
   */
  constructor(
    roots: readonly string[],
    contextWindow: number,
    kinds: ReadonlyMap<string, ModelKind> = new Map(),
  ) {
    this.#roots = roots;
    this.#kinds = kinds;
    this.#contextWindow = contextWindow;
  }

  /** As of the last scan; an unchanged folder keeps its object. */
  get entries(): readonly ModelEntry[] {
    return this.#entries;
  }

  /** Time since the last scan. */
  get ageMs(): number {
    return performance.now() - this.#scannedAt;
  }

  /** Looks again; folders that have not changed cost two stat calls. Never rejects. */
  refresh(): Promise<void> {
    this.#scan ??= this.#rescan().finally(() => {
      this.#scan = undefined;
    });
    return this.#scan;
  }

  async #rescan(): Promise<void> {
    const seen = new Map<string, Seen>();
    const found = new Map<string, ModelEntry>();
    for (const root of this.#roots) {
      for await (const entry of this.#models(root, seen)) {
        if (!found.has(entry.id)) found.set(entry.id, entry);
      }
    }
    this.#seen = seen;
    this.#entries = [...found.values()];
    this.#scannedAt = performance.now();
  }

  async *#models(root: string, seen: Map<string, Seen>): AsyncGenerator<ModelEntry> {
    const single = await this.#look(root, basename(root), seen);
    if (single !== "group") {
      if (single) yield single;
      return;
    }
    for (const file of await ggufsIn(root)) {
      yield await this.#lookAtFile(join(root, file), stemOf(file), seen);
    }
    for (const name of await subfolders(root)) {
      const path = join(root, name);
      const model = await this.#look(path, name, seen);
      if (model === "group") {
        if (await leadsBack(path, root)) continue;
        yield* this.#ggufs(path, name, seen);
        for (const child of await subfolders(path)) {
          const id = `${name}/${child}`;
          const inner = await this.#look(join(path, child), id, seen);
          if (inner === "group") yield* this.#ggufs(join(path, child), id, seen);
          else if (inner) yield inner;
        }
      } else if (model) {
        yield model;
      }
    }
  }

  /** The GGUF files of a folder with an id of its own. */
  async *#ggufs(path: string, id: string, seen: Map<string, Seen>): AsyncGenerator<ModelEntry> {
    const files = await ggufsIn(path);
    for (const file of files) {
      const own = files.length === 1 ? id : `${id}/${stemOf(file)}`;
      yield await this.#lookAtFile(join(path, file), own, seen);
    }
  }

  async #lookAtFile(path: string, id: string, seen: Map<string, Seen>): Promise<ModelEntry> {
    const parts = ggufFiles(path).map((name) => statOf(join(dirname(path), name)));
    const stats = await Promise.all(parts);
    const signature = `${id}|${textOf(stats)}`; // a folder's only file goes by another id than one of two
    const before = this.#seen.get(path);
    const created = Math.floor(Math.max(0, ...stats.map((s) => s?.mtimeMs ?? 0)) / 1000);
    const entry =
      before?.signature === signature
        ? before.entry
        : lookIntoGguf(path, id, created, this.#contextWindow);
    seen.set(path, { signature, entry });
    return entry;
  }

  /** The model in a folder, from memory if nothing changed. "group": no model, may hold some. */
  async #look(
    path: string,
    id: string,
    seen: Map<string, Seen>,
  ): Promise<ModelEntry | undefined | "group"> {
    const signature = await signatureOf(path);
    const before = this.#seen.get(path);
    if (before && before.signature === signature && before.entry.problem === undefined) {
      seen.set(path, before);
      return before.entry;
    }
    const asked = this.#kinds.get(id);
    const entry = await inspect(path, id, this.#contextWindow, asked);
    if (entry === "group" || entry === undefined) return entry;
    const isSame = before !== undefined && before.signature === signature;
    const kept = isSame && Bun.deepEquals(before.entry, entry) ? before.entry : entry;
    seen.set(path, { signature, entry: kept });
    return kept;
  }
}

/** Changes when a file is added to, removed from or renamed in a folder, or its config.json is written. */
async function signatureOf(path: string): Promise<string> {
  return textOf(await Promise.all([statOf(path), statOf(join(path, "config.json"))]));
}

/** Changes when any of the files does. */
const textOf = (stats: readonly (Stats | undefined)[]): string =>
  stats.map((s) => (s ? `${s.dev}:${s.ino}:${s.mtimeMs}:${s.size}` : "-")).join("|");

async function statOf(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch {
    return undefined; // gone, a dangling link, or not ours to see: as if it were not there
  }
}

async function filesOf(path: string): Promise<readonly string[]> {
  try {
    return (await readdir(path)).sort();
  } catch {
    return []; // missing or unreadable: it holds no model that could be served
  }
}

/** Names of the folders in a folder, links followed, hidden ones left out, sorted. */
async function subfolders(path: string): Promise<readonly string[]> {
  const names = (await filesOf(path)).filter((name) => !name.startsWith("."));
  const isFolder = await Promise.all(
    names.map(async (name) => (await statOf(join(path, name)))?.isDirectory() ?? false),
  );
  return names.filter((_, i) => isFolder[i]);
}

/** Whether a folder is the root or lies around it: a link in a circle. */
async function leadsBack(path: string, root: string): Promise<boolean> {
  try {
    const [there, here] = await Promise.all([realpath(path), realpath(root)]);
    return here === there || here.startsWith(there.endsWith(sep) ? there : there + sep);
  } catch {
    return true; // gone meanwhile
  }
}

async function inspect(
  path: string,
  id: string,
  contextLimit: number,
  asked: ModelKind | undefined,
): Promise<ModelEntry | undefined | "group"> {
  const files = await filesOf(path);
  const has = (suffix: string) => files.some((name) => name.endsWith(suffix));
  if (!files.includes("config.json")) return "group";
  if (!has(".safetensors") && files.some(isGguf)) return "group";
  if (files.includes("adapter_config.json") || files.some((name) => PARTIAL.test(name))) {
    return undefined;
  }
  if (!has(".safetensors") && !files.some(isPickle)) return undefined;

  if (!(await statOf(join(path, "config.json")))?.isFile()) return undefined;
  const base = { id, path, created: await newest(path, files) };
  const broken = { kind: "llm" as const, modelType: "", contextWindow: 0, weightBytes: 0 };
  try {
    const config = await readJsonFile(join(path, "config.json"));
    if (config === null) return undefined; // taken away meanwhile
    const { kind, modelType, problem } = classify(config, basename(path), files, asked);
    if (problem !== undefined) return { ...base, ...broken, kind, modelType, problem };
    const normal = normalizeConfig(config);
    const unreadable = has(".safetensors")
      ? foreignQuantization(normal)
      : "its weights are Python pickles; safetensors or GGUF files are needed";
    if (unreadable !== undefined) {
      return { ...base, ...broken, kind, modelType, problem: unreadable };
    }
    const max = windowOf(path, normal, kind);
    const contextWindow = contextLimit > 0 ? Math.min(max, contextLimit) : max;
    const model = { ...base, kind, modelType, contextWindow };
    try {
      const weightBytes = await checkWeights(path);
      if (files.includes("tokenizer.json")) return { ...model, weightBytes };
      return { ...model, weightBytes, problem: "tokenizer.json is missing" };
    } catch (error) {
      return { ...model, weightBytes: 0, problem: messageOf(error) };
    }
  } catch (error) {
    return { ...base, ...broken, problem: messageOf(error) };
  }
}

/** Tokens that a model takes at once. */
function windowOf(path: string, config: ModelConfig, kind: ModelKind): number {
  if (kind === "embedding") return readSentencePipeline(path, config).maxTokens;
  return kind === "reranker" ? positionsOf(config) : config.maxPositions;
}

/** Bytes of the weight files, each of which is whole. */
async function checkWeights(path: string): Promise<number> {
  let bytes = 0;
  for (const file of await listWeightFiles(path)) {
    await readSafetensorsHeader(file.path);
    bytes += file.byteLength;
  }
  return bytes;
}

/** The GGUF models of a folder: of several parts the first, no image encoders, no hidden files. */
async function ggufsIn(path: string): Promise<readonly string[]> {
  const names = (await filesOf(path)).filter(
    (name) => isGguf(name) && !/^\.|^mmproj/i.test(name) && (ggufPart(name)?.part ?? 1) === 1,
  );
  const isFile = await Promise.all(
    names.map(async (name) => (await statOf(join(path, name)))?.isFile() ?? false),
  );
  return names.filter((_, i) => isFile[i]);
}

const stemOf = (file: string): string =>
  file.replace(/\.gguf$/i, "").replace(/-\d{5}-of-\d{5}$/, "");

function lookIntoGguf(path: string, id: string, created: number, contextLimit: number): ModelEntry {
  const base = { id, path, kind: "llm" as const, created };
  try {
    const { modelType, maxPositions, weightBytes } = inspectGguf(path);
    const contextWindow = contextLimit > 0 ? Math.min(maxPositions, contextLimit) : maxPositions;
    return { ...base, modelType, contextWindow, weightBytes };
  } catch (error) {
    return { ...base, modelType: "", contextWindow: 0, weightBytes: 0, problem: messageOf(error) };
  }
}

async function newest(path: string, files: readonly string[]): Promise<number> {
  const stats = await Promise.all(files.map((name) => statOf(join(path, name))));
  return Math.floor(Math.max(0, ...stats.map((s) => s?.mtimeMs ?? 0)) / 1000);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
