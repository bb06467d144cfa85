import { type FromDevice, OmlxError, type ToDevice } from "#core/contract";
import { log } from "#core/log";
import { forward } from "./child.ts";

export interface ConvertOptions {
  /** Model id, for messages. */
  readonly name: string;
  readonly command: readonly string[];
  /** A GGUF file, or the first of its parts. */
  readonly source: string;
  /** Appears whole or not at all. */
  readonly folder: string;
  /** The conversion fails when it makes no progress for so long. */
  readonly stallTimeoutMs: number;
}

const REPORT_MS = 5000;
const living = new Set<Bun.Subprocess>();
process.on("exit", () => {
  for (const child of living) child.kill("SIGKILL");
});

/**
 * Writes a GGUF model as a folder in MLX's format, in an engine process of its own, so that nothing here waits for it and
 * its memory is given back.
 *
 * @param signal ends the process
 * @returns how the weights differ from the file's, a phrase each
 * @throws {OmlxError} model_load; cancelled, or the signal's own reason
 */
export async function convertModel(
  { name, command, source, folder, stallTimeoutMs }: ConvertOptions,
  signal: AbortSignal,
): Promise<readonly string[]> {
  signal.throwIfAborted();
  const failed = (reason: string) =>
    new OmlxError({ code: "model_load", message: `Cannot convert model "${name}": ${reason}` });
  const result = Promise.withResolvers<readonly string[]>();
  let lastAt = performance.now();
  let reportedAt = lastAt;
  let child: Bun.Subprocess;
  try {
    child = Bun.spawn([...command], {
      stdio: ["ignore", "pipe", "pipe"],
      serialization: "advanced",
      detached: true, // Ctrl-C in a terminal is for the server
      ipc: (message: FromDevice) => {
        lastAt = performance.now();
        if (message.kind === "converted") result.resolve(message.changes);
        else if (message.kind === "loadFailed") result.reject(new OmlxError(message.error));
        else if (message.kind === "converting" && lastAt - reportedAt > REPORT_MS) {
          reportedAt = lastAt;
          const percent = Math.floor((100 * message.doneBytes) / Math.max(message.totalBytes, 1));
          log.info("model is being converted", { model: name, percent });
        }
      },
    });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw failed(`its process cannot be started (${reason})`);
  }
  living.add(child);
  const output = Promise.all([
    forward(child.stdout as ReadableStream<Uint8Array>, "info", name, child.pid),
    forward(child.stderr as ReadableStream<Uint8Array>, "warning", name, child.pid),
  ]).catch(() => {}); // what it printed last is lost with it
  const onAbort = () => result.reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  const watch = setInterval(
    () => {
      if (performance.now() - lastAt > stallTimeoutMs) {
        result.reject(failed(`no progress for ${Math.round(stallTimeoutMs / 1000)} s`));
      }
    },
    Math.min(stallTimeoutMs, 1000),
  );
  child.exited
    .then(() => {
      const cause = child.signalCode ?? `exit code ${child.exitCode}`;
      result.reject(failed(`its process ended (${cause})`)); // does nothing after an answer
    })
    .catch(() => {});
  try {
    child.send({ kind: "convert", source, folder } satisfies ToDevice);
    return await result.promise;
  } finally {
    clearInterval(watch);
    signal.removeEventListener("abort", onAbort);
    child.kill("SIGKILL");
    await child.exited;
    await output;
    living.delete(child);
  }
}
