import type { CallGrammar, Dialect } from "./dialect.ts";
import { readArguments, readJsonCalls } from "./json.ts";
import { readWhile } from "./python.ts";
import type { Sink } from "./sink.ts";
import type { Parse, Source } from "./source.ts";
import { readBefore } from "./xml.ts";

const BEGIN = "[TOOL_CALLS]";
const ARGS = "[ARGS]";
const CALL_ID = "[CALL_ID]";
/** Ids in a conversation must have this form. */
const ID = /^[a-zA-Z0-9]{9}$/;

/** Both forms, whichever comes: a JSON list, or `name[ARGS]{…}`. */
function* read(source: Source, sink: Sink): Parse {
  yield* source.blank();
  if ((yield* source.peek()) === "[" && !(yield* source.isNext([ARGS, CALL_ID]))) {
    yield* readJsonCalls(source, sink, "");
    return;
  }
  sink.open((yield* readBefore(source, [ARGS, CALL_ID, "{"])).trim());
  if (yield* source.accept(CALL_ID)) yield* readWhile(source, /[a-zA-Z0-9]/);
  yield* source.accept(ARGS);
  yield* readArguments(source, (text) => sink.arguments(text));
  sink.close();
  source.commit();
}

function mistralDialect(name: string, grammar: CallGrammar): Dialect {
  return {
    name,
    begins: [BEGIN],
    markers: [ARGS, CALL_ID],
    grammar,
    historyId: ({ id }) =>
      ID.test(id) ? id : Bun.hash(id).toString(36).padStart(9, "0").slice(0, 9),
    read,
  };
}

/** Up to tokenizer version 7. */
export const mistralList = mistralDialect("mistral-list", {
  open: `${BEGIN}[`,
  close: "]",
  trigger: BEGIN,
  separator: ", ",
  begin: (name) => `{"name": ${JSON.stringify(name)}, "arguments": `,
  end: "}",
});

/** From tokenizer version 11 on. */
export const mistral = mistralDialect("mistral", {
  open: "",
  close: "",
  trigger: null, // calls have no end
  separator: "",
  begin: (name) => `${BEGIN}${name}${ARGS}`,
  end: "",
});
