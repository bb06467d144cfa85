import type { ModelEntry } from "#core/contract";
import { type Deferred, deferred } from "#core/util";
import type { Engine } from "#front/engine";
import type { TextModel } from "#front/text";

/** What a loaded model consists of. */
export interface Loaded {
  readonly engine: Engine;
  readonly text: TextModel;
}

/** One model's place in memory, from the first lease on it until its engine is gone. */
export class Slot {
  readonly entry: ModelEntry;
  /** Weights and what goes with them. */
  readonly bytes: number;
  /** Ends the load when the server stops. */
  readonly abort = new AbortController();
  /** Settles when the model is loaded or cannot be. */
  readonly ready: Deferred<Loaded> = deferred();
  loaded: Loaded | undefined;
  cacheBytes = 0;
  /** "waiting" for memory holds none yet. */
  stage: "waiting" | "loading" | "loaded" | "leaving" = "waiting";
  leases = 0;
  lastUsed = performance.now();
  /** Another model waits for this one's memory: no new leases. */
  isDraining = false;

  constructor(entry: ModelEntry, bytes: number) {
    this.entry = entry;
    this.bytes = bytes;
    this.ready.promise.catch(() => {}); // all who wait may have left
  }

  get isIdle(): boolean {
    return this.stage === "loaded" && this.leases === 0;
  }

  get isHolding(): boolean {
    return this.stage !== "waiting";
  }

  /** Whether a new lease may be had here. */
  get isOpen(): boolean {
    return this.stage !== "leaving" && !this.isDraining;
  }
}
