import {
  type EncodeEvent,
  type EncodeRequest,
  type EngineStats,
  type FromDevice,
  type GrammarVocabulary,
  type LoadedInfo,
  type LoadOptions,
  OmlxError,
  type TokenEvent,
  type TokenRequest,
} from "#core/contract";
import { log } from "#core/log";
import { type Deferred, deferred } from "#core/util";
import { type Death, EngineChild } from "./child.ts";
import { Client } from "./client.ts";

export type EngineState = "starting" | "ready" | "restarting" | "dead";

/** One loaded model. Survives the deaths of its process. */
export interface Engine {
  /** Of the newest process that loaded. */
  readonly info: LoadedInfo;
  /** Of the newest process. */
  readonly pid: number;
  readonly state: EngineState;
  /** The process has made no step for half the time after which it is killed, though someone waits for it. */
  readonly isStalled: boolean;
  /** Processes that died so far. */
  readonly deaths: number;
  /** Requests running or waiting. */
  readonly open: number;
  /**
   * The events of one request; it reaches the engine at the first pull. Leaving the loop or aborting the signal cancels
   * it and waits for nothing.
   *
   * @throws {OmlxError} from the loop: overloaded, invalid_request (quarantined), cancelled, engine_dead, or the engine's own
   */
  generate(request: TokenRequest, signal: AbortSignal): AsyncIterable<TokenEvent>;
  /** What constraints need to know of the tokenizer; each process gets it before its first request with one. */
  teach(vocabulary: GrammarVocabulary): void;
  /** As generate(), for a model that turns texts into numbers. */
  encode(request: EncodeRequest, signal: AbortSignal): AsyncIterable<EncodeEvent>;
  /** @throws {OmlxError} engine_dead: no process that answers */
  stats(): Promise<EngineStats>;
  /** Ends the process and every open request. Resolves when it is gone. */
  stop(): Promise<void>;
}

export interface EngineOptions {
  /** Model id, for messages. */
  readonly name: string;
  /** Command line of the process: engineCommand(). */
  readonly command: readonly string[];
  readonly load: Omit<LoadOptions, "heartbeatPath">;
  /** Requests that may wait beyond those that run. */
  readonly maxQueue: number;
  /** Time without a step, while requests are open, after which the process is killed. */
  readonly stallTimeoutMs: number;
  /** Time without progress after which loading has failed. */
  readonly loadTimeoutMs: number;
  /** Time for a clean end; then the process is killed. */
  readonly stopTimeoutMs?: number;
}

/** Starts in a row that may fail before the engine is given up. */
const MAX_FAILED_STARTS = 3;
const STATS_TIMEOUT_MS = 2000;

/** Waiting time before the n-th start in a row without a finished request in between. */
export function backOffMs(deaths: number): number {
  return deaths <= 1 ? 0 : Math.min(250 * 2 ** (deaths - 2), 10_000);
}

/**
 * Starts a process and loads a model into it.
 *
 * @param signal ends the process while it loads; later only stop() does
 * @throws {OmlxError} model_load, or what the engine says about the model
 */
export async function startEngine(options: EngineOptions, signal?: AbortSignal): Promise<Engine> {
  const supervisor = new Supervisor(options);
  const onAbort = () => void supervisor.stop();
  signal?.throwIfAborted();
  signal?.addEventListener("abort", onAbort);
  try {
    await supervisor.start();
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
  return supervisor;
}

class Supervisor implements Engine {
  readonly #options: EngineOptions;
  readonly #client: Client;
  #child: EngineChild | undefined;
  #info: LoadedInfo | undefined;
  #state: EngineState = "starting";
  #isStalled = false;
  #isStopping = false;
  #deaths = 0;
  /** Deaths since a request finished. */
  #inRow = 0;
  #failedStarts = 0;
  #restart: Timer | undefined;
  #stats: Deferred<EngineStats>[] = [];

  constructor(options: EngineOptions) {
    this.#options = options;
    this.#client = new Client(options.load.maxRunning + options.maxQueue, () => {
      this.#inRow = 0;
    });
  }

  get info(): LoadedInfo {
    if (this.#info === undefined) throw new Error("The engine has not loaded");
    return this.#info;
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  get state(): EngineState {
    return this.#state;
  }

  get isStalled(): boolean {
    return this.#isStalled;
  }

  get deaths(): number {
    return this.#deaths;
  }

  get open(): number {
    return this.#client.size;
  }

  generate(request: TokenRequest, signal: AbortSignal): AsyncIterable<TokenEvent> {
    return this.#client.generate(request, signal);
  }

  teach(vocabulary: GrammarVocabulary): void {
    this.#client.teach(vocabulary);
  }

  encode(request: EncodeRequest, signal: AbortSignal): AsyncIterable<EncodeEvent> {
    return this.#client.encode(request, signal);
  }

  async stats(): Promise<EngineStats> {
    const child = this.#child;
    if (this.#state !== "ready" || child === undefined) throw this.#dead(`is ${this.#state}`);
    const answer = deferred<EngineStats>();
    this.#stats.push(answer);
    const timer = setTimeout(
      () => answer.reject(this.#dead(`did not answer for ${STATS_TIMEOUT_MS} ms`)),
      STATS_TIMEOUT_MS,
    );
    child.send({ kind: "stats" });
    try {
      return await answer.promise;
    } finally {
      clearTimeout(timer);
    }
  }

  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#state = "dead";
    clearTimeout(this.#restart);
    this.#client.fail(this.#dead("is being stopped"));
    this.#failStats();
    await this.#child?.stop(this.#options.stopTimeoutMs ?? 2000);
  }

  /** One process, up to its "loaded". Its death is handled from then on. */
  async start(): Promise<void> {
    const { name, command, load } = this.#options;
    const child = new EngineChild({
      name,
      command,
      load,
      onMessage: (message) => {
        if (this.#child === child) this.#receive(message);
      },
    });
    this.#child = child;
    const watchdog = this.#watch(child);
    const death = child.died.then((end) => {
      clearInterval(watchdog);
      return end;
    });
    try {
      this.#info = await child.loaded;
    } catch (error) {
      child.kill("loading failed");
      await death;
      throw error;
    }
    if (this.#isStopping) return;
    log.debug("engine is ready", { model: name, engine: child.pid });
    this.#state = "ready";
    this.#failedStarts = 0;
    this.#client.connect((message) => child.send(message));
    death.then(
      (end) => this.#onDeath(child, end),
      (error: unknown) => log.error("engine supervision failed", { reason: String(error) }),
    );
  }

  #receive(message: FromDevice): void {
    switch (message.kind) {
      case "step":
      case "encoded":
      case "failed":
      case "cancelled":
        this.#client.receive(message);
        return;
      case "stats":
        this.#stats.shift()?.resolve(message.stats);
        return;
      case "loaded":
      case "loadFailed":
      case "converting":
      case "converted":
        return; // the child's own
    }
  }

  #onDeath(child: EngineChild, death: Death): void {
    if (this.#isStopping) return;
    this.#deaths++;
    this.#inRow++;
    const { name } = this.#options;
    const inStep = child.heartbeat.batch;
    log.error("engine died", { model: name, engine: child.pid, cause: death.cause, inStep });
    this.#state = "restarting";
    this.#isStalled = false;
    this.#failStats();
    this.#client.disconnect(
      this.#dead(`died while it served this request (${death.cause}); it starts again, retry`),
      inStep,
    );
    this.#scheduleStart();
  }

  #scheduleStart(): void {
    const delay = backOffMs(this.#inRow);
    this.#restart = setTimeout(() => {
      this.start().catch((error: unknown) => this.#onFailedStart(error));
    }, delay);
  }

  #onFailedStart(error: unknown): void {
    if (this.#isStopping) return;
    const reason = error instanceof Error ? error.message : String(error);
    log.error("engine does not start again", { model: this.#options.name, reason });
    this.#inRow++;
    if (++this.#failedStarts < MAX_FAILED_STARTS) {
      this.#scheduleStart();
      return;
    }
    this.#state = "dead";
    this.#client.fail(this.#dead(`died and does not start again: ${reason}`));
  }

  /**
   * Kills a process whose step counter stands still for too long while someone waits for it.
   *
   * Time counts only as far as ticks come: when the whole machine slept, nobody is blamed for it.
   */
  #watch(child: EngineChild): Timer {
    const { stallTimeoutMs, loadTimeoutMs } = this.#options;
    const tickMs = Math.max(10, Math.min(stallTimeoutMs, loadTimeoutMs, 5000) / 10);
    let lastTick = performance.now();
    let lastStep = child.heartbeat.step;
    let stalledMs = 0;
    return setInterval(() => {
      const now = performance.now();
      const passed = Math.min(now - lastTick, 2 * tickMs);
      lastTick = now;
      const step = child.heartbeat.step;
      const isLoading = this.#state !== "ready";
      const isOwing =
        isLoading || child.heartbeat.isBusy || this.#client.isWaiting || this.#stats.length > 0;
      stalledMs = isOwing && step === lastStep ? stalledMs + passed : 0;
      lastStep = step;
      const limitMs = isLoading ? loadTimeoutMs : stallTimeoutMs;
      this.#isStalled = !isLoading && stalledMs >= limitMs / 2;
      if (stalledMs >= limitMs) child.kill(`no progress for ${limitMs / 1000} s`);
    }, tickMs).unref();
  }

  #failStats(): void {
    for (const answer of this.#stats) answer.reject(this.#dead("died"));
    this.#stats = [];
  }

  #dead(what: string): OmlxError {
    return new OmlxError({
      code: "engine_dead",
      message: `The engine of "${this.#options.name}" ${what}`,
      data: { retryAfterMs: 1000 },
    });
  }
}
