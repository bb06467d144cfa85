import type { Dialect } from "./dialect.ts";
import { closeCall, readJsonCall } from "./json.ts";
import type { Sink } from "./sink.ts";
import type { Parse, Source } from "./source.ts";
import { readName, readXmlCall, type XmlForm } from "./xml.ts";

const BEGIN = "<tool_call>";
const END = "</tool_call>";
const FUNCTION = "<function=";

/** `<parameter=key>\nvalue\n</parameter>` … `</function>` */
export const functionForm = (end: string): XmlForm => ({
  parameter: "<parameter=",
  keyEnd: ">",
  valueEnd: "</parameter>",
  close: "</function>",
  next: [end],
  trimsLines: true,
});
const FORM = functionForm(END);

/** Either payload, whichever comes: models are trained on both. */
function* read(source: Source, sink: Sink, begin: string): Parse {
  yield* source.blank();
  if (begin === FUNCTION || (yield* source.accept(FUNCTION))) {
    yield* readXmlCall(source, sink, yield* readName(source, ">"), FORM);
  } else yield* readJsonCall(source, sink);
  yield* closeCall(source, sink, END);
}

/** Hermes, Qwen 2.5 and 3, and models without a form of their own: JSON between tags. */
export const hermes: Dialect = {
  name: "hermes",
  begins: [BEGIN],
  markers: [END],
  grammar: {
    open: "",
    close: "",
    separator: "\n",
    trigger: BEGIN,
    begin: (name) => `${BEGIN}\n{"name": ${JSON.stringify(name)}, "arguments": `,
    end: `}\n${END}`,
  },
  read,
};

/** Qwen3-Coder and Qwen 3.5: elements between the same tags, which the model leaves out at times. */
export const qwen3Coder: Dialect = {
  name: "qwen3-coder",
  begins: [BEGIN, FUNCTION],
  markers: [END],
  grammar: null,
  read,
};
