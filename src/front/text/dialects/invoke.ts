import type { Dialect } from "./dialect.ts";
import { functionForm } from "./hermes.ts";
import type { Sink } from "./sink.ts";
import { NotACall, type Parse, type Source } from "./source.ts";
import { readName, readXmlCall, type XmlForm } from "./xml.ts";

interface InvokeForm extends XmlForm {
  /** Before the name of a call. */
  readonly invoke: string;
  readonly nameEnd: string;
}

/** Several calls between one pair of tags. */
function* readInvokes(source: Source, sink: Sink, form: InvokeForm, end: string): Parse {
  for (let isFirst = true; ; isFirst = false) {
    yield* source.blank();
    if (yield* source.accept(end)) return;
    if (!(yield* source.accept(form.invoke))) {
      if (isFirst) throw new NotACall();
      return; // the end marker was forgotten
    }
    yield* readXmlCall(source, sink, yield* readName(source, form.nameEnd), form);
    sink.close();
    source.commit();
  }
}

function invokeDialect(
  name: string,
  ends: Readonly<Record<string, string>>,
  form: InvokeForm,
  markers: readonly string[] = [],
): Dialect {
  return {
    name,
    begins: Object.keys(ends),
    markers: [...Object.values(ends), ...markers],
    grammar: null,
    read: (source, sink, begin) => readInvokes(source, sink, form, ends[begin] ?? ""),
  };
}

const attributeForm = (prefix: string, end: string): InvokeForm => ({
  invoke: `<${prefix}invoke name="`,
  nameEnd: '">',
  parameter: `<${prefix}parameter name="`,
  keyEnd: '">',
  valueEnd: `</${prefix}parameter>`,
  close: `</${prefix}invoke>`,
  next: [end],
  trimsLines: false,
});

/** MiniMax M2. */
export const minimax = invokeDialect(
  "minimax",
  { "<minimax:tool_call>": "</minimax:tool_call>" },
  attributeForm("", "</minimax:tool_call>"),
);

const DSML = "｜DSML｜";

/** DeepSeek V3.2 and later. */
export const dsml = invokeDialect(
  "dsml",
  {
    [`<${DSML}function_calls>`]: `</${DSML}function_calls>`,
    [`<${DSML}tool_calls>`]: `</${DSML}tool_calls>`,
  },
  { ...attributeForm(DSML, `</${DSML}`), keyEnd: '"', hasAttributes: true },
  [DSML],
);

/** Seed-OSS: Qwen3-Coder's elements between tags of its own. */
export const seed = invokeDialect(
  "seed",
  { "<seed:tool_call>": "</seed:tool_call>" },
  { ...functionForm("</seed:tool_call>"), invoke: "<function=", nameEnd: ">" },
);
