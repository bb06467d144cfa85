import { OmlxError } from "#core/contract";

export type JsonObject = Readonly<Record<string, unknown>>;

/** A damaged file may give its tensors names without end. */
const MAX_MESSAGE = 1000;

/** A model folder cannot be used; the message names the file and what was found. */
export function loadError(message: string, cause?: unknown): OmlxError {
  const short = message.length > MAX_MESSAGE ? `${message.slice(0, MAX_MESSAGE)}…` : message;
  return new OmlxError(
    { code: "model_load", message: short },
    cause === undefined ? undefined : { cause },
  );
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Strings as they are, or one of the three number words that Python writes into JSON. */
const STRING_OR_WORD = /"(?:[^"\\]|\\.)*"|-?\b(?:Infinity|NaN)\b/g;
const WORDS: Readonly<Record<string, string>> = {
  Infinity: "1e999",
  "-Infinity": "-1e999",
  NaN: "null",
};

/**
 * An object of a JSON file. Also takes what Python's json module writes: a byte order mark, Infinity and NaN (as null).
 *
 * @param what  names the file in errors
 * @throws {OmlxError} model_load
 */
export function parseJsonObject(text: string, what: string): JsonObject {
  const plain = text.replace(/^\uFEFF/, "");
  let value: unknown;
  try {
    value = JSON.parse(plain);
  } catch (error) {
    try {
      value = JSON.parse(plain.replace(STRING_OR_WORD, (part) => WORDS[part] ?? part));
    } catch {
      const reason = error instanceof Error ? error.message : String(error);
      throw loadError(`Cannot read ${what}: it is not valid JSON (${reason})`, error);
    }
  }
  if (!isObject(value)) throw loadError(`Cannot read ${what}: expected a JSON object`);
  return value;
}

/** Typed reading of one JSON object; the first of several names that is present wins, null counts as absent. */
export class Fields {
  readonly raw: JsonObject;
  readonly #what: string;

  constructor(raw: JsonObject, what: string) {
    this.raw = raw;
    this.#what = what;
  }

  find(...names: string[]): { name: string; value: unknown } | undefined {
    for (const name of names) {
      const value = Object.hasOwn(this.raw, name) ? plainNumber(this.raw[name]) : undefined;
      if (value !== undefined && value !== null) return { name, value };
    }
    return undefined;
  }

  has(...names: string[]): boolean {
    return this.find(...names) !== undefined;
  }

  number(...names: string[]): number | undefined {
    const found = this.find(...names);
    if (found === undefined) return undefined;
    if (typeof found.value !== "number") throw this.#wrong(found, "a number");
    return found.value;
  }

  /** A whole number in [min, 2^31). */
  int(min: number, ...names: string[]): number | undefined {
    const found = this.find(...names);
    if (found === undefined) return undefined;
    const { value } = found;
    if (typeof value !== "number" || !Number.isInteger(value) || value < min || value >= 2 ** 31) {
      throw this.#wrong(found, `a whole number of at least ${min}`);
    }
    return value;
  }

  requireInt(min: number, ...names: string[]): number {
    const value = this.int(min, ...names);
    if (value === undefined) {
      throw loadError(`Cannot read ${this.#what}: "${names[0]}" is missing`);
    }
    return value;
  }

  bool(...names: string[]): boolean | undefined {
    const found = this.find(...names);
    if (found === undefined) return undefined;
    if (typeof found.value !== "boolean") throw this.#wrong(found, "true or false");
    return found.value;
  }

  text(...names: string[]): string | undefined {
    const found = this.find(...names);
    if (found === undefined) return undefined;
    if (typeof found.value !== "string") throw this.#wrong(found, "a string");
    return found.value;
  }

  object(...names: string[]): Fields | undefined {
    const found = this.find(...names);
    if (found === undefined) return undefined;
    if (!isObject(found.value)) throw this.#wrong(found, "an object");
    return new Fields(found.value, `${this.#what} (${found.name})`);
  }

  list(...names: string[]): readonly unknown[] | undefined {
    const found = this.find(...names);
    if (found === undefined) return undefined;
    if (!Array.isArray(found.value)) throw this.#wrong(found, "a list");
    return found.value;
  }

  #wrong(found: { name: string; value: unknown }, expected: string): OmlxError {
    const shown = JSON.stringify(found.value)?.slice(0, 80);
    return loadError(
      `Cannot read ${this.#what}: "${found.name}" must be ${expected}, got ${shown}`,
    );
  }
}

/** transformers writes non-finite floats as {"__float__": "Infinity"}. */
function plainNumber(value: unknown): unknown {
  if (isObject(value) && typeof value["__float__"] === "string") return Number(value["__float__"]);
  return value;
}
