import type { Sink } from "./sink.ts";
import { NotACall, type Parse, type Source } from "./source.ts";

const MAX_DEPTH = 200;
const NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/;
const NUMBER_CHARACTERS = /[-+.\deE]/;
const LITERALS = ["true", "false", "null"];
/** What ends a run of plain characters in a string. */
const NOT_PLAIN = /["\\\p{Cc}\uFDD0-\uFDEF]/gu;

type State =
  | "value"
  | "item" // a value or the end of an empty list
  | "key"
  | "member" // a key or the end of an empty object
  | "colon"
  | "after"
  | "string"
  | "escape"
  | "hex"
  | "number"
  | "literal";

/**
 * Reads one JSON value, piece by piece. What models get wrong within strings is put right: line feeds and tabs as they
 * are, and a backslash before what needs none.
 */
class JsonScanner {
  readonly #spell: (text: string) => string;
  readonly #stack: ("{" | "[")[] = [];
  #state: State = "value";
  #isKey = false;
  #word = "";
  isDone = false;

  constructor(spell: (text: string) => string) {
    this.#spell = spell;
  }

  /**
   * @returns how much of `text` belongs to the value, and that part put right
   * @throws {NotACall} at a syntax error
   */
  scan(text: string): { readonly length: number; readonly json: string } {
    let json = "";
    let i = 0;
    while (i < text.length && !this.isDone) {
      if (this.#state === "string") {
        NOT_PLAIN.lastIndex = i;
        const end = NOT_PLAIN.exec(text)?.index ?? text.length;
        json += text.slice(i, end);
        i = end;
        if (i < text.length) json += this.#stringCharacter(text[i++] ?? "");
        continue;
      }
      const character = text[i] ?? "";
      if (this.#state === "number" && !NUMBER_CHARACTERS.test(character)) {
        this.#endNumber();
        continue; // the character comes after the number
      }
      json += this.#character(character);
      i++;
    }
    return { length: i, json };
  }

  /** There is no more text. */
  end(): void {
    if (this.#state === "number" && this.#stack.length === 0) this.#endNumber();
  }

  #character(c: string): string {
    switch (this.#state) {
      case "string":
        return this.#stringCharacter(c);
      case "escape":
        this.#state = c === "u" ? "hex" : "string";
        this.#word = "";
        if ('"\\/bfnrtu'.includes(c)) return `\\${c}`;
        return c === "'" ? c : `\\\\${this.#plain(c)}`;
      case "hex":
        if (!/[\da-fA-F]/.test(c)) throw new NotACall();
        this.#word += c;
        if (this.#word.length === 4) this.#state = "string";
        return c;
      case "number":
        this.#word += c;
        return c;
      case "literal":
        this.#word += c;
        if (!LITERALS.some((word) => word.startsWith(this.#word))) throw new NotACall();
        if (LITERALS.includes(this.#word)) this.#endValue();
        return c;
      default:
        return /\s/.test(c) ? c : this.#between(this.#state, c);
    }
  }

  /** A character that is no part of a string or word. */
  #between(state: State, c: string): string {
    switch (state) {
      case "colon":
        if (c !== ":") throw new NotACall();
        this.#state = "value";
        return c;
      case "after":
        return this.#after(c);
      case "member":
        return c === "}" ? this.#pop(c) : this.#key(c);
      case "key":
        return this.#key(c);
      case "item":
        return c === "]" ? this.#pop(c) : this.#begin(c);
      default:
        return this.#begin(c);
    }
  }

  #key(c: string): string {
    if (c !== '"') throw new NotACall();
    this.#isKey = true;
    this.#state = "string";
    return c;
  }

  #after(c: string): string {
    const inner = this.#stack.at(-1);
    if (c === ",") {
      this.#state = inner === "{" ? "key" : "value";
      return c;
    }
    if (c === (inner === "{" ? "}" : "]")) return this.#pop(c);
    throw new NotACall();
  }

  #begin(c: string): string {
    if (c === "{" || c === "[") {
      if (this.#stack.length >= MAX_DEPTH) throw new NotACall();
      this.#stack.push(c);
      this.#state = c === "{" ? "member" : "item";
    } else if (c === '"') {
      this.#isKey = false;
      this.#state = "string";
    } else if (/[-\d]/.test(c)) {
      this.#word = c;
      this.#state = "number";
    } else if (/[tfn]/.test(c)) {
      this.#word = c;
      this.#state = "literal";
    } else throw new NotACall();
    return c;
  }

  #pop(c: string): string {
    this.#stack.pop();
    this.#endValue();
    return c;
  }

  #endNumber(): void {
    if (!NUMBER.test(this.#word)) throw new NotACall();
    this.#endValue();
  }

  #endValue(): void {
    this.#state = "after";
    if (this.#stack.length === 0) this.isDone = true;
  }

  #stringCharacter(c: string): string {
    if (c === '"') {
      if (this.#isKey) this.#state = "colon";
      else this.#endValue();
      return c;
    }
    if (c === "\\") {
      this.#state = "escape";
      return "";
    }
    return this.#plain(c);
  }

  /** A character that a string cannot hold as it is. */
  #plain(c: string): string {
    return JSON.stringify(this.#spell(c)).slice(1, -1);
  }
}

/**
 * Reads one JSON value and tells its text as it comes.
 *
 * @throws {NotACall}
 */
export function* readJson(source: Source, tell: (json: string) => void): Parse {
  const scanner = new JsonScanner((text) => source.markers.spell(text));
  for (;;) {
    const { length, json } = scanner.scan(source.rest);
    source.take(length);
    if (json !== "") tell(json);
    if (scanner.isDone) return;
    if (yield* source.more()) continue;
    scanner.end();
    if (!scanner.isDone) throw source.missing();
  }
}

/** Reads one JSON value to its end. */
export function* readJsonText(source: Source): Parse<string> {
  const parts: string[] = [];
  yield* readJson(source, (json) => parts.push(json));
  return parts.join("");
}

/** Reads one JSON string; its value. */
export function* readJsonString(source: Source): Parse<string> {
  if ((yield* source.peek()) !== '"') {
    throw source.rest === "" ? source.missing() : new NotACall();
  }
  return JSON.parse(yield* readJsonText(source)) as string;
}

/** JSON text of arguments that are not written as an object: a JSON object within a string, or nothing. */
function argumentsOf(json: string): string {
  let value: unknown = JSON.parse(json);
  if (typeof value === "string") {
    const text = value.trim();
    if (text === "") return "{}";
    try {
      value = JSON.parse(text);
    } catch {
      throw new NotACall();
    }
    if (isRecord(value)) return text;
  }
  if (value === null) return "{}";
  throw new NotACall();
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Reads a call's arguments: a JSON object, told as it comes.
 *
 * @throws {NotACall}
 */
export function* readArguments(source: Source, tell: (json: string) => void): Parse {
  yield* source.blank();
  if ((yield* source.peek()) === "{") yield* readJson(source, tell);
  else tell(argumentsOf(yield* readJsonText(source)));
}

const NAME_KEYS: ReadonlySet<string> = new Set(["name", "tool_name"]);
const ARGUMENT_KEYS: ReadonlySet<string> = new Set(["arguments", "parameters"]);

/**
 * Reads `{"name": …, "arguments": {…}}`, keys in any order, other keys left aside, and opens the call; the caller closes
 * it. A missing last brace is forgiven.
 *
 * @throws {NotACall}
 */
export function* readJsonCall(source: Source, sink: Sink): Parse {
  yield* source.expect("{");
  let isOpen = false;
  let json: string | undefined;
  let isTold = false;
  for (;;) {
    yield* source.blank();
    if (json === undefined && !isTold && (yield* source.accept("}"))) break;
    const key = yield* readJsonString(source);
    yield* source.blank();
    yield* source.expect(":");
    yield* source.blank();
    if (NAME_KEYS.has(key) && !isOpen) {
      sink.open(yield* readJsonString(source));
      isOpen = true;
    } else if (ARGUMENT_KEYS.has(key) && json === undefined && !isTold) {
      if (isOpen) {
        yield* readArguments(source, (text) => sink.arguments(text));
        isTold = true;
      } else {
        json = "";
        yield* readArguments(source, (text) => {
          json += text;
        });
      }
    } else yield* readJsonText(source);
    yield* source.blank();
    if (yield* source.accept(",")) continue;
    if (!(yield* source.accept("}")) && !isTold)
      throw source.rest === "" ? source.missing() : new NotACall();
    break;
  }
  if (!isOpen) throw new NotACall();
  if (!isTold) sink.arguments(json ?? "{}");
}

/**
 * Takes a call's end marker and closes the call. One that the model forgot is forgiven, unless the answer was cut off
 * there.
 */
export function* closeCall(source: Source, sink: Sink, end: string): Parse {
  yield* source.blank();
  while (yield* source.accept("}")) yield* source.blank(); // one brace too many
  yield* source.accept(end);
  sink.close();
  source.commit();
}

/**
 * Reads a list of calls, `[{"name": …, "arguments": {…}}, …]`, and its end marker.
 *
 * @throws {NotACall}
 */
export function* readJsonCalls(source: Source, sink: Sink, end: string): Parse {
  yield* source.expect("[");
  do {
    yield* source.blank();
    yield* readJsonCall(source, sink);
    sink.close();
    source.commit();
    yield* source.blank();
  } while (yield* source.accept(","));
  yield* source.accept("]");
  yield* source.blank();
  if (end !== "") yield* source.accept(end);
}
