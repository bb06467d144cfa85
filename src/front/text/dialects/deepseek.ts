import type { CallGrammar, Dialect } from "./dialect.ts";
import { readArguments } from "./json.ts";
import type { Sink } from "./sink.ts";
import { NotACall, type Parse, type Source } from "./source.ts";
import { readName } from "./xml.ts";

const OPEN = "<｜tool▁calls▁begin｜>";
const CLOSE = "<｜tool▁calls▁end｜>";
const BEGIN = "<｜tool▁call▁begin｜>";
const SEPARATOR = "<｜tool▁sep｜>";
const END = "<｜tool▁call▁end｜>";
const FENCE = "```json\n";

/** Both forms, whichever comes: `name<sep>{…}`, or `function<sep>name` and the arguments in a fenced block. */
function* read(source: Source, sink: Sink): Parse {
  for (let isFirst = true; ; isFirst = false) {
    yield* source.blank();
    if (yield* source.accept(CLOSE)) return;
    if (!(yield* source.accept(BEGIN))) {
      if (isFirst) throw new NotACall();
      return; // the end marker was forgotten
    }
    const head = yield* readName(source, SEPARATOR);
    yield* source.blank();
    const isFenced = head.trim() === "function" && (yield* source.peek()) !== "{";
    sink.open((isFenced ? yield* readName(source, "\n") : head).trim());
    if (isFenced) yield* source.expect(FENCE);
    yield* readArguments(source, (text) => sink.arguments(text));
    yield* source.blank();
    if (isFenced) yield* source.accept("```");
    yield* source.blank();
    yield* source.accept(END);
    sink.close();
    source.commit();
  }
}

function deepseekDialect(name: string, call: Pick<CallGrammar, "begin" | "end">): Dialect {
  return {
    name,
    begins: [OPEN],
    markers: [CLOSE, BEGIN, SEPARATOR, END],
    grammar: { open: OPEN, close: CLOSE, separator: "\n", trigger: OPEN, ...call },
    read,
  };
}

/** DeepSeek V3 and R1. */
export const deepseekV3 = deepseekDialect("deepseek-v3", {
  begin: (name) => `${BEGIN}function${SEPARATOR}${name}\n${FENCE}`,
  end: `\n\`\`\`${END}`,
});

/** DeepSeek V3.1. */
export const deepseekV31 = deepseekDialect("deepseek-v3.1", {
  begin: (name) => `${BEGIN}${name}${SEPARATOR}`,
  end: END,
});
