import type { Dialect } from "./dialect.ts";
import { readJsonCalls } from "./json.ts";
import { readPythonCall } from "./python.ts";
import type { Sink } from "./sink.ts";
import type { Parse, Source } from "./source.ts";

/** Reads `[f(a=1), g()]` and its end marker. */
export function* readPythonCalls(source: Source, sink: Sink, end: string): Parse {
  yield* source.blank();
  yield* source.expect("[");
  do {
    yield* readPythonCall(source, sink);
    yield* source.blank();
  } while (yield* source.accept(","));
  yield* source.accept("]");
  if (end === "") return;
  yield* source.blank();
  yield* source.accept(end);
}

const BEGIN = "<|tool_call_start|>";
const END = "<|tool_call_end|>";

/** LFM2: a list of Python calls between two tags, or of JSON objects where it was asked for. */
export const lfm2: Dialect = {
  name: "lfm2",
  begins: [BEGIN],
  markers: [END],
  grammar: null,
  *read(source, sink) {
    yield* source.blank();
    if (yield* source.isNext(['[{"', "[{'"])) yield* readJsonCalls(source, sink, END);
    else yield* readPythonCalls(source, sink, END);
  },
};

/** Llama 4 and others that write the list alone. */
export const pythonic: Dialect = {
  name: "pythonic",
  begins: ["<|python_start|>"],
  markers: ["<|python_end|>"],
  bare: "[",
  grammar: null,
  read: (source, sink, begin) =>
    readPythonCalls(source, sink, begin === "" ? "" : "<|python_end|>"),
};
