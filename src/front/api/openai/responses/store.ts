import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { log } from "#core/log";
import { HttpError } from "../../error-handler.ts";
import type { OutputItem, ResponseObject } from "./output-codec.ts";
import type { InputItem } from "./schemas.ts";

/** A response that can be asked for again and continued. */
export interface StoredResponse {
  readonly response: ResponseObject;
  /** The items of its own request, each with an id; not those of earlier turns. */
  readonly input: readonly InputItem[];
}

export interface StoreLimits {
  readonly entries: number;
  /** Of all files together. */
  readonly bytes: number;
}

const LIMITS: StoreLimits = { entries: 1000, bytes: 256 * 2 ** 20 };
/** How many responses are read in search of an item. */
const ITEM_SEARCH = 50;
const ID = /^resp_[0-9a-f]{32}$/;

/**
 * Responses by id, a file each, so that they outlive the server. Bounded: what was not used for longest goes first.
 *
 * A folder that cannot be written to costs the memory of a restart, never an answer.
 */
export class ResponseStore {
  readonly #folder: string;
  readonly #limits: StoreLimits;
  /** Bytes by id, least recently used first. */
  readonly #sizes = new Map<string, number>();
  /** What could not be written, or not yet. */
  readonly #held = new Map<string, string>();
  #bytes = 0;
  #ready: Promise<void>;
  #isWarned = false;

  /** @param folder made when it is first needed */
  constructor(folder: string, limits: StoreLimits = LIMITS) {
    this.#folder = folder;
    this.#limits = limits;
    this.#ready = this.#scan();
  }

  async put(id: string, stored: StoredResponse): Promise<void> {
    await this.#ready;
    const json = JSON.stringify(stored);
    this.#held.set(id, json);
    this.#use(id, Buffer.byteLength(json));
    await this.#evict();
    if (!this.#held.has(id)) return;
    try {
      await mkdir(this.#folder, { recursive: true, mode: 0o700 });
      const staged = join(this.#folder, `.${id}.${crypto.randomUUID()}`);
      await writeFile(staged, json, { mode: 0o600 });
      await rename(staged, this.#path(id));
      if (this.#held.get(id) === json) this.#held.delete(id);
      if (!this.#sizes.has(id)) await rm(this.#path(id), { force: true }); // deleted meanwhile
    } catch (error) {
      if (!this.#isWarned) log.warning("cannot keep responses on disk", { error: String(error) });
      this.#isWarned = true;
    }
  }

  async get(id: string): Promise<StoredResponse | undefined> {
    await this.#ready;
    const size = this.#sizes.get(id);
    if (!ID.test(id) || size === undefined) return undefined;
    this.#use(id, size);
    try {
      const json = this.#held.get(id) ?? (await readFile(this.#path(id), "utf8"));
      return JSON.parse(json) as StoredResponse;
    } catch {
      await this.delete(id); // its file is gone or damaged
      return undefined;
    }
  }

  /** @returns false if there is no such response */
  async delete(id: string): Promise<boolean> {
    await this.#ready;
    const size = this.#sizes.get(id);
    if (size === undefined) return false;
    this.#sizes.delete(id);
    this.#held.delete(id);
    this.#bytes -= size;
    await rm(this.#path(id), { force: true }).catch(() => {});
    return true;
  }

  /**
   * Everything said up to and including a response, oldest first: the items of each request, then its output.
   *
   * @throws {HttpError} 404: it is not stored; 409: one before it is not
   */
  async history(id: string): Promise<InputItem[]> {
    const turns: InputItem[][] = [];
    const seen = new Set<string>();
    for (let next: string | null = id; next !== null; ) {
      const stored: StoredResponse | undefined = seen.has(next) ? undefined : await this.get(next);
      if (stored === undefined) throw missing(id, seen.size === 0);
      seen.add(next);
      turns.push([...stored.input, ...(stored.response.output as readonly InputItem[])]);
      const previous: unknown = stored.response["previous_response_id"];
      next = typeof previous === "string" ? previous : null;
    }
    return turns.reverse().flat();
  }

  /** The item with this id in the responses used last. */
  async item(id: string): Promise<InputItem | OutputItem | undefined> {
    for (const response of [...this.#sizes.keys()].reverse().slice(0, ITEM_SEARCH)) {
      const stored = await this.get(response);
      const all = [...(stored?.response.output ?? []), ...(stored?.input ?? [])];
      const found = all.find((item) => item.id === id);
      if (found) return found;
    }
    return undefined;
  }

  #path(id: string): string {
    return join(this.#folder, `${id}.json`);
  }

  #use(id: string, size: number): void {
    this.#bytes += size - (this.#sizes.get(id) ?? 0);
    this.#sizes.delete(id);
    this.#sizes.set(id, size);
  }

  async #evict(): Promise<void> {
    for (const id of [...this.#sizes.keys()]) {
      if (this.#sizes.size <= this.#limits.entries && this.#bytes <= this.#limits.bytes) return;
      await this.delete(id);
    }
  }

  /** What earlier runs left; files that are not ours or were not finished are removed or left alone. */
  async #scan(): Promise<void> {
    const names = await readdir(this.#folder).catch(() => []);
    const files = await Promise.all(
      names.map(async (name) => {
        if (name.startsWith(".resp_")) await rm(join(this.#folder, name), { force: true });
        const id = name.endsWith(".json") ? name.slice(0, -".json".length) : "";
        const info = ID.test(id) ? await stat(join(this.#folder, name)).catch(() => null) : null;
        return info ? { id, size: info.size, time: info.mtimeMs } : null;
      }),
    );
    const known = files.filter((file) => file !== null).sort((a, b) => a.time - b.time);
    for (const { id, size } of known) this.#use(id, size);
    this.#ready = Promise.resolve();
    await this.#evict();
  }
}

function missing(asked: string, isAsked: boolean): HttpError {
  const shown = JSON.stringify(asked.slice(0, 100));
  if (!isAsked) {
    const message = `The conversation before response ${shown} is no longer stored in full`;
    return new HttpError(409, message, "previous_response_incomplete");
  }
  const message = `Response ${shown} is not stored: it may have been deleted or evicted, or was made with "store": false`;
  return new HttpError(404, message, "previous_response_not_found");
}
