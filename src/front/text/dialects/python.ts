import type { Sink } from "./sink.ts";
import { NotACall, type Parse, Source } from "./source.ts";

const MAX_DEPTH = 100;
const WORDS: Readonly<Record<string, string>> = {
  True: "true",
  False: "false",
  None: "null",
  true: "true",
  false: "false",
  null: "null",
};

/**
 * Reads one Python literal (string, number, True, False, None, list, tuple, dict) and tells it as JSON text.
 *
 * @throws {NotACall}
 */
export function* readPython(source: Source, tell: (json: string) => void, depth = 0): Parse {
  if (depth > MAX_DEPTH) throw new NotACall();
  yield* source.blank();
  const first = yield* source.peek();
  switch (first) {
    case "":
      throw source.missing();
    case "[":
    case "(":
      source.take(1);
      tell("[");
      yield* readItems(source, tell, first === "[" ? "]" : ")", (inner) =>
        readPython(source, inner, depth + 1),
      );
      tell("]");
      return;
    case "{":
      source.take(1);
      tell("{");
      yield* readItems(source, tell, "}", (inner) => readPair(source, inner, depth + 1));
      tell("}");
      return;
    case "'":
    case '"':
      yield* readPythonString(source, tell);
      return;
    default:
      tell(yield* readWord(source));
  }
}

/** Items with commas between them, up to `end`. */
function* readItems(
  source: Source,
  tell: (json: string) => void,
  end: string,
  item: (tell: (json: string) => void) => Parse,
): Parse {
  for (let isFirst = true; ; isFirst = false) {
    yield* source.blank();
    if (yield* source.accept(end)) return;
    if (!isFirst) {
      yield* source.expect(",");
      yield* source.blank();
      if (yield* source.accept(end)) return;
      tell(", ");
    }
    yield* item(tell);
  }
}

function* readPair(source: Source, tell: (json: string) => void, depth: number): Parse {
  if (!"'\"".includes(yield* source.peek())) throw new NotACall();
  yield* readPythonString(source, tell);
  yield* source.blank();
  yield* source.expect(":");
  tell(": ");
  yield* readPython(source, tell, depth);
}

const ESCAPES: Readonly<Record<string, string>> = {
  n: "\n",
  t: "\t",
  r: "\r",
  b: "\b",
  f: "\f",
  v: "\v",
  a: "\u0007",
  "0": "\0",
  "\n": "",
};
const HEX_DIGITS: Readonly<Record<string, number>> = { x: 2, u: 4, U: 8 };

const quoted = (text: string): string => JSON.stringify(text).slice(1, -1);

function* readPythonString(source: Source, tell: (json: string) => void): Parse {
  const quote = source.take(1);
  let end = quote;
  if (yield* source.accept(quote)) {
    if (!(yield* source.accept(quote))) {
      tell('""');
      return;
    }
    end = quote.repeat(3);
  }
  tell('"');
  for (;;) {
    const stop = yield* source.until([end, "\\"], (text) => tell(quoted(text)));
    if (stop === null) throw source.missing();
    if (stop === end) break;
    const letter = yield* source.peek();
    if (letter === "") throw source.missing();
    source.take(1);
    const digits = HEX_DIGITS[letter];
    if (digits === undefined) {
      const known = ESCAPES[letter];
      if (known !== undefined) tell(quoted(known));
      else tell(quoted("\\'\"".includes(letter) ? letter : `\\${letter}`));
      continue;
    }
    tell(quoted(yield* readCodePoint(source, digits)));
  }
  tell('"');
}

function* readCodePoint(source: Source, digits: number): Parse<string> {
  let hex = "";
  while (hex.length < digits) {
    const digit = yield* source.peek();
    if (digit === "") throw source.missing();
    if (!/[\da-fA-F]/.test(digit)) throw new NotACall();
    hex += source.take(1);
  }
  const code = Number.parseInt(hex, 16);
  if (code > 0x10ffff) throw new NotACall();
  return String.fromCodePoint(code);
}

/** A number or a name, as JSON. */
function* readWord(source: Source): Parse<string> {
  const word = yield* readWhile(source, /[\w.+-]/);
  if (source.rest === "" && source.ended === "length") throw source.missing();
  const known = Object.hasOwn(WORDS, word) ? WORDS[word] : undefined;
  if (known !== undefined) return known;
  const number = word.replace(/(?<=\d)_(?=\d)/g, "");
  if (!/^[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/.test(number)) throw new NotACall();
  const value = Number(number);
  if (!Number.isFinite(value)) throw new NotACall();
  const isWhole = /^-?(?:0|[1-9]\d*)$/.test(number);
  return isWhole ? number : JSON.stringify(value);
}

/** Takes all characters that match. */
export function* readWhile(source: Source, pattern: RegExp): Parse<string> {
  let word = "";
  for (;;) {
    const next = yield* source.peek();
    if (next === "" || !pattern.test(next)) return word;
    word += source.take(1);
  }
}

/** JSON text of a whole Python literal; undefined: it is none. */
export function pythonToJson(text: string): string | undefined {
  const source = new Source();
  source.feed(text);
  source.finish("stop");
  const parts: string[] = [];
  try {
    const reading = readPython(source, (json) => parts.push(json));
    while (!reading.next().done);
  } catch (error) {
    if (error instanceof NotACall) return undefined;
    throw error;
  }
  return source.rest.trim() === "" ? parts.join("") : undefined;
}

const NAME = /[\p{L}\p{N}_.-]/u;

/**
 * Reads `f(a=1, b="x")` and opens and closes the call.
 *
 * @throws {NotACall}
 */
export function* readPythonCall(source: Source, sink: Sink): Parse {
  yield* source.blank();
  const name = yield* readWhile(source, NAME);
  yield* source.expect("(");
  sink.open(name);
  sink.arguments("{");
  yield* readItems(
    source,
    (json) => sink.arguments(json),
    ")",
    function* (tell) {
      const key = yield* readWhile(source, NAME);
      if (key === "") throw source.rest === "" ? source.missing() : new NotACall();
      yield* source.blank();
      yield* source.expect("=");
      tell(`${JSON.stringify(key)}: `);
      yield* readPython(source, tell);
    },
  );
  sink.arguments("}");
  sink.close();
  source.commit();
}
