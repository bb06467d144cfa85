import type { ChatEvent } from "#core/contract";

const MAX_NAMES = 20;
const MAX_CHARS = 2000;

/** What a client should know of its own request: collected while it is read and begun, told in one header. */
export class Warnings {
  readonly #ignored: readonly string[];
  readonly #texts: string[];

  /**
   * @param ignored paths of fields that changed nothing, so that a typing error does not stay silent
   * @param texts   what else is known already, a sentence each
   */
  constructor(ignored: readonly string[], texts: readonly string[] = []) {
    this.#ignored = ignored;
    this.#texts = [...texts];
  }

  /** Passes events on and keeps what the first ones warn of. */
  async *watch<E extends ChatEvent>(events: AsyncIterable<E>): AsyncGenerator<E> {
    for await (const event of events) {
      if (event.kind === "start") {
        this.#texts.push(...event.warnings.filter((text) => !this.#texts.includes(text)));
      }
      yield event;
    }
  }

  /** x-omlx-warnings, or nothing. */
  headers(): Record<string, string> {
    const parts = [...this.#ignoredPart(), ...this.#texts.map(printable)];
    if (parts.length === 0) return {};
    return { "x-omlx-warnings": parts.join("; ").slice(0, MAX_CHARS) };
  }

  #ignoredPart(): string[] {
    if (this.#ignored.length === 0) return [];
    const names = this.#ignored.slice(0, MAX_NAMES).map(nameSafe);
    const rest = this.#ignored.length - names.length;
    const more = rest > 0 ? ` and ${rest} more` : "";
    return [`ignored: ${names.join(", ")}${more}`];
  }
}

/** A header holds printable ASCII only. */
const printable = (text: string): string => text.replace(/[^\x20-\x7e]/g, "?");

/** A client's own name for a field may hold anything. */
const nameSafe = (name: string): string => name.slice(0, 80).replace(/[^\x21-\x2b\x2d-\x7e]/g, "?");
