import { HEARTBEAT } from "#core/contract";

/** The engine's side of the shared heartbeat file: the front sees by it whether the engine gets on. */
export class Heartbeat {
  readonly #slots: Uint32Array;

  /** @param path a file of HEARTBEAT.bytes bytes */
  constructor(path: string) {
    const bytes = Bun.mmap(path, { shared: true });
    this.#slots = new Uint32Array(bytes.buffer, bytes.byteOffset, HEARTBEAT.bytes / 4);
  }

  /** One step or load stage begins. */
  beat(): void {
    Atomics.add(this.#slots, HEARTBEAT.stepSlot, 1);
  }

  /** Whether there is work to be seen getting on. */
  setBusy(isBusy: boolean): void {
    Atomics.store(this.#slots, HEARTBEAT.busySlot, isBusy ? 1 : 0);
  }

  /** Requests in the step that runs now; 0 between steps. */
  setBatch(numRequests: number): void {
    Atomics.store(this.#slots, HEARTBEAT.batchSlot, numRequests);
  }
}
