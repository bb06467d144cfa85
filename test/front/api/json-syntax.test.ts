import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { findSyntaxFault } from "../../../src/front/api/json-syntax.ts";

const at = (text: string) => {
  const fault = findSyntaxFault(text);
  return fault && `${fault.line}:${fault.column} ${fault.reason}`;
};

const parses = (text: string): boolean => {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
};

describe("findSyntaxFault()", () => {
  const cases: [string, string][] = [
    ["", "1:1 it is empty"],
    [" \n ", "2:2 it is empty"],
    ['{"a":NaN}', "1:6 expected a value"],
    ['{"a":1,}', "1:8 expected a name in double quotes"],
    ["{'a':1}", "1:2 expected a name in double quotes"],
    ["[1,]", "1:4 expected a value"],
    ["[1 2]", '1:4 expected "," or "]"'],
    ['{"a":1]', '1:7 expected "," or "}"'],
    ['{"a" 1}', '1:6 expected ":"'],
    ['{"a":1', "1:7 it ends too early"],
    ['{"a":\n  "b\n"}', "2:3 a string is not valid"],
    ['"\\x"', "1:1 a string is not valid"],
    ["{} {}", "1:4 there is text after its end"],
    ["01", "1:2 there is text after its end"],
  ];
  for (const [text, expected] of cases) {
    test(`findSyntaxFault() finds the place in ${JSON.stringify(text)}`, () =>
      expect(at(text)).toBe(expected));
  }

  test("findSyntaxFault() finds nothing in any JSON text", () => {
    fc.assert(fc.property(fc.json(), (text) => expect(findSyntaxFault(text)).toBeUndefined()));
  });

  test("findSyntaxFault() agrees with JSON.parse on damaged texts", () => {
    const damaged = fc
      .tuple(fc.json(), fc.nat(), fc.constantFrom("", '"', "{", "]", ",", ":", "0", "x", "\\"))
      .map(([text, place, insert]) => {
        const cut = place % (text.length + 1);
        return text.slice(0, cut) + insert + text.slice(cut + 1);
      });
    fc.assert(
      fc.property(damaged, (text) =>
        expect(findSyntaxFault(text) === undefined).toBe(parses(text)),
      ),
      { numRuns: 2000 },
    );
  });

  test("findSyntaxFault() survives 200,000 open brackets", () => {
    expect(findSyntaxFault("[".repeat(200_000))?.reason).toBe("it ends too early");
  });
});
