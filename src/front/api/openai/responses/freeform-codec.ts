import { FREEFORM_ARGUMENT } from "./tools-codec.ts";

const ESCAPES: Readonly<Record<string, string>> = {
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};

const OPENING = new RegExp(`^\\s*\\{\\s*"${FREEFORM_ARGUMENT}"\\s*:\\s*"`);

/** Reads the text out of `{"input":"…"}` while it is written, so that free text streams as it is made. */
export class FreeformReader {
  /** The text so far. */
  text = "";
  #raw = "";
  /** Where in the raw arguments reading goes on; -1: the string has not begun. */
  #at = -1;
  #isClosed = false;

  /** @returns what these characters add to the text */
  push(characters: string): string {
    this.#raw += characters;
    if (this.#isClosed) return "";
    if (this.#at === -1) {
      const opening = OPENING.exec(this.#raw);
      if (opening === null) return "";
      this.#at = opening[0].length;
    }
    const before = this.text.length;
    for (;;) {
      const next = this.#next();
      if (next === undefined) break;
      this.text += next;
    }
    return this.text.slice(before);
  }

  /** @returns what only the whole arguments tell: text of another shape is passed on as it is */
  end(): string {
    if (this.#at !== -1) return "";
    const rest = this.#whole();
    this.text += rest;
    return rest;
  }

  #whole(): string {
    try {
      const value = (JSON.parse(this.#raw) as Record<string, unknown> | null)?.[FREEFORM_ARGUMENT];
      return typeof value === "string" ? value : this.#raw;
    } catch {
      return this.#raw;
    }
  }

  /** The next character, if it is complete. */
  #next(): string | undefined {
    const raw = this.#raw;
    const character = raw[this.#at];
    if (character === undefined) return undefined;
    if (character === '"') {
      this.#isClosed = true;
      return undefined;
    }
    if (character !== "\\") {
      this.#at++;
      return character;
    }
    const letter = raw[this.#at + 1];
    if (letter === undefined) return undefined;
    if (letter !== "u") {
      this.#at += 2;
      return ESCAPES[letter] ?? letter;
    }
    const code = raw.slice(this.#at + 2, this.#at + 6);
    if (code.length < 4) return undefined;
    this.#at += 6;
    return String.fromCharCode(Number.parseInt(code, 16));
  }
}
