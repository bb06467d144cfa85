import { randomUUID } from "node:crypto";
import { unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HEARTBEAT, OmlxError } from "#core/contract";

/** The front's view of the file that an engine writes its step counter into. */
export class Heartbeat {
  readonly path: string;
  readonly #slots: Uint32Array;
  #isLinked = true;

  /** Creates and maps the file. @throws {OmlxError} model_load: no folder for temporary files takes it */
  constructor() {
    this.path = create();
    const bytes = Bun.mmap(this.path, { shared: true });
    this.#slots = new Uint32Array(bytes.buffer, bytes.byteOffset, HEARTBEAT.bytes / 4);
  }

  /** Grows with every step and load stage; wraps at 2^32. */
  get step(): number {
    return Atomics.load(this.#slots, HEARTBEAT.stepSlot);
  }

  get isBusy(): boolean {
    return Atomics.load(this.#slots, HEARTBEAT.busySlot) !== 0;
  }

  /** Requests in the step that runs now. */
  get batch(): number {
    return Atomics.load(this.#slots, HEARTBEAT.batchSlot);
  }

  /** Removes the file's name; both mappings live on. */
  unlink(): void {
    if (!this.#isLinked) return;
    this.#isLinked = false;
    try {
      unlinkSync(this.path);
    } catch {
      // someone cleaned up the folder: the name is gone, as wanted
    }
  }
}

function create(): string {
  let problem: unknown;
  for (const folder of [tmpdir(), "/dev/shm"]) {
    const path = join(folder, `omlx-${process.pid}-${randomUUID()}.heartbeat`);
    try {
      writeFileSync(path, new Uint8Array(HEARTBEAT.bytes), { flag: "wx", mode: 0o600 });
      return path;
    } catch (error) {
      problem ??= error;
    }
  }
  const reason = problem instanceof Error ? problem.message : String(problem);
  throw new OmlxError(
    { code: "model_load", message: `Cannot create a file for the engine's heartbeat: ${reason}` },
    { cause: problem },
  );
}
