import { invalidRequest, type ModelKind, OmlxError } from "#core/contract";
import { type Deferred, deferred } from "#core/util";
import type {
  EncodedTexts,
  FromText,
  LoadedText,
  Source,
  TextsSource,
  ToText,
} from "./messages.ts";

export interface TextWorkerOptions {
  readonly url: URL | string;
  readonly modelId: string;
  readonly path: string;
  readonly purpose: ModelKind;
  /** How long one request may hold the Worker. */
  readonly timeLimitMs: number;
  readonly loadLimitMs: number;
}

/** A prompt as token ids. */
export interface Encoded {
  readonly ids: Int32Array<ArrayBuffer>;
  readonly notes: readonly string[];
  /** Keeps the answer that was given to it, so that a conversation that goes on has the same ids. */
  remember(answer: readonly number[]): void;
}

interface Task {
  readonly message: (id: number) => ToText;
  /** What could not be done, for errors, and the request field at fault. */
  readonly what: string;
  readonly param: string;
  readonly result: Deferred<Answer>;
}

/** A reply, and the Worker that gave it. */
interface Answer {
  readonly reply: FromText;
  readonly running: Running;
}

/** A Worker that runs now, and the messages it has to answer. */
interface Running {
  readonly worker: Worker;
  readonly replies: Map<number, Deferred<FromText>>;
}

/**
 * A model's text Worker, seen from the HTTP thread. Requests run one after the other; one that holds the Worker for too
 * long is refused and the Worker is replaced, so the requests behind it go on.
 */
export class TextWorker {
  readonly #options: TextWorkerOptions;
  readonly #queue: Task[] = [];
  #running: Running | undefined;
  #isBusy = false;
  #isDisposed = false;
  #nextId = 0;

  constructor(options: TextWorkerOptions) {
    this.#options = options;
  }

  /**
   * Starts the Worker and loads the model's texts.
   *
   * @throws {OmlxError} model_load
   */
  async start(): Promise<LoadedText> {
    const { url, modelId, path, purpose, loadLimitMs } = this.#options;
    const running = this.#spawn(url);
    try {
      const reply = await this.#ask(
        running,
        { kind: "load", id: this.#nextId++, modelId, path, purpose },
        {
          limitMs: loadLimitMs,
          late: () =>
            new OmlxError({
              code: "model_load",
              message: `Cannot load "${modelId}": reading its tokenizer took more than ${loadLimitMs / 1000} s`,
            }),
        },
      );
      if (reply.kind !== "loaded") throw new Error(`the text Worker answered ${reply.kind}`);
      return reply.loaded;
    } catch (error) {
      this.#end(running, error);
      throw error;
    }
  }

  /**
   * Prompt ids of a conversation or of a raw prompt.
   *
   * @throws {OmlxError} invalid_request; cancelled when the model was unloaded meanwhile
   */
  async encode(source: Source): Promise<Encoded> {
    const [what, param] =
      source.kind === "raw"
        ? ["tokenize the prompt", "prompt"]
        : ["render the messages", "messages"];
    const message = (id: number): ToText => ({ kind: "encode", id, source });
    const { reply, running } = await this.#enqueue({ message, what, param });
    if (reply.kind !== "encoded") throw new Error(`the text Worker answered ${reply.kind}`);
    const { id } = reply;
    const remember = (ids: readonly number[]): void => {
      if (this.#running === running) send(running.worker, { kind: "remember", id, ids });
    };
    return { ids: reply.ids, notes: reply.notes, remember };
  }

  /**
   * Token ids of an encoder's texts.
   *
   * @throws {OmlxError} invalid_request, context_length; cancelled when the model was unloaded meanwhile
   */
  async encodeTexts(source: TextsSource): Promise<EncodedTexts> {
    const message = (id: number): ToText => ({ kind: "texts", id, source });
    const { param } = source;
    const { reply } = await this.#enqueue({ message, what: "tokenize the texts", param });
    if (reply.kind !== "texts") throw new Error(`the text Worker answered ${reply.kind}`);
    return reply.encoded;
  }

  #enqueue(task: Omit<Task, "result">): Promise<Answer> {
    if (this.#isDisposed) return Promise.reject(unloaded());
    const result = deferred<Answer>();
    this.#queue.push({ ...task, result });
    void this.#work();
    return result.promise;
  }

  /** Ends the Worker; open requests are refused. */
  dispose(): void {
    this.#isDisposed = true;
    for (const task of this.#queue.splice(0)) task.result.reject(unloaded());
    if (this.#running !== undefined) this.#end(this.#running, unloaded());
  }

  /** Runs the queue empty; at most one of these loops goes at a time. */
  async #work(): Promise<void> {
    if (this.#isBusy) return;
    this.#isBusy = true;
    for (let task = this.#queue.shift(); task !== undefined; task = this.#queue.shift()) {
      try {
        task.result.resolve(await this.#run(task));
      } catch (error) {
        task.result.reject(error);
      }
    }
    this.#isBusy = false;
  }

  async #run({ message, what, param }: Task): Promise<Answer> {
    if (this.#isDisposed) throw unloaded();
    if (this.#running === undefined) await this.start();
    const running = this.#running;
    if (running === undefined) throw unloaded();
    const { timeLimitMs } = this.#options;
    const reply = await this.#ask(running, message(this.#nextId++), {
      limitMs: timeLimitMs,
      late: () =>
        invalidRequest(`Cannot ${what}: it took more than ${timeLimitMs / 1000} s`, param),
    });
    return { reply, running };
  }

  /** Sends one message and waits for its reply; a Worker that is late is ended. */
  async #ask(
    running: Running,
    message: ToText,
    { limitMs, late }: { limitMs: number; late: () => OmlxError },
  ): Promise<FromText> {
    const answer = deferred<FromText>();
    running.replies.set(message.id, answer);
    const timer = setTimeout(() => this.#end(running, late()), limitMs);
    try {
      send(running.worker, message);
      const reply = await answer.promise;
      if (reply.kind === "failed") throw new OmlxError(reply.error);
      return reply;
    } finally {
      clearTimeout(timer);
      running.replies.delete(message.id);
    }
  }

  #spawn(url: URL | string): Running {
    const worker = new Worker(url);
    const running: Running = { worker, replies: new Map() };
    worker.onmessage = (event: MessageEvent<FromText>) => {
      running.replies.get(event.data.id)?.resolve(event.data);
    };
    // A Worker whose entry cannot be found tells so only here.
    worker.onerror = (event) => {
      event.preventDefault();
      this.#end(running, died(event.message));
    };
    worker.addEventListener("close", () => this.#end(running, died("it closed")));
    this.#running = running;
    return running;
  }

  #end(running: Running, reason: unknown): void {
    if (this.#running === running) this.#running = undefined;
    for (const answer of running.replies.values()) answer.reject(reason);
    running.replies.clear();
    running.worker.terminate();
  }
}

const send = (worker: Worker, message: ToText): void => worker.postMessage(message);

function unloaded(): OmlxError {
  return new OmlxError({
    code: "cancelled",
    message: "Cannot read the prompt: model unloaded",
  });
}

function died(reason: string): OmlxError {
  return new OmlxError({
    code: "internal",
    message: `Cannot render: the text Worker died: ${reason}`,
  });
}
