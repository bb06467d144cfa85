import type { Dialect } from "./dialect.ts";
import { readJsonCalls } from "./json.ts";

/** A JSON list of calls between two tags. */
function jsonListDialect(
  name: string,
  begin: string,
  end: string,
  keys: { readonly name: string; readonly arguments: string },
): Dialect {
  return {
    name,
    begins: [begin],
    markers: [end],
    grammar: {
      open: `${begin}[`,
      close: `]${end}`,
      separator: ", ",
      trigger: begin,
      begin: (called) => `{"${keys.name}": ${JSON.stringify(called)}, "${keys.arguments}": `,
      end: "}",
    },
    *read(source, sink) {
      yield* source.blank();
      yield* readJsonCalls(source, sink, end);
    },
  };
}

/** Phi-4-mini. */
export const phi = jsonListDialect("phi", "<|tool_call|>", "<|/tool_call|>", {
  name: "name",
  arguments: "arguments",
});

/** Command R7B and Command A. */
export const cohere = jsonListDialect("cohere", "<|START_ACTION|>", "<|END_ACTION|>", {
  name: "tool_name",
  arguments: "parameters",
});
