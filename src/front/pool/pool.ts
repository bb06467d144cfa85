import { dirname, join } from "node:path";
import {
  invalidRequest,
  type ModelEntry,
  type ModelKind,
  OmlxError,
  toErrorData,
} from "#core/contract";
import { log } from "#core/log";
import { type Deferred, deferred } from "#core/util";
import type { Settings } from "#front/config";
import { type Engine, type EngineState, engineCommand, startEngine } from "#front/engine";
import { openText, type TextModel } from "#front/text";
import { Conversions } from "./conversions.ts";
import { Catalog } from "./discover.ts";
import { cacheShare, formatBytes, memoryLimit, modelBytes } from "./memory.ts";
import { findByName, modelNotFound, standIn } from "./names.ts";
import { type Loaded, Slot } from "./slot.ts";

/** The right to use a loaded model; it stays loaded until every lease on it is given back. */
export interface Lease extends Disposable {
  readonly entry: ModelEntry;
  /** The name that was asked for means no model; this one answers for it. */
  readonly isStandIn: boolean;
  readonly text: TextModel;
  readonly engine: Engine;
}

export type ModelState = "unloaded" | "waiting" | "loading" | "unloading" | EngineState;

export interface ModelStatus {
  readonly id: string;
  readonly kind: ModelKind;
  readonly state: ModelState;
  /** Its engine makes no progress though someone waits for it. */
  readonly isStalled: boolean;
  /** Why it cannot be served, or why it did not load last time. */
  readonly problem?: string | undefined;
  /** Of its engine process; 0: none. */
  readonly pid: number;
  readonly leases: number;
  /** Requests in its engine, running or waiting. */
  readonly open: number;
  /** Times that its engine process died since it was loaded. */
  readonly deaths: number;
  /** Bytes that it takes while loaded, without keys and values. */
  readonly bytes: number;
}

export interface PoolStatus {
  /** false while an engine stands still, starts again or is dead. */
  readonly isReady: boolean;
  /** Id of the model that answers requests without a model name. */
  readonly defaultModel: string | null;
  readonly models: readonly ModelStatus[];
  readonly usedBytes: number;
  readonly limitBytes: number;
}

/** What a model is wanted for. */
export type Use = "generate" | "embed" | "rerank";

export interface Pool {
  /**
   * Leases the model that a name means, an empty name the default model; loads it if need be.
   *
   * @param signal ends the waiting; a load goes on for the next one
   * @param use    a model of another kind is not loaded for it
   * @throws {OmlxError} invalid_request (wrong kind), model_not_found, model_load, out_of_memory, overloaded (the server stops), cancelled
   */
  lease(model: string | undefined, signal: AbortSignal, use?: Use): Promise<Lease>;
  /** Every model on disk as of the last look; looks again behind the caller's back when that was a while ago. */
  list(): readonly ModelEntry[];
  /** The entry that a name means, among those of list(). */
  find(name: string): ModelEntry | undefined;
  /** Looks at the disk now. Never rejects. */
  refresh(): Promise<void>;
  status(): PoolStatus;
  /** Ends every engine and waits for it; nothing can be leased any more. */
  stop(): Promise<void>;
}

export interface PoolOptions {
  readonly settings: Settings;
  /** Folder that holds the folder of the model that comes with the program; searched last. */
  readonly bundledDir?: string | undefined;
  /** Command line of an engine process; by default this program's own. */
  readonly command?: readonly string[];
}

const STALE_MS = 1000;
/** A load that failed is not tried again before. */
const RETRY_MS = 5000;
/** A model that waits longer than this for memory stops newcomers on the model whose memory it needs. */
const DRAIN_AFTER_MS = 5000;

/** Looks for models, loads none. */
export async function createPool(options: PoolOptions): Promise<Pool> {
  const pool = new EnginePool(options);
  await pool.refresh();
  return pool;
}

class EnginePool implements Pool {
  readonly #settings: Settings;
  readonly #bundledDir: string | undefined;
  readonly #command: readonly string[];
  readonly #catalog: Catalog;
  readonly #conversions: Conversions;
  readonly #limitBytes: number;
  readonly #slots = new Map<string, Slot>();
  readonly #failures = new Map<string, { entry: ModelEntry; error: OmlxError; untilMs: number }>();
  /** Loads wait for memory one after the other. */
  #room: Promise<void> = Promise.resolve();
  /** Resolves at the next change of any slot. */
  #changed: Deferred<void> = deferred();
  #isStopping = false;

  constructor({ settings, bundledDir, command }: PoolOptions) {
    this.#settings = settings;
    this.#bundledDir = bundledDir;
    this.#command = command ?? engineCommand();
    const roots = bundledDir === undefined ? [] : [bundledDir];
    const { modelDir, contextWindow, modelKind } = settings;
    this.#catalog = new Catalog([...modelDir, ...roots], contextWindow, modelKind);
    this.#conversions = new Conversions(
      join(settings.basePath, "cache", "gguf"),
      this.#command,
      settings.loadTimeoutMs,
    );
    this.#limitBytes = memoryLimit(settings.memoryLimit);
  }

  list(): readonly ModelEntry[] {
    if (this.#catalog.ageMs > STALE_MS) void this.refresh();
    return this.#catalog.entries;
  }

  find(name: string): ModelEntry | undefined {
    return findByName(name, this.list());
  }

  refresh(): Promise<void> {
    return this.#catalog.refresh();
  }

  async lease(
    model: string | undefined,
    signal: AbortSignal,
    use: Use = "generate",
  ): Promise<Lease> {
    for (;;) {
      throwIfAborted(signal);
      if (this.#isStopping) throw stopping();
      const { entry, isStandIn } = await this.#resolve(model ?? "", use);
      const slot = this.#slotOf(entry);
      if (slot === undefined) {
        await orAborted(this.#changed.promise, signal);
        continue;
      }
      slot.leases++;
      try {
        const loaded = await orAborted(slot.ready.promise, signal);
        if (loaded.engine.state !== "dead") return this.#leaseOn(slot, loaded, isStandIn);
      } catch (error) {
        this.#giveBack(slot);
        // the load was given up because all who waited before had left
        if (isCancelled(error) && !signal.aborted) continue;
        throw error;
      }
      this.#giveBack(slot); // a dead engine leaves; the next turn loads a new one
    }
  }

  #leaseOn(slot: Slot, { text, engine }: Loaded, isStandIn: boolean): Lease {
    let isHeld = true;
    return {
      entry: slot.entry,
      isStandIn,
      text,
      engine,
      [Symbol.dispose]: () => {
        if (isHeld) this.#giveBack(slot);
        isHeld = false;
      },
    };
  }

  #giveBack(slot: Slot): void {
    slot.leases--;
    slot.lastUsed = performance.now();
    if (slot.isIdle && !this.#isCurrent(slot)) void this.#unload(slot);
    this.#notify();
  }

  /** @throws {OmlxError} model_not_found, model_load */
  async #resolve(name: string, use: Use): Promise<{ entry: ModelEntry; isStandIn: boolean }> {
    const pick = () =>
      name === "" ? this.#defaultEntry(use) : findByName(name, this.#catalog.entries);
    let entry = pick();
    const failure = entry && this.#failures.get(entry.id);
    if (entry === undefined || entry.problem !== undefined || failure !== undefined) {
      await this.refresh();
      entry = pick();
    } else if (this.#catalog.ageMs > STALE_MS) {
      void this.refresh();
    }
    const mayStandIn = use === "generate" && name !== "" && this.#settings.modelFallback;
    const isStandIn = entry === undefined && mayStandIn;
    if (isStandIn) entry = this.#standIn();
    if (entry === undefined) {
      if (name !== "") throw modelNotFound(name, this.#catalog.entries);
      throw new OmlxError({
        code: "model_not_found",
        message: `No model to ${VERBS[use]} with: put a model folder into the model folder (--model-dir)`,
        param: "model",
      });
    }
    if (entry.problem !== undefined) {
      throw new OmlxError({
        code: "model_load",
        message: `Cannot load model "${entry.id}": ${entry.problem}`,
        param: "model",
      });
    }
    checkUse(entry, use);
    this.#throwRecentFailure(entry);
    return { entry, isStandIn };
  }

  #standIn(): ModelEntry | undefined {
    const slots = [...this.#slots.values()].filter((slot) => this.#isCurrent(slot));
    const candidates = slots.map(({ entry, stage, lastUsed }) => ({
      entry,
      isLoaded: stage === "loading" || stage === "loaded",
      lastUsed,
    }));
    return standIn(candidates, this.#defaultEntry());
  }

  #throwRecentFailure(entry: ModelEntry): void {
    const failure = this.#failures.get(entry.id);
    if (failure === undefined) return;
    const leftMs = failure.untilMs - performance.now();
    if (leftMs <= 0 || failure.entry !== entry) {
      this.#failures.delete(entry.id);
      return;
    }
    const { code, message, param, data } = failure.error;
    throw new OmlxError({ code, message, param, data: { ...data, retryAfterMs: leftMs } });
  }

  /** The one that is set; else the only one of the user's; else the one that comes with the program; else the first. */
  #defaultEntry(use: Use = "generate"): ModelEntry | undefined {
    const entries = this.#catalog.entries;
    if (use !== "generate") {
      return entries.find((e) => e.problem === undefined && useOf(e.kind) === use);
    }
    const { defaultModel } = this.#settings;
    if (defaultModel !== "") {
      const entry = findByName(defaultModel, entries);
      if (entry === undefined) throw modelNotFound(defaultModel, entries);
      return entry;
    }
    const usable = entries.filter((e) => e.problem === undefined && /^(?:llm|vlm)$/.test(e.kind));
    const bundledDir = this.#bundledDir;
    const isBundled = (e: ModelEntry) =>
      bundledDir !== undefined && (e.path === bundledDir || dirname(e.path) === bundledDir);
    const own = usable.filter((entry) => !isBundled(entry));
    return own.length === 1 ? own[0] : (usable.find(isBundled) ?? usable[0]);
  }

  /** Whether a slot serves what lies on disk now, with a living engine. */
  #isCurrent(slot: Slot): boolean {
    if (slot.loaded?.engine.state === "dead") return false;
    return this.#catalog.entries.includes(slot.entry);
  }

  /** The model's slot, begun if there is none; undefined: wait for a change. */
  #slotOf(entry: ModelEntry): Slot | undefined {
    const slot = this.#slots.get(entry.id);
    if (slot === undefined) return this.#open(entry);
    if (slot.isIdle && !(this.#isCurrent(slot) && slot.entry === entry)) void this.#unload(slot);
    if (slot.loaded?.engine.state === "dead") return undefined;
    return slot.isOpen ? slot : undefined;
  }

  #open(entry: ModelEntry): Slot {
    const slot = new Slot(entry, modelBytes(entry));
    this.#slots.set(entry.id, slot);
    this.#load(slot).then(
      (loaded) => {
        slot.loaded = loaded;
        slot.stage = "loaded";
        slot.ready.resolve(loaded);
        this.#notify();
      },
      (error: unknown) => {
        this.#slots.delete(entry.id);
        const failure = asLoadError(entry, error);
        this.#noteFailure(entry, failure);
        slot.ready.reject(failure);
        this.#notify();
      },
    );
    return slot;
  }

  #noteFailure(entry: ModelEntry, error: OmlxError): void {
    if (isCancelled(error) || this.#isStopping) return;
    log.error("model does not load", { model: entry.id, reason: error.message });
    this.#failures.set(entry.id, { entry, error, untilMs: performance.now() + RETRY_MS });
  }

  async #load(slot: Slot): Promise<Loaded> {
    const path = await this.#conversions.folderOf(slot.entry, slot.abort.signal);
    const turn = this.#room.then(() => this.#makeRoom(slot));
    this.#room = turn.catch(() => {});
    await turn;
    const { entry } = slot;
    const s = this.#settings;
    const begun = performance.now();
    const textFailed = new AbortController();
    const [engine, text] = await Promise.allSettled([
      startEngine(
        {
          name: entry.id,
          command: this.#command,
          load: {
            purpose: entry.kind,
            modelPath: path,
            kernels: s.kernels,
            threads: s.threads,
            contextWindow: s.contextWindow,
            cacheBytes: slot.cacheBytes,
            maxRunning: s.maxConcurrentRequests,
            prefillTargetMs: s.prefillTargetMs,
          },
          maxQueue: s.maxQueue,
          stallTimeoutMs: s.stallTimeoutMs,
          loadTimeoutMs: s.loadTimeoutMs,
        },
        AbortSignal.any([slot.abort.signal, textFailed.signal]),
      ),
      openText({ ...entry, path }).catch((error: unknown) => {
        textFailed.abort();
        throw error;
      }),
    ]);
    if (engine.status === "fulfilled" && text.status === "fulfilled") {
      const ms = Math.round(performance.now() - begun);
      engine.value.teach(text.value.grammarVocabulary);
      log.info("model is loaded", { model: entry.id, engine: engine.value.pid, ms });
      return { engine: engine.value, text: text.value };
    }
    if (engine.status === "fulfilled") await engine.value.stop();
    if (text.status === "fulfilled") text.value.dispose();
    // an engine that was ended for the text's sake has nothing of its own to say
    throw text.status === "rejected" ? text.reason : (engine as PromiseRejectedResult).reason;
  }

  /** Unloads idle models, longest unused first, until the slot's model fits; waits for busy ones. */
  async #makeRoom(slot: Slot): Promise<void> {
    const since = performance.now();
    if (slot.bytes > this.#limitBytes) {
      throw new OmlxError({
        code: "out_of_memory",
        message: `Cannot load model "${slot.entry.id}": it needs ${formatBytes(slot.bytes)}, all models together may use ${formatBytes(this.#limitBytes)}`,
        data: { neededBytes: slot.bytes, freeBytes: this.#limitBytes },
      });
    }
    try {
      while (!this.#fits(slot)) {
        if (this.#isStopping) throw stopping();
        if (slot.leases === 0) throw cancelled();
        const victims = [...this.#slots.values()]
          .filter((other) => other.stage === "loaded")
          .sort((a, b) => a.lastUsed - b.lastUsed);
        const idle = victims.find((other) => other.isIdle);
        if (idle !== undefined) {
          await this.#unload(idle);
          continue;
        }
        const leftMs = DRAIN_AFTER_MS - (performance.now() - since);
        if (leftMs <= 0 && victims[0] !== undefined) victims[0].isDraining = true;
        await this.#change(leftMs);
      }
    } finally {
      for (const other of this.#slots.values()) other.isDraining = false;
      this.#notify();
    }
    if (this.#isStopping) throw stopping();
    slot.stage = "loading";
    const given = this.#holding().reduce((sum, other) => sum + other.cacheBytes, 0);
    slot.cacheBytes = cacheShare(
      this.#settings.cacheSize,
      this.#limitBytes - this.#usedBytes() - given,
    );
  }

  #fits(slot: Slot): boolean {
    const { maxLoadedModels } = this.#settings;
    if (maxLoadedModels > 0 && this.#holding().length >= maxLoadedModels) return false;
    return this.#usedBytes() + slot.bytes <= this.#limitBytes;
  }

  #holding(): Slot[] {
    return [...this.#slots.values()].filter((slot) => slot.isHolding);
  }

  #usedBytes(): number {
    return this.#holding().reduce((sum, slot) => sum + slot.bytes, 0);
  }

  async #unload(slot: Slot): Promise<void> {
    if (slot.stage !== "loaded") return;
    slot.stage = "leaving";
    log.info("model is unloaded", { model: slot.entry.id });
    await end(slot);
    this.#slots.delete(slot.entry.id);
    this.#notify();
  }

  /** Waits for a change of any slot, or for so long. */
  async #change(ms: number): Promise<void> {
    const timeout = deferred<void>();
    const timer = setTimeout(timeout.resolve, ms > 0 ? ms : DRAIN_AFTER_MS);
    await Promise.race([this.#changed.promise, timeout.promise]);
    clearTimeout(timer);
  }

  #notify(): void {
    this.#changed.resolve();
    this.#changed = deferred();
  }

  status(): PoolStatus {
    const entries = this.list();
    for (const slot of this.#slots.values()) {
      if (slot.isIdle && !this.#isCurrent(slot)) void this.#unload(slot);
    }
    const gone = [...this.#slots.values()].filter((slot) => !entries.includes(slot.entry));
    const shown = entries.filter((entry) => !gone.some((slot) => slot.entry.id === entry.id));
    const models = [
      ...shown.map((entry) => this.#statusOf(entry, this.#slots.get(entry.id))),
      ...gone.map((slot) => this.#statusOf(slot.entry, slot)),
    ];
    let defaultModel: string | null = null;
    try {
      defaultModel = this.#defaultEntry()?.id ?? null;
    } catch {
      // a default model that is set but not there: none
    }
    return {
      isReady: !models.some((m) => m.isStalled || m.state === "restarting" || m.state === "dead"),
      defaultModel,
      models,
      usedBytes: this.#usedBytes(),
      limitBytes: this.#limitBytes,
    };
  }

  #statusOf(entry: ModelEntry, slot: Slot | undefined): ModelStatus {
    const engine = slot?.loaded?.engine;
    return {
      id: entry.id,
      kind: entry.kind,
      state: stateOf(slot),
      isStalled: engine?.isStalled ?? false,
      problem: entry.problem ?? this.#failures.get(entry.id)?.error.message,
      pid: engine?.pid ?? 0,
      leases: slot?.leases ?? 0,
      open: engine?.open ?? 0,
      deaths: engine?.deaths ?? 0,
      bytes: modelBytes(entry),
    };
  }

  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#notify();
    const slots = [...this.#slots.values()];
    for (const slot of slots) slot.abort.abort(stopping());
    await Promise.allSettled(slots.map((slot) => slot.ready.promise));
    await Promise.all(slots.map(end));
    this.#slots.clear();
  }
}

const VERBS: Readonly<Record<Use, string>> = {
  generate: "answer",
  embed: "embed",
  rerank: "rerank",
};

const ROUTES: Readonly<Record<Use, string>> = {
  generate: "generates text: use POST /v1/chat/completions",
  embed: "embeds texts: use POST /v1/embeddings",
  rerank: "ranks documents: use POST /v1/rerank",
};

function useOf(kind: ModelKind): Use {
  return kind === "embedding" ? "embed" : kind === "reranker" ? "rerank" : "generate";
}

/** @throws {OmlxError} invalid_request, with the route that the model serves */
function checkUse({ id, kind }: ModelEntry, use: Use): void {
  const own = useOf(kind);
  if (own !== use) throw invalidRequest(`Model "${id}" ${ROUTES[own]}`, "model");
}

/** Gives back what a slot holds. Never rejects. */
async function end({ entry, loaded }: Slot): Promise<void> {
  try {
    loaded?.text.dispose();
  } catch (error) {
    log.error("text model does not end", { model: entry.id, reason: String(error) });
  }
  await loaded?.engine.stop();
}

/** Names the model; a given-up load stays as it is. What a client may act on keeps its code, everything else is a failed load. */
function asLoadError(entry: ModelEntry, error: unknown): OmlxError {
  if (error instanceof OmlxError && isCancelled(error)) return error;
  const { code, message, param, data } = toErrorData(error, "model_load");
  const start = `Cannot load model "${entry.id}"`;
  return new OmlxError(
    {
      code: code === "native" || code === "internal" ? "model_load" : code,
      message: message.startsWith(start) ? message : `${start}: ${message}`,
      param,
      data,
    },
    { cause: error },
  );
}

function stateOf(slot: Slot | undefined): ModelState {
  switch (slot?.stage) {
    case undefined:
      return "unloaded";
    case "loaded":
      return slot.loaded?.engine.state ?? "loading";
    case "leaving":
      return "unloading";
    case "waiting":
    case "loading":
      return slot.stage;
  }
}

/** The promise's outcome, or "cancelled" as soon as the signal says so. */
async function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = deferred<never>();
  const onAbort = () => aborted.reject(cancelled());
  throwIfAborted(signal);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

function throwIfAborted(signal: AbortSignal): void {
  if (signal.aborted) throw cancelled();
}

function isCancelled(error: unknown): boolean {
  return error instanceof OmlxError && error.code === "cancelled";
}

function cancelled(): OmlxError {
  return new OmlxError({ code: "cancelled", message: "The request was cancelled" });
}

function stopping(): OmlxError {
  return new OmlxError({ code: "overloaded", message: "The server is stopping" });
}
