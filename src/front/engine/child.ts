import {
  type FromDevice,
  type LoadedInfo,
  type LoadOptions,
  OmlxError,
  type ToDevice,
} from "#core/contract";
import { LOG_LEVELS, type LogLevel, log } from "#core/log";
import { deferred } from "#core/util";
import { Heartbeat } from "./heartbeat.ts";

/** How a process ended. */
export interface Death {
  /** For messages: "SIGSEGV", "exit code 3", "no progress for 10 s". */
  readonly cause: string;
}

export interface ChildOptions {
  /** Model id, for messages. */
  readonly name: string;
  readonly command: readonly string[];
  readonly load: Omit<LoadOptions, "heartbeatPath">;
  /** Everything that the child says after it has loaded. */
  readonly onMessage: (message: FromDevice) => void;
}

/** A child that lost its channel has nothing to live for; it gets this long to see it. */
const ORPHAN_MS = 2000;

const living = new Set<EngineChild>();
process.on("exit", () => {
  for (const child of living) {
    child.kill("the server ends");
    child.heartbeat.unlink();
  }
});

/** One engine process, from its start to its end. Never restarts. */
export class EngineChild {
  readonly heartbeat: Heartbeat;
  /** Rejects with model_load: the engine refused, or died first. */
  readonly loaded: Promise<LoadedInfo>;
  /** Never rejects. Every message that came before the end has been handed on by then. */
  readonly died: Promise<Death>;
  #process: Bun.Subprocess;
  #cause: string | undefined;

  /** @throws {OmlxError} model_load: the process cannot be started */
  constructor({ name, command, load, onMessage }: ChildOptions) {
    const loaded = deferred<LoadedInfo>();
    this.loaded = loaded.promise;
    this.loaded.catch(() => {}); // its owner may be gone by then
    const heartbeat = new Heartbeat();
    this.heartbeat = heartbeat;
    const fail = (reason: string) =>
      new OmlxError({ code: "model_load", message: `Cannot load model "${name}": ${reason}` });
    try {
      this.#process = Bun.spawn([...command], {
        stdio: ["ignore", "pipe", "pipe"],
        serialization: "advanced",
        detached: true, // Ctrl-C in a terminal is for the server, which ends its engines in order
        ipc: (message: FromDevice) => {
          if (message.kind === "loaded") {
            heartbeat.unlink();
            loaded.resolve(message.info);
          } else if (message.kind === "loadFailed") {
            loaded.reject(new OmlxError(message.error));
          } else {
            onMessage(message);
          }
        },
        onDisconnect: () => {
          setTimeout(() => this.kill("channel closed"), ORPHAN_MS).unref();
        },
      });
    } catch (error) {
      heartbeat.unlink();
      throw fail(`its engine process cannot be started (${reasonOf(error)})`);
    }
    living.add(this);
    const child = this.#process;
    const output = [
      forward(child.stdout as ReadableStream<Uint8Array>, "info", name, child.pid),
      forward(child.stderr as ReadableStream<Uint8Array>, "warning", name, child.pid),
    ];
    this.died = (async () => {
      await child.exited;
      living.delete(this);
      heartbeat.unlink();
      const cause = this.#cause ?? child.signalCode?.toString() ?? `exit code ${child.exitCode}`;
      const death: Death = { cause };
      loaded.reject(fail(`its engine process ended while loading (${cause})`));
      return death;
    })();
    Promise.all(output).catch((error) =>
      log.warning("engine output is lost", { model: name, reason: reasonOf(error) }),
    );
    this.send({ kind: "load", options: { ...load, heartbeatPath: heartbeat.path } });
  }

  get pid(): number {
    return this.#process.pid;
  }

  /** Does nothing once the process has ended. */
  send(message: ToDevice): void {
    try {
      this.#process.send(message);
    } catch {
      // the channel is closed: `died` tells the rest
    }
  }

  /** Ends the process at once, also a stopped one. `cause` is what `died` then says. */
  kill(cause: string): void {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    this.#cause ??= cause;
    this.#process.kill("SIGKILL");
  }

  /** Asks the process to end, then makes it end. Resolves when it is gone. */
  async stop(timeoutMs: number): Promise<void> {
    this.#cause ??= "stopped";
    this.send({ kind: "shutdown" });
    const terminate = setTimeout(() => this.#process.kill("SIGTERM"), timeoutMs);
    const kill = setTimeout(() => this.#process.kill("SIGKILL"), timeoutMs * 1.5);
    await this.died;
    clearTimeout(terminate);
    clearTimeout(kill);
  }
}

/** A line of core/log: time, level, message with fields. */
const LOG_LINE = new RegExp(String.raw`^\d{4}-\d\d-\d\dT\S+ (${LOG_LEVELS.join("|")}) +(.*)$`);

/** Hands a child's output to our log, line by line; its own log lines keep their level. */
export async function forward(
  stream: ReadableStream<Uint8Array>,
  fallback: LogLevel,
  model: string,
  pid: number,
): Promise<void> {
  const decoder = new TextDecoder();
  let rest = "";
  const emit = (line: string) => {
    if (line.trim() === "") return;
    const match = LOG_LINE.exec(line);
    const level = (match?.[1] as LogLevel | undefined) ?? fallback;
    log[level](match?.[2] ?? line, { model, engine: pid });
  };
  for await (const bytes of stream) {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) emit(line);
    // a line without an end must not grow for ever
    if (rest.length > 65_536) {
      emit(rest);
      rest = "";
    }
  }
  emit(rest);
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
