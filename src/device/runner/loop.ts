import {
  type Constraint,
  type EncodeRequest,
  type FromDevice,
  invalidRequest,
  type LoadedInfo,
  type LoadOptions,
  type StepEvent,
  type ToDevice,
  type TokenRequest,
  toErrorData,
} from "#core/contract";
import { convertGgufSteps } from "#core/formats";
import { log } from "#core/log";
import { Grammars } from "#device/grammar";
import * as mx from "#device/mlx";
import { randomSeed } from "#device/sample";
import { EncodeDesk } from "./encode.ts";
import { Guide } from "./guide.ts";
import { Heartbeat } from "./heartbeat.ts";
import { type LoadedModel, loadEncoder, loadModel } from "./load.ts";
import { Scheduler } from "./scheduler.ts";
import type { Steering } from "./sequence.ts";
import { applyEffects, step } from "./step.ts";

/** How often a conversion tells how far it is. */
const TELL_MS = 200;
/** How often an engine that only compiles grammars shows that it lives. */
const PULSE_MS = 500;
/** Tokens of a step that took less wait for those of the next ones: a message costs both processes up to a tenth of it. */
const QUICK_MS = 8;
/** No token waits longer for others: a frame of a screen. */
const FRAME_MS = 16;

/**
 * The message pump of an engine: takes messages between steps, runs a step, sends what it gave, until nothing is open.
 *
 * A thrown error that is no OmlxError is a fault in the books: it ends the engine, whose supervisor starts a new one.
 */
export class EngineLoop {
  readonly #write: (message: FromDevice) => void;
  readonly #ended = Promise.withResolvers<void>();
  /** Messages that came while the model loads. */
  #early: ToDevice[] | null = null;
  #loaded: LoadedModel | null = null;
  #scheduler: Scheduler | null = null;
  /** Instead of the two above where the model is an encoder. */
  #desk: EncodeDesk | null = null;
  #heartbeat: Heartbeat | null = null;
  #grammars: Grammars | null = null;
  /** Requests whose grammars are being compiled. */
  readonly #preparing = new Map<string, AbortController>();
  /** Tokens of the last steps that have not been sent, and since when there are any. */
  #held: readonly StepEvent[] = [];
  #heldSinceMs = 0;
  #pulse: Timer | undefined;
  #isTurnDue = false;
  #isEnded = false;

  constructor(send: (message: FromDevice) => void) {
    this.#write = send;
  }

  /** Settles when the engine has stopped and freed what it held; rejects if it broke. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /** Takes one message of the front; the first is "load" or "convert". */
  receive(message: ToDevice): void {
    if (this.#isEnded) return;
    if (message.kind === "shutdown") this.stop();
    else if (this.#early) this.#early.push(message);
    else this.#guard(() => this.#take(message));
  }

  /** Ends the engine between two steps. */
  stop(): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#heartbeat?.setBusy(false);
    this.#grammars?.dispose();
    clearInterval(this.#pulse);
    try {
      this.#free();
      this.#ended.resolve();
    } catch (error) {
      this.#ended.reject(error);
    }
  }

  #take(message: Exclude<ToDevice, { kind: "shutdown" }>): void {
    switch (message.kind) {
      case "convert":
        this.#convert(message).catch((error: unknown) => this.#break(error));
        return;
      case "load":
        this.#early = [];
        this.#load(message.options).catch((error: unknown) => this.#break(error));
        return;
      case "generate":
        if (message.request.constraint === null) this.#submit(message.request);
        else void this.#constrain(message.request, message.request.constraint);
        return;
      case "encode":
        this.#encode(message.request);
        return;
      case "vocabulary":
        this.#grammars?.teach(message.vocabulary);
        return;
      case "cancel":
        this.#cancel(message.id);
        return;
      case "stats":
        this.#send({ kind: "stats", stats: this.#stats() });
        return;
    }
  }

  async #convert({ source, folder }: { source: string; folder: string }): Promise<void> {
    try {
      mx.dieWithParent();
      const steps = convertGgufSteps(source, folder);
      let toldAt = 0;
      for (let step = steps.next(); ; step = steps.next()) {
        if (step.done === true) {
          this.#send({ kind: "converted", changes: step.value });
          break;
        }
        if (performance.now() - toldAt < TELL_MS) continue;
        this.#send({ kind: "converting", ...step.value });
        await Bun.sleep(0); // the message leaves, and one that ends this process comes in
        toldAt = performance.now();
        if (this.#isEnded) {
          steps.return([]);
          return;
        }
      }
    } catch (error) {
      this.#send({ kind: "loadFailed", error: toErrorData(error, "model_load") });
    }
    this.stop();
  }

  async #load(options: LoadOptions): Promise<void> {
    let info: LoadedInfo;
    try {
      mx.dieWithParent();
      const heartbeat = new Heartbeat(options.heartbeatPath);
      this.#heartbeat = heartbeat;
      heartbeat.setBusy(true);
      heartbeat.beat();
      const onStage = (stage: string) => {
        heartbeat.beat();
        log.debug("loading", { stage, model: options.modelPath });
      };
      const { purpose } = options;
      info =
        purpose === "embedding" || purpose === "reranker"
          ? await this.#openEncoder(options, purpose, heartbeat, onStage)
          : await this.#openModel(options, onStage);
      heartbeat.setBusy(false);
    } catch (error) {
      this.#send({ kind: "loadFailed", error: toErrorData(error, "model_load") });
      this.stop();
      return;
    }
    if (this.#isEnded) {
      this.#free();
      return;
    }
    this.#send({ kind: "loaded", info });
    const early = this.#early ?? [];
    this.#early = null;
    for (const message of early) this.receive(message);
  }

  /** Compiles the request's grammar first; others go on meanwhile. */
  async #constrain(request: TokenRequest, constraint: Constraint): Promise<void> {
    const { id } = request;
    const waiting = new AbortController();
    this.#preparing.set(id, waiting);
    // What waits for a grammar makes no steps, and yet gets on.
    this.#pulse ??= setInterval(() => this.#heartbeat?.beat(), PULSE_MS);
    try {
      const { matcher, relaxed } = await (this.#grammars as Grammars).open(
        constraint,
        request.stopIds,
      );
      if (waiting.signal.aborted || this.#isEnded) matcher?.close();
      else this.#submit(request, { guide: new Guide(request, matcher), relaxed });
    } catch (error) {
      if (!waiting.signal.aborted) this.#send({ kind: "failed", id, error: toErrorData(error) });
    } finally {
      if (this.#preparing.get(id) === waiting) this.#preparing.delete(id);
      if (this.#preparing.size === 0) {
        clearInterval(this.#pulse);
        this.#pulse = undefined;
      }
    }
  }

  async #openModel(options: LoadOptions, onStage: (stage: string) => void): Promise<LoadedInfo> {
    const loaded = await loadModel(options, onStage);
    this.#loaded = loaded;
    this.#grammars = new Grammars(loaded.info.vocabSize);
    this.#scheduler = new Scheduler({
      blockTokens: loaded.info.blockTokens,
      numBlocks: loaded.numBlocks,
      contextWindow: loaded.info.contextWindow,
      maxRunning: options.maxRunning,
      prefillTargetMs: options.prefillTargetMs,
    });
    return loaded.info;
  }

  async #openEncoder(
    options: LoadOptions,
    purpose: "embedding" | "reranker",
    heartbeat: Heartbeat,
    onStage: (stage: string) => void,
  ): Promise<LoadedInfo> {
    const { encoder, info } = await loadEncoder(options, purpose, onStage);
    this.#desk = new EncodeDesk({
      encoder,
      contextWindow: info.contextWindow,
      targetMs: options.prefillTargetMs,
      onUnit: (numRequests) => {
        heartbeat.beat();
        heartbeat.setBatch(numRequests);
      },
    });
    return info;
  }

  #free(): void {
    this.#loaded?.cache.dispose();
    this.#loaded?.model.dispose();
    this.#desk?.dispose();
  }

  #encode(request: EncodeRequest): void {
    const desk = this.#desk;
    try {
      if (!desk) throw invalidRequest("Cannot encode: the model generates text");
      desk.submit(request);
    } catch (error) {
      this.#send({ kind: "failed", id: request.id, error: toErrorData(error) });
      return;
    }
    this.#heartbeat?.setBusy(true);
    this.#dueTurn();
  }

  #submit(request: TokenRequest, given?: Steering): void {
    const needsGuide = request.thinkingBudget !== null;
    const steering = given ?? (needsGuide ? { guide: new Guide(request, null) } : undefined);
    const seed = request.sampling.seed ?? randomSeed();
    try {
      this.#checkIds(request);
      this.#books().submit(
        { ...request, sampling: { ...request.sampling, seed } },
        performance.now(),
        steering,
      );
    } catch (error) {
      steering?.guide?.close();
      this.#send({ kind: "failed", id: request.id, error: toErrorData(error) });
      return;
    }
    this.#heartbeat?.setBusy(true);
    this.#dueTurn();
  }

  /** Stock MLX reads beyond its tables for an id that the model does not have. */
  #checkIds({ promptIds }: TokenRequest): void {
    const { vocabSize } = (this.#loaded as LoadedModel).info;
    const bad = promptIds.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize);
    if (bad === undefined) return;
    throw invalidRequest(`Cannot read token ${bad}: the model has ${vocabSize} tokens`);
  }

  #cancel(id: string): void {
    const preparing = this.#preparing.get(id);
    if (preparing !== undefined) {
      preparing.abort();
      this.#preparing.delete(id);
      this.#send({ kind: "cancelled", id });
      return;
    }
    if (this.#desk) {
      if (!this.#desk.cancel(id)) return;
      this.#send({ kind: "cancelled", id });
      if (this.#desk.isIdle) this.#heartbeat?.setBusy(false);
      return;
    }
    const scheduler = this.#books();
    if (!scheduler.cancel(id)) return;
    if (this.#loaded) applyEffects(this.#loaded.cache, scheduler.takeEffects());
    this.#send({ kind: "cancelled", id });
    if (scheduler.isIdle) this.#rest();
  }

  /** The next step runs after the messages that wait now. */
  #dueTurn(): void {
    if (this.#isTurnDue) return;
    this.#isTurnDue = true;
    setImmediate(() => {
      this.#isTurnDue = false;
      if (!this.#isEnded) this.#guard(() => this.#turn());
    });
  }

  #turn(): void {
    if (this.#desk) {
      this.#turnDesk(this.#desk);
      return;
    }
    const scheduler = this.#books();
    const { model, cache, info } = this.#loaded as LoadedModel;
    const startMs = performance.now();
    let isDecoding = true;
    const result = step({
      model,
      cache,
      scheduler,
      isNative: info.kernels !== "stock",
      onPlan: (work) => {
        this.#heartbeat?.beat();
        this.#heartbeat?.setBatch(work.length);
        isDecoding = work.every(({ rows }) => rows === 1);
        if (!isDecoding) this.#flush();
      },
    });
    this.#heartbeat?.setBatch(0);
    const events = result?.events ?? [];
    const endMs = performance.now();
    const stepMs = endMs - startMs;
    if (this.#held.length === 0) this.#heldSinceMs = endMs;
    const isNextInTime = endMs + stepMs <= this.#heldSinceMs + FRAME_MS;
    const isQuick = isDecoding && stepMs < QUICK_MS && isNextInTime;
    this.#held = [...this.#held, ...events];
    if (!isQuick || scheduler.isIdle || !areTokens(events)) this.#flush();
    for (const failure of result?.failed ?? []) this.#send({ kind: "failed", ...failure });
    if (scheduler.isIdle) this.#rest();
    else this.#dueTurn();
  }

  /** Every message follows the tokens before it. */
  #send(message: FromDevice): void {
    this.#flush();
    this.#write(message);
  }

  #flush(): void {
    const events = this.#held;
    this.#held = [];
    if (events.length > 0) this.#write({ kind: "step", events });
  }

  #turnDesk(desk: EncodeDesk): void {
    const { events, failed } = desk.turn();
    for (const part of events) this.#send({ kind: "encoded", ...part });
    for (const failure of failed) this.#send({ kind: "failed", ...failure });
    if (desk.isIdle) this.#heartbeat?.setBusy(false);
    else this.#dueTurn();
  }

  /** Nothing is open: a good time to see whether the books add up. */
  #rest(): void {
    this.#heartbeat?.setBusy(false);
    this.#books().check();
  }

  #stats() {
    return {
      ...(this.#desk ? { ...NO_CACHE_STATS, ...this.#desk.stats } : this.#books().stats),
      liveArrays: mx.liveArrays(),
      activeBytes: mx.memory.active(),
      peakBytes: mx.memory.peak(),
    };
  }

  #books(): Scheduler {
    if (!this.#scheduler) throw new Error("a message came before the model was loaded");
    return this.#scheduler;
  }

  #guard(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#break(error);
    }
  }

  #break(error: unknown): void {
    this.#isEnded = true;
    this.#ended.reject(error);
  }
}

/** Nothing begins or ends with these. */
const areTokens = (events: readonly StepEvent[]): boolean =>
  events.every((event) => event.events.every(({ kind }) => kind === "tokens"));

/** An encoder keeps nothing between requests. */
const NO_CACHE_STATS = {
  cachedTokens: 0,
  generatedTokens: 0,
  freeBlocks: 0,
  totalBlocks: 0,
  treeBlocks: 0,
  preemptions: 0,
};

/**
 * Runs this process as an engine: speaks core/contract/wire over Bun's IPC, ends on "shutdown" and when the front is gone.
 *
 * @returns when the engine has stopped; rejects if it broke
 */
export async function runEngine(): Promise<void> {
  if (!process.send) throw new Error("an engine process is started by the server, not by hand");
  // Ctrl-C reaches the whole group of processes; the server decides when its engines end.
  process.on("SIGINT", () => {});
  const loop = new EngineLoop((message) => {
    if (process.connected) process.send?.(message);
  });
  process.on("message", (message: ToDevice) => loop.receive(message));
  process.on("disconnect", () => loop.stop());
  try {
    await loop.ended;
  } finally {
    if (process.connected) process.disconnect?.();
  }
}
