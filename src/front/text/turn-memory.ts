const MAX_TURNS = 128;
const MAX_CHARS = 16_000_000;

interface Turn {
  readonly text: string;
  readonly ids: readonly number[];
}

/**
 * Remembers how texts were tokenized of which a model has written a part. A tokenizer may cut the model's own words in
 * another way than the model did, and then a conversation that goes on would not begin with what was computed.
 */
export class TurnMemory {
  /** Prompts whose answers are still to come, by key. */
  readonly #open = new Map<number, Turn>();
  /** Prompts with their answers, the oldest first. */
  readonly #turns = new Map<string, readonly number[]>();
  #numChars = 0;

  /** A prompt was rendered and tokenized. */
  begin(key: number, text: string, ids: readonly number[]): void {
    if (this.#open.size >= MAX_TURNS) this.#open.delete(this.#open.keys().next().value as number);
    this.#open.set(key, { text, ids });
  }

  /** Its answer is complete. */
  finish(key: number, text: string, ids: readonly number[]): void {
    const prompt = this.#open.get(key);
    if (prompt === undefined || ids.length === 0) return;
    this.#open.delete(key);
    this.#keep(prompt.text + text, [...prompt.ids, ...ids]);
  }

  /** The longest remembered beginning of a text. */
  find(text: string): { readonly length: number; readonly ids: readonly number[] } | undefined {
    let best: string | undefined;
    for (const known of this.#turns.keys()) {
      if (known.length > (best?.length ?? 0) && text.startsWith(known)) best = known;
    }
    if (best === undefined) return undefined;
    const ids = this.#turns.get(best) ?? [];
    this.#turns.delete(best);
    this.#turns.set(best, ids); // used: the youngest
    return { length: best.length, ids };
  }

  #keep(text: string, ids: readonly number[]): void {
    if (this.#turns.delete(text)) this.#numChars -= text.length;
    this.#turns.set(text, ids);
    this.#numChars += text.length;
    for (const oldest of this.#turns.keys()) {
      if (this.#turns.size <= MAX_TURNS && this.#numChars <= MAX_CHARS) break;
      this.#turns.delete(oldest);
      this.#numChars -= oldest.length;
    }
  }
}
