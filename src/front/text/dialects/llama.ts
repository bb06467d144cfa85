import type { Dialect } from "./dialect.ts";
import { readJsonCall } from "./json.ts";
import { readPythonCalls } from "./pythonic.ts";

/** Llama 3.1 to 3.3: the answer is a JSON object and nothing else, or a list of Python calls. */
export const llama: Dialect = {
  name: "llama",
  begins: ["<|python_tag|>"],
  bare: "{[",
  grammar: {
    open: "",
    close: "",
    separator: "; ",
    trigger: '{"name": "',
    begin: (name) => `{"name": ${JSON.stringify(name)}, "parameters": `,
    end: "}",
  },
  *read(source, sink) {
    yield* source.blank();
    if ((yield* source.peek()) === "[") {
      yield* readPythonCalls(source, sink, "");
      return;
    }
    do {
      yield* source.blank();
      yield* readJsonCall(source, sink);
      sink.close();
      source.commit();
      yield* source.blank();
    } while (yield* source.accept(";"));
  },
};
