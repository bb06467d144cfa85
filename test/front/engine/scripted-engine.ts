/**
 * A child process that speaks the engine's wire messages and misbehaves on demand; it computes nothing.
 *
 * Loading does what the first line of `modelPath`'s file "loads" says ("ok" where there is none left); a request does
 * what its first prompt id says.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type FromDevice, HEARTBEAT, type ToDevice, type TokenEvent } from "#core/contract";

export const ANSWER = 1;
export const DIE = 2;
export const HANG = 3;
/** Answers one token per 10 ms until it is cancelled. */
export const STREAM = 4;

const send = (message: FromDevice) => process.send?.(message);

let slots = new Uint32Array(HEARTBEAT.bytes / 4);
const streams = new Map<string, Timer>();

function load(modelPath: string): void {
  const file = join(modelPath, "loads");
  const lines = existsSync(file) ? readFileSync(file, "utf8").split("\n") : [];
  const behaviour = lines.shift() || "ok";
  writeFileSync(file, lines.join("\n"));
  switch (behaviour) {
    case "ok":
      send({
        kind: "loaded",
        info: {
          contextWindow: 100,
          vocabSize: 10,
          kernels: "native",
          device: "script",
          weightBytes: 0,
          cacheBytes: 0,
          blockTokens: 16,
          eosIds: [],
        },
      });
      return;
    case "refuse":
      send({ kind: "loadFailed", error: { code: "model_load", message: "tensor x is missing" } });
      return;
    case "die":
      process.kill(process.pid, "SIGSEGV");
      return;
    case "hang":
      return;
  }
}

function generate(id: string, behaviour: number): void {
  const step = (...events: TokenEvent[]) => {
    Atomics.add(slots, HEARTBEAT.stepSlot, 1);
    send({ kind: "step", events: [{ id, events }] });
  };
  const usage = { promptTokens: 1, cachedTokens: 0, completionTokens: 1 };
  step({ kind: "tokens", ids: [7] });
  switch (behaviour) {
    case ANSWER:
      step({ kind: "finish", reason: "stop", usage });
      return;
    case DIE:
      // once the first token is out
      setTimeout(() => process.kill(process.pid, "SIGABRT"), 50);
      return;
    case HANG:
      Atomics.store(slots, HEARTBEAT.busySlot, 1);
      return;
    case STREAM:
      streams.set(
        id,
        setInterval(() => step({ kind: "tokens", ids: [8] }), 10),
      );
      return;
  }
}

function receive(message: ToDevice): void {
  switch (message.kind) {
    case "load": {
      const bytes = Bun.mmap(message.options.heartbeatPath, { shared: true });
      slots = new Uint32Array(bytes.buffer, bytes.byteOffset, HEARTBEAT.bytes / 4);
      load(message.options.modelPath);
      return;
    }
    case "generate":
      generate(message.request.id, message.request.promptIds[0] ?? ANSWER);
      return;
    case "cancel":
      clearInterval(streams.get(message.id));
      send({ kind: "cancelled", id: message.id });
      return;
    case "stats":
      send({
        kind: "stats",
        stats: {
          waiting: 0,
          running: streams.size,
          steps: Atomics.load(slots, HEARTBEAT.stepSlot),
          promptTokens: 0,
          cachedTokens: 0,
          generatedTokens: 0,
          freeBlocks: 0,
          totalBlocks: 0,
          treeBlocks: 0,
          preemptions: 0,
          liveArrays: 0,
          activeBytes: 0,
          peakBytes: 0,
        },
      });
      return;
    case "vocabulary":
    case "encode":
      return;
    case "convert":
      return;
    case "shutdown":
      if (!process.argv.includes("--stubborn")) process.exit(0);
      return;
  }
}

if (import.meta.main) {
  process.on("message", receive);
  process.on("disconnect", () => process.exit(0));
  process.on("SIGTERM", () => {
    if (!process.argv.includes("--stubborn")) process.exit(0);
  });
  console.log("plain line");
  console.error("2026-01-01T00:00:00.000Z error   told by the engine key=value");
}
