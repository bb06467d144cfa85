import type { Dialect } from "./dialect.ts";
import { readArguments } from "./json.ts";
import { NotACall } from "./source.ts";
import { readName } from "./xml.ts";

const OPEN = "<|tool_calls_section_begin|>";
const CLOSE = "<|tool_calls_section_end|>";
const BEGIN = "<|tool_call_begin|>";
const ARGUMENTS = "<|tool_call_argument_begin|>";
const END = "<|tool_call_end|>";

/** Kimi K2. A call's id tells its name: "functions.name:index". */
export const kimi: Dialect = {
  name: "kimi",
  begins: [OPEN],
  markers: [CLOSE, BEGIN, ARGUMENTS, END],
  grammar: {
    open: OPEN,
    close: CLOSE,
    separator: "\n",
    trigger: OPEN,
    begin: (name) => `${BEGIN}functions.${name}:0${ARGUMENTS}`,
    end: END,
  },
  historyId: ({ name, index }) => `functions.${name}:${index}`,
  *read(source, sink) {
    for (let isFirst = true; ; isFirst = false) {
      yield* source.blank();
      if (yield* source.accept(CLOSE)) return;
      if (!(yield* source.accept(BEGIN))) {
        if (isFirst) throw new NotACall();
        return; // the end marker was forgotten
      }
      const id = yield* readName(source, ARGUMENTS);
      sink.open(id.trim().replace(/:\d+$/, ""));
      yield* readArguments(source, (text) => sink.arguments(text));
      yield* source.blank();
      yield* source.accept(END);
      sink.close();
      source.commit();
    }
  },
};
