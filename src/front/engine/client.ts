import {
  type EncodeEvent,
  type EncodeRequest,
  type FromDevice,
  type GrammarVocabulary,
  invalidRequest,
  OmlxError,
  type StepEvent,
  type ToDevice,
  type TokenEvent,
  type TokenRequest,
} from "#core/contract";
import { AsyncQueue } from "#core/util";
import { fingerprintOf, Suspects } from "./suspects.ts";

/** What is asked of an engine. */
type Work =
  | { readonly kind: "generate"; readonly request: TokenRequest }
  | { readonly kind: "encode"; readonly request: EncodeRequest };

/** One request, from its first pull to the engine's last word on it. */
interface Open {
  readonly work: Work;
  readonly queue: AsyncQueue<TokenEvent | EncodeEvent>;
  /** Set when a death made it necessary. */
  fingerprint: string | undefined;
  /** Its reader left; the engine has not confirmed yet. */
  isLeft: boolean;
  /** The engine has answered something. */
  isStarted: boolean;
  generated: number;
}

/**
 * The books of one engine's requests. Knows no process: messages go out by `send`, come in by `receive`.
 *
 * held (no engine ready, or someone runs alone) → sent → finished, failed or cancelled.
 */
export class Client {
  /** Sent and not confirmed as ended, by id, oldest first. */
  readonly #sent = new Map<string, Open>();
  /** First come, first served. */
  #held: Open[] = [];
  readonly #suspects = new Suspects();
  readonly #limit: number;
  readonly #onFinish: () => void;
  #send: ((message: ToDevice) => void) | undefined;
  /** The suspect that has the engine for itself. */
  #alone: Open | undefined;
  #error: OmlxError | undefined;
  #vocabulary: GrammarVocabulary | undefined;
  /** The engine that is connected now has the vocabulary. */
  #isTaught = false;

  /**
   * @param limit    requests that may be open at once; more are refused as "overloaded"
   * @param onFinish a request ended well
   */
  constructor(limit: number, onFinish: () => void = () => {}) {
    this.#limit = limit;
    this.#onFinish = onFinish;
  }

  /** Whether the engine owes an answer that someone waits for. */
  get isWaiting(): boolean {
    for (const open of this.#sent.values()) if (!open.isLeft) return true;
    return false;
  }

  /** Requests that are open, sent or held. */
  get size(): number {
    return this.#sent.size + this.#held.length;
  }

  /**
   * The events of one request; sent to the engine at the first pull. Leaving the loop or aborting the signal cancels it
   * and waits for nothing.
   *
   * @throws {OmlxError} from the loop: overloaded, invalid_request (quarantined), cancelled, engine_dead, or the engine's own
   */
  generate(request: TokenRequest, signal: AbortSignal): AsyncGenerator<TokenEvent> {
    return this.#run({ kind: "generate", request }, signal) as AsyncGenerator<TokenEvent>;
  }

  /** As generate(), of a request to an encoder. */
  encode(request: EncodeRequest, signal: AbortSignal): AsyncGenerator<EncodeEvent> {
    return this.#run({ kind: "encode", request }, signal) as AsyncGenerator<EncodeEvent>;
  }

  async *#run(work: Work, signal: AbortSignal): AsyncGenerator<TokenEvent | EncodeEvent> {
    const open = this.#admit(work, signal);
    const onAbort = () => {
      open.queue.fail(cancelled());
      this.#leave(open);
    };
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      this.#held.push(open);
      this.#pump();
      yield* open.queue;
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#leave(open);
    }
  }

  #admit(work: Work, signal: AbortSignal): Open {
    const { request } = work;
    if (signal.aborted) throw cancelled();
    if (this.#error !== undefined) throw this.#error;
    if (this.size >= this.#limit) {
      throw new OmlxError({
        code: "overloaded",
        message: `Cannot take the request: ${this.size} are running or waiting already`,
        data: { retryAfterMs: 1000 },
      });
    }
    if (this.#sent.has(request.id) || this.#held.some((o) => o.work.request.id === request.id)) {
      throw new Error(`Request id "${request.id}" is open already`);
    }
    const fingerprint = this.#suspects.isEmpty ? undefined : fingerprintOf(request);
    if (fingerprint !== undefined && this.#suspects.isQuarantined(fingerprint, Date.now())) {
      throw invalidRequest(
        "Cannot serve this request: the engine died on it three times in a row; change it, or try again in some minutes",
      );
    }
    const queue = new AsyncQueue<TokenEvent | EncodeEvent>();
    return { work, queue, fingerprint, isLeft: false, isStarted: false, generated: 0 };
  }

  /** What constraints need to know: every engine gets it before its first request with one. */
  teach(vocabulary: GrammarVocabulary): void {
    this.#vocabulary = vocabulary;
  }

  /** An engine is ready. */
  connect(send: (message: ToDevice) => void): void {
    this.#send = send;
    this.#isTaught = false;
    this.#pump();
  }

  /**
   * The engine died: what it had ends with `error`, what is held waits for the next one.
   *
   * @param inStep requests in the step that it died in, as far as it told; 0: unknown
   */
  disconnect(error: OmlxError, inStep: number): void {
    this.#send = undefined;
    this.#alone = undefined;
    const sent = [...this.#sent.values()];
    this.#sent.clear();
    const started = sent.filter((open) => open.isStarted);
    const accused = inStep > 0 && inStep <= started.length ? started : sent;
    for (const open of accused) {
      open.fingerprint ??= fingerprintOf(open.work.request);
      this.#suspects.accuse(open.fingerprint, sent.length === 1, open.generated, Date.now());
    }
    for (const open of sent) open.queue.fail(error);
    // what is held was admitted before there was a suspicion
    for (const open of this.#held) open.fingerprint ??= fingerprintOf(open.work.request);
  }

  /** There will be no engine: everything ends with `error`, also what comes later. */
  fail(error: OmlxError): void {
    this.#error = error;
    this.#send = undefined;
    this.#alone = undefined;
    for (const open of [...this.#sent.values(), ...this.#held]) open.queue.fail(error);
    this.#sent.clear();
    this.#held = [];
  }

  /** What an engine says about requests. */
  receive(
    message: Extract<FromDevice, { kind: "step" | "encoded" | "failed" | "cancelled" }>,
  ): void {
    switch (message.kind) {
      case "step":
        for (const event of message.events) this.#deliver(event);
        return;
      case "encoded":
        this.#deliver(message);
        return;
      case "failed":
        this.#sent.get(message.id)?.queue.fail(new OmlxError(message.error));
        this.#end(message.id);
        return;
      case "cancelled":
        this.#end(message.id);
        return;
    }
  }

  #deliver({ id, events }: StepEvent | Extract<FromDevice, { kind: "encoded" }>): void {
    const open = this.#sent.get(id);
    if (open === undefined) return; // its reader left and the engine did not know yet
    open.isStarted = true;
    for (const event of events) {
      open.queue.push(event);
      if (event.kind === "tokens") open.generated += event.ids.length;
      if (event.kind !== "finish" && event.kind !== "done") continue;
      open.queue.end();
      this.#onFinish();
      this.#end(id);
    }
    if (open === this.#alone && this.#suspects.isPast(open.fingerprint ?? "", open.generated)) {
      this.#alone = undefined;
      this.#pump();
    }
  }

  /** The engine holds nothing of the request any more, and lived. */
  #end(id: string): void {
    const open = this.#sent.get(id);
    if (open === undefined) return;
    this.#sent.delete(id);
    if (open.fingerprint !== undefined && !open.isLeft) this.#suspects.acquit(open.fingerprint);
    if (open === this.#alone) this.#alone = undefined;
    this.#pump();
  }

  /** The reader went away. */
  #leave(open: Open): void {
    if (open.isLeft) return;
    open.isLeft = true;
    this.#held = this.#held.filter((other) => other !== open);
    const { id } = open.work.request;
    if (this.#sent.get(id) === open) this.#send?.({ kind: "cancel", id });
    this.#pump();
  }

  /** Sends what may be sent. A suspect waits for an empty engine, and everyone behind it waits for it. */
  #pump(): void {
    while (this.#send !== undefined && this.#alone === undefined) {
      const open = this.#held[0];
      if (open === undefined) return;
      const isSuspect =
        open.fingerprint !== undefined && this.#suspects.isSuspect(open.fingerprint, Date.now());
      if (isSuspect && this.#sent.size > 0) return;
      this.#held.shift();
      this.#sent.set(open.work.request.id, open);
      if (isSuspect) this.#alone = open;
      const isConstrained = open.work.kind === "generate" && open.work.request.constraint !== null;
      if (isConstrained && !this.#isTaught && this.#vocabulary !== undefined) {
        this.#send({ kind: "vocabulary", vocabulary: this.#vocabulary });
        this.#isTaught = true;
      }
      this.#send(open.work);
    }
  }
}

function cancelled(): OmlxError {
  return new OmlxError({ code: "cancelled", message: "The request was cancelled" });
}
