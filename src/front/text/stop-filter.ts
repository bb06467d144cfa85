/** One stop string and how much of it the text ends with. */
interface Matcher {
  readonly stop: string;
  /** fail[n]: length of the longest proper prefix of stop that ends stop[0, n]. */
  readonly fail: Int32Array;
  length: number;
}

/**
 * Ends a text before the stop string that is complete first, wherever the text is cut into pieces. Only what may still
 * become a stop string is held back.
 *
 * Of two that are complete at the same place, the longer one counts.
 *
 * @see Knuth, Morris, Pratt: Fast pattern matching in strings
 */
export class StopFilter {
  readonly #matchers: readonly Matcher[];
  #held = "";
  #found: string | undefined;

  /** @param stops empty strings are ignored */
  constructor(stops: readonly string[]) {
    this.#matchers = stops
      .map((stop) => stop.toWellFormed())
      .filter((stop) => stop !== "")
      .map((stop) => ({ stop, fail: failures(stop), length: 0 }));
  }

  /** The stop string that ended the text. */
  get found(): string | undefined {
    return this.#found;
  }

  /** How many characters are held back. */
  get numHeld(): number {
    return this.#held.length;
  }

  /** The part of the text that is certain. Text after a stop string is dropped. */
  push(text: string): string {
    if (this.#found !== undefined) return "";
    if (this.#matchers.length === 0) return text;
    for (let i = 0; i < text.length; i++) {
      const complete = this.#advance(text.charCodeAt(i));
      if (complete === undefined) continue;
      this.#found = complete;
      const all = this.#held + text.slice(0, i + 1);
      this.#held = "";
      return all.slice(0, all.length - complete.length);
    }
    const all = this.#held + text;
    const keep = this.#matchers.reduce((most, m) => Math.max(most, m.length), 0);
    this.#held = all.slice(all.length - keep);
    return all.slice(0, all.length - keep);
  }

  /** What was held back; there is no more text. */
  end(): string {
    const rest = this.#held;
    this.#held = "";
    return rest;
  }

  /** The longest stop string that this character completes. */
  #advance(code: number): string | undefined {
    let complete: string | undefined;
    for (const m of this.#matchers) {
      while (m.length > 0 && m.stop.charCodeAt(m.length) !== code) {
        m.length = m.fail[m.length] ?? 0;
      }
      if (m.stop.charCodeAt(m.length) === code) m.length++;
      if (m.length < m.stop.length) continue;
      if (complete === undefined || m.stop.length > complete.length) complete = m.stop;
    }
    return complete;
  }
}

function failures(stop: string): Int32Array {
  const fail = new Int32Array(stop.length + 1);
  for (let i = 1, length = 0; i < stop.length; i++) {
    while (length > 0 && stop.charCodeAt(i) !== stop.charCodeAt(length)) length = fail[length] ?? 0;
    if (stop.charCodeAt(i) === stop.charCodeAt(length)) length++;
    fail[i + 1] = length;
  }
  return fail;
}
