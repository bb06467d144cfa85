import type { Sink } from "./sink.ts";
import { NotACall, type Parse, type Source } from "./source.ts";
import { ParameterTypes } from "./values.ts";

const MAX_NAME = 1024;

/** How a call is written whose parameters are elements, each with a text. */
export interface XmlForm {
  /** Before a parameter's key. */
  readonly parameter: string;
  readonly keyEnd: string;
  /** Between key and value, white space allowed before it. */
  readonly value?: string;
  readonly valueEnd: string;
  /** After the last parameter. */
  readonly close: string;
  /** What may stand in its place where a model forgets it; not taken. */
  readonly next: readonly string[];
  /** A line feed at each end of a value is not part of it. */
  readonly trimsLines: boolean;
  /** Attributes follow the key, up to ">"; string="true" and string="false" tell the value's type. */
  readonly hasAttributes?: boolean;
}

/** The text before `end`, which is taken. */
export function* readName(source: Source, end: string): Parse<string> {
  let name = "";
  const stop = yield* source.until([end], (text) => {
    name += text;
    if (name.length > MAX_NAME) throw new NotACall();
  });
  if (stop === null) throw source.missing();
  return name;
}

/** The text before the first of `ends`, none of which is taken. */
export function* readBefore(source: Source, ends: readonly string[]): Parse<string> {
  let name = "";
  while (!(yield* source.isNext(ends))) {
    if ((yield* source.peek()) === "") throw source.missing();
    name += source.take(1);
    if (name.length > MAX_NAME) throw new NotACall();
  }
  return name;
}

/**
 * Reads the parameters of the call `name` and opens and closes it. Parameters that are strings by their schema are told
 * as they come.
 *
 * @throws {NotACall}
 */
export function* readXmlCall(source: Source, sink: Sink, name: string, form: XmlForm): Parse {
  const types = new ParameterTypes(sink.open(name.trim()).parameters);
  let lead = "{";
  for (;;) {
    yield* source.blank();
    if (yield* source.accept(form.close)) break;
    if (yield* source.isNext(form.next)) break;
    if (source.rest === "") {
      if (source.ended === "stop" && lead !== "{") break; // forgotten at the end
      throw source.missing();
    }
    yield* source.expect(form.parameter);
    const key = yield* readName(source, form.keyEnd);
    let isString: boolean | undefined;
    if (form.hasAttributes === true) {
      const attributes = yield* readName(source, ">");
      isString = /\bstring="(true|false)"/.exec(attributes)?.[1] === "true";
    }
    if (form.value !== undefined) {
      yield* source.blank();
      yield* source.expect(form.value);
    }
    sink.arguments(`${lead}${JSON.stringify(key.trim())}: `);
    lead = ", ";
    if (isString ?? types.isString(key.trim())) {
      sink.arguments('"');
      yield* readValue(source, form, (text) => sink.arguments(JSON.stringify(text).slice(1, -1)));
      sink.arguments('"');
    } else {
      const parts: string[] = [];
      yield* readValue(source, form, (text) => parts.push(text));
      sink.arguments(types.toJson(key.trim(), parts.join("")));
    }
  }
  sink.arguments(lead === "{" ? "{}" : "}");
}

/** Tells a value's text. Its end marker within it is text where nothing follows that may follow a value. */
function* readValue(source: Source, form: XmlForm, tell: (text: string) => void): Parse {
  let isFirst = form.trimsLines;
  let held = "";
  const tellHeld = (text: string) => {
    const all = held + (isFirst ? text.replace(/^\r?\n/, "") : text);
    isFirst = false;
    const length = form.trimsLines ? (/\r?\n?$/.exec(all)?.index ?? all.length) : all.length;
    held = all.slice(length);
    if (length > 0) tell(all.slice(0, length));
  };
  if (form.trimsLines) yield* source.peek();
  for (;;) {
    const stop = yield* source.until([form.valueEnd], tellHeld);
    if (stop === null) throw source.missing();
    const blank = yield* source.blank();
    if (source.rest === "" && source.ended !== "length") return;
    if (yield* source.isNext([form.parameter, form.close, ...form.next])) return;
    tellHeld(stop + blank);
  }
}
