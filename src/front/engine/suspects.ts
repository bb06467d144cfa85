import type { EncodeRequest, TokenRequest } from "#core/contract";

/** Deaths alone after which a request is refused. */
const MAX_DEATHS = 3;
/** Memory of a death; a machine's bad hour must not ban a prompt for good. */
const FORGET_MS = 10 * 60_000;
const MAX_RECORDS = 1024;
/** So many tokens past its last death a retry is trusted again. */
const TRUST_TOKENS = 16;

interface Suspicion {
  readonly deathsAlone: number;
  /** Tokens that it had generated when it died last. */
  readonly generated: number;
  readonly since: number;
}

/**
 * Remembers which requests were in an engine when it died, by what they ask for. Pure: time comes in as milliseconds.
 */
export class Suspects {
  readonly #records = new Map<string, Suspicion>();

  get isEmpty(): boolean {
    return this.#records.size === 0;
  }

  /** A request was in the step that killed the engine. Only deaths alone count towards quarantine. */
  accuse(fingerprint: string, isAlone: boolean, generated: number, nowMs: number): void {
    const before = this.#find(fingerprint, nowMs);
    this.#records.delete(fingerprint); // the newest goes to the end
    this.#records.set(fingerprint, {
      deathsAlone: (before?.deathsAlone ?? 0) + (isAlone ? 1 : 0),
      generated,
      since: nowMs,
    });
    if (this.#records.size > MAX_RECORDS) {
      for (const oldest of this.#records.keys()) {
        this.#records.delete(oldest);
        break;
      }
    }
  }

  /** It ended without harm. */
  acquit(fingerprint: string): void {
    this.#records.delete(fingerprint);
  }

  /** Whether it must run alone. */
  isSuspect(fingerprint: string, nowMs: number): boolean {
    return this.#find(fingerprint, nowMs) !== undefined;
  }

  isQuarantined(fingerprint: string, nowMs: number): boolean {
    return (this.#find(fingerprint, nowMs)?.deathsAlone ?? 0) >= MAX_DEATHS;
  }

  /** Whether a retry lived clearly longer than before, so that others may join it. */
  isPast(fingerprint: string, generated: number): boolean {
    const record = this.#records.get(fingerprint);
    return record === undefined || generated > record.generated + TRUST_TOKENS;
  }

  #find(fingerprint: string, nowMs: number): Suspicion | undefined {
    const record = this.#records.get(fingerprint);
    if (record === undefined || nowMs - record.since < FORGET_MS) return record;
    this.#records.delete(fingerprint);
    return undefined;
  }
}

/** Equal for requests that ask the engine for the same work. The seed is left out: a retry may draw a new one. */
export function fingerprintOf(request: TokenRequest | EncodeRequest): string {
  const hasher = new Bun.CryptoHasher("sha256");
  if ("ends" in request) return hasher.update(request.ids).update(request.ends).digest("base64");
  const { seed: _, ...sampling } = request.sampling;
  return hasher
    .update(Int32Array.from(request.promptIds))
    .update(
      JSON.stringify([
        request.maxTokens,
        request.minTokens,
        request.stopIds,
        sampling,
        request.topLogprobs,
        request.constraint,
        request.thinkingBudget,
      ]),
    )
    .digest("base64");
}
