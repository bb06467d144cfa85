import type { Dialect } from "./dialect.ts";
import { closeCall, readJsonCall } from "./json.ts";
import { readWhile } from "./python.ts";
import { readXmlCall } from "./xml.ts";

/** `name\n<arg_key>key</arg_key>\n<arg_value>value</arg_value>` between tags. */
function argKeyDialect(name: string, prefix: string): Dialect {
  const tag = (text: string) => `<${prefix}${text}>`;
  const end = tag("tool_call").replace("<", "</");
  const parts = ["arg_key", "arg_value"].flatMap((part) => [
    tag(part),
    tag(part).replace("<", "</"),
  ]);
  const [parameter = "", keyEnd = "", value = "", valueEnd = ""] = parts;
  return {
    name,
    begins: [tag("tool_call")],
    markers: [end, ...parts],
    grammar: null,
    *read(source, sink) {
      yield* source.blank();
      if ((yield* source.peek()) === "{") yield* readJsonCall(source, sink);
      else {
        const called = yield* readWhile(source, /[^\n<\uFDD0-\uFDEF]/);
        if (source.rest === "") throw source.missing();
        yield* readXmlCall(source, sink, called, {
          parameter,
          keyEnd,
          value,
          valueEnd,
          close: end,
          next: [],
          trimsLines: false,
        });
        sink.close();
        source.commit();
        return;
      }
      yield* closeCall(source, sink, end);
    },
  };
}

/** GLM 4.5 and later. */
export const glm = argKeyDialect("glm", "");
/** LongCat. */
export const longcat = argKeyDialect("longcat", "longcat_");
