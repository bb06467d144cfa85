/** Where and why a text is not JSON. */
export interface SyntaxFault {
  /** Counted in UTF-16 units from 0. */
  readonly offset: number;
  readonly line: number;
  readonly column: number;
  readonly reason: string;
}

const SPACE = /[ \t\n\r]*/y;
// biome-ignore lint/suspicious/noControlCharactersInRegex: JSON forbids them in strings
const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
const SCALAR = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null/y;

/** What the grammar allows next. */
type Expected = "value" | "value or ]" | "name" | "name or }" | ":" | "next";

/**
 * The first fault of a text that JSON.parse refused; the runtime's own error tells no position. Keeps its own stack, so
 * depth costs nothing.
 */
export function findSyntaxFault(text: string): SyntaxFault | undefined {
  const closers: string[] = [];
  let at = 0;
  let expected: Expected = "value";

  const take = (pattern: RegExp): boolean => {
    pattern.lastIndex = at;
    if (!pattern.test(text)) return false;
    at = pattern.lastIndex;
    return true;
  };
  const fault = (reason: string): SyntaxFault => {
    const before = text.slice(0, at);
    const line = before.split("\n").length;
    return { offset: at, line, column: at - before.lastIndexOf("\n"), reason };
  };

  for (;;) {
    take(SPACE);
    const char = text[at];
    if (char === undefined) {
      if (expected === "next" && closers.length === 0) return undefined;
      return fault(text.trim() === "" ? "it is empty" : "it ends too early");
    }
    if (expected === "next") {
      const closer = closers.at(-1);
      if (closer === undefined) return fault("there is text after its end");
      if (char === closer) closers.pop();
      else if (char === ",") expected = closer === "}" ? "name" : "value";
      else return fault(`expected "," or "${closer}"`);
      at++;
    } else if (expected === ":") {
      if (char !== ":") return fault('expected ":"');
      at++;
      expected = "value";
    } else if (expected === "name" || expected === "name or }") {
      if (char === "}" && expected === "name or }") {
        closers.pop();
        at++;
        expected = "next";
      } else if (take(STRING)) expected = ":";
      else return fault("expected a name in double quotes");
    } else if (char === "]" && expected === "value or ]") {
      closers.pop();
      at++;
      expected = "next";
    } else if (char === "{" || char === "[") {
      closers.push(char === "{" ? "}" : "]");
      at++;
      expected = char === "{" ? "name or }" : "value or ]";
    } else if (take(STRING) || take(SCALAR)) expected = "next";
    else return fault(char === '"' ? "a string is not valid" : "expected a value");
  }
}
