import type { Dialect } from "./dialect.ts";
import { closeCall } from "./json.ts";
import { readWhile } from "./python.ts";
import { NotACall, type Parse, type Source } from "./source.ts";

const MAX_DEPTH = 64;
const LITERAL = /^(?:true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)$/;

type Tell = (json: string) => void;

/** Reads `{key:value,…}`, keys without quotes, and tells it as JSON. */
const readObject = (source: Source, quote: string, tell: Tell, depth: number): Parse =>
  readItems(source, ["{", "}"], tell, depth, function* () {
    let key = "";
    yield* source.blank();
    if (yield* source.accept(quote)) yield* readQuoted(source, quote, (text) => (key += text));
    else key = (yield* readWhile(source, /[^:,{}[\]\uFDD0-\uFDEF]/)).trim();
    yield* source.blank();
    yield* source.expect(":");
    tell(`${JSON.stringify(key)}: `);
    yield* readValue(source, quote, tell, depth + 1);
  });

/** Reads `[value,…]` likewise. */
const readList = (source: Source, quote: string, tell: Tell, depth: number): Parse =>
  readItems(source, ["[", "]"], tell, depth, () => readValue(source, quote, tell, depth + 1));

/** Reads what stands between two brackets, a comma before each item but the first. */
function* readItems(
  source: Source,
  [open, close]: readonly [string, string],
  tell: Tell,
  depth: number,
  readItem: () => Parse,
): Parse {
  if (depth > MAX_DEPTH) throw new NotACall();
  yield* source.expect(open);
  tell(open);
  for (let isFirst = true; ; isFirst = false) {
    yield* source.blank();
    if (yield* source.accept(close)) break;
    if (!isFirst) {
      yield* source.expect(",");
      tell(", ");
    }
    yield* readItem();
  }
  tell(close);
}

function* readQuoted(source: Source, quote: string, tell: (text: string) => void): Parse {
  if ((yield* source.until([quote], tell)) === null) throw source.missing();
}

function* readValue(source: Source, quote: string, tell: Tell, depth: number): Parse {
  yield* source.blank();
  if (yield* source.accept(quote)) {
    tell('"');
    yield* readQuoted(source, quote, (text) => tell(JSON.stringify(text).slice(1, -1)));
    tell('"');
    return;
  }
  switch (yield* source.peek()) {
    case "":
      throw source.missing();
    case "{":
      yield* readObject(source, quote, tell, depth);
      return;
    case "[":
      yield* readList(source, quote, tell, depth);
      return;
  }
  const word = (yield* readWhile(source, /[^,}\]\uFDD0-\uFDEF]/)).trim();
  if (source.rest === "") throw source.missing();
  if (word === "") throw new NotACall();
  tell(LITERAL.test(word) ? word : JSON.stringify(word));
}

/** `call:name{key:value,…}` between two tags; strings stand between quote marks that are tokens. */
function callDialect(name: string, begin: string, end: string, quote: string): Dialect {
  return {
    name,
    begins: [begin],
    markers: [end, quote],
    namesResults: true,
    grammar: null,
    *read(source, sink) {
      yield* source.blank();
      yield* source.expect("call:");
      const called = yield* readWhile(source, /[^{\uFDD0-\uFDEF]/);
      if (source.rest === "") throw source.missing();
      sink.open(called.trim());
      yield* readObject(source, quote, (json) => sink.arguments(json), 0);
      yield* closeCall(source, sink, end);
    },
  };
}

/** Gemma 4. */
export const gemma = callDialect("gemma", "<|tool_call>", "<tool_call|>", '<|"|>');
/** FunctionGemma. */
export const functionGemma = callDialect(
  "function-gemma",
  "<start_function_call>",
  "<end_function_call>",
  "<escape>",
);
