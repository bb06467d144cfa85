import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type EngineStats,
  type FromDevice,
  GREEDY,
  HEARTBEAT,
  type LoadedInfo,
  type LoadOptions,
  OmlxError,
  type SamplingParams,
  type ToDevice,
  type TokenEvent,
  type TokenLogprob,
  type TokenRequest,
  type TokenUsage,
} from "#core/contract";
import { deferred } from "#core/util";

const ENTRY = join(import.meta.dir, "engine-process.ts");

export interface Answer {
  readonly ids: readonly number[];
  readonly logprobs: readonly TokenLogprob[];
  readonly events: readonly TokenEvent[];
  readonly reason: string;
  readonly usage: TokenUsage;
}

interface Open {
  readonly events: TokenEvent[];
  readonly end: PromiseWithResolvers<Answer>;
  onEvent: () => void;
}

/** A real engine process and the messages it understands, without a supervisor. */
export class EngineClient {
  readonly process: Bun.Subprocess;
  readonly heartbeat: Uint32Array;
  /** Messages in the order they came, "stats" left out. */
  readonly messages: FromDevice[] = [];
  readonly #dir = mkdtempSync(join(tmpdir(), "omlx-engine-"));
  readonly #open = new Map<string, Open>();
  readonly #loaded = deferred<LoadedInfo>();
  #stats = deferred<EngineStats>();
  #count = 0;

  constructor(
    load: Partial<LoadOptions> & { modelPath: string },
    command = [process.execPath, ENTRY],
  ) {
    const heartbeatPath = join(this.#dir, "heartbeat");
    writeFileSync(heartbeatPath, new Uint8Array(HEARTBEAT.bytes));
    this.heartbeat = new Uint32Array(Bun.mmap(heartbeatPath, { shared: true }).buffer, 0, 16);
    this.process = Bun.spawn(command, {
      stdio: ["ignore", "inherit", "inherit"],
      serialization: "advanced",
      ipc: (message: FromDevice) => this.#receive(message),
    });
    this.send({
      kind: "load",
      options: {
        kernels: "native",
        threads: 2,
        contextWindow: 0,
        cacheBytes: 64 << 20,
        maxRunning: 8,
        prefillTargetMs: 100,
        heartbeatPath,
        ...load,
      },
    });
  }

  get loaded(): Promise<LoadedInfo> {
    return this.#loaded.promise;
  }

  send(message: ToDevice): void {
    this.process.send(message);
  }

  /** @returns the request's id, its answer, and a promise of its first token */
  generate(
    request: Partial<Omit<TokenRequest, "sampling">> & {
      promptIds: readonly number[];
      sampling?: Partial<SamplingParams>;
    },
  ) {
    const id = request.id ?? `request ${this.#count++}`;
    const started = deferred<void>();
    const open: Open = {
      events: [],
      end: deferred<Answer>(),
      onEvent: () => {
        if (open.events.some((event) => event.kind === "tokens")) started.resolve();
      },
    };
    open.end.promise.catch(() => {}); // its test may look at something else
    this.#open.set(id, open);
    this.send({
      kind: "generate",
      request: {
        id,
        maxTokens: 32,
        minTokens: 0,
        stopIds: [],
        lane: "interactive",
        topLogprobs: null,
        constraint: null,
        thinkingBudget: null,
        ...request,
        sampling: { ...GREEDY, ...request.sampling },
      },
    });
    return { id, answer: open.end.promise, started: started.promise };
  }

  cancel(id: string): void {
    this.send({ kind: "cancel", id });
  }

  stats(): Promise<EngineStats> {
    this.#stats = deferred<EngineStats>();
    this.send({ kind: "stats" });
    return this.#stats.promise;
  }

  /** Ends the process cleanly and returns its exit code. */
  async shutdown(): Promise<number> {
    this.send({ kind: "shutdown" });
    const code = await this.process.exited;
    rmSync(this.#dir, { recursive: true, force: true });
    return code;
  }

  #receive(message: FromDevice): void {
    if (message.kind !== "stats") this.messages.push(message);
    switch (message.kind) {
      case "loaded":
        this.#loaded.resolve(message.info);
        return;
      case "loadFailed":
        this.#loaded.reject(new OmlxError(message.error));
        return;
      case "step":
        for (const { id, events } of message.events) this.#deliver(id, events);
        return;
      case "failed":
        this.#open.get(message.id)?.end.reject(new OmlxError(message.error));
        return;
      case "cancelled":
        this.#open
          .get(message.id)
          ?.end.reject(new OmlxError({ code: "cancelled", message: "cancelled" }));
        return;
      case "stats":
        this.#stats.resolve(message.stats);
        return;
      case "encoded":
      case "converting":
      case "converted":
        throw new Error(`${message.kind}, which was not asked for`);
    }
  }

  #deliver(id: string, events: readonly TokenEvent[]): void {
    const open = this.#open.get(id);
    if (!open) throw new Error(`an event for "${id}", which is not open`);
    open.events.push(...events);
    open.onEvent();
    const last = events.at(-1);
    if (last?.kind !== "finish") return;
    const tokens = open.events.flatMap((event) => (event.kind === "tokens" ? [event] : []));
    open.end.resolve({
      ids: tokens.flatMap((event) => event.ids),
      logprobs: tokens.flatMap((event) => event.logprobs ?? []),
      events: open.events,
      reason: last.reason,
      usage: last.usage,
    });
    this.#open.delete(id);
  }
}
