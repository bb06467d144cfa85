/** The counter reads the whole grammar, so as a matcher it must agree with what is known to be right. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Counter, type CounterState, trim } from "../../../src/device/grammar/counter.ts";
import { Rules } from "../../../src/device/grammar/ir.ts";
import { rawSpelling, regexGrammar } from "../../../src/device/grammar/regex.ts";
import { SchemaGrammar } from "../../../src/device/grammar/schema.ts";

const NOTHING_LOOSE = { nodes: new Set<never>(), free: 0 };

function read(counter: Counter, text: string): CounterState | null {
  let state: CounterState | null = counter.start;
  for (const byte of Buffer.from(text)) {
    state = state === null ? null : counter.step(state, byte);
  }
  return state;
}

const accepts = (counter: Counter, text: string): boolean =>
  read(counter, text)?.isAccepting === true;

describe("regexGrammar()", () => {
  const PATTERNS = [
    "a*b",
    "(ab|a)(bc|c)?",
    "a{2,4}b{0,3}",
    "(a|b){3}c?",
    "(a{1,2}b?){2,3}",
    "[^a]c+",
    "a?b?c?",
    "(?:a|ab)*c",
    "((a|b)*c){1,2}",
    "[a-b]+|c",
    "é[à-ü]{1,2}",
    "\\w{2}.c*",
    "a.{2}|b.*c",
    "(a*)*b",
    "x{0}a",
  ];
  for (const pattern of PATTERNS) {
    test(`/^(?:${pattern})$/ fits what JavaScript's own fits`, () => {
      const rules = new Rules();
      const counter = new Counter(regexGrammar(pattern, rawSpelling, true), rules, NOTHING_LOOSE);
      const expected = new RegExp(`^(?:${pattern})$`, "u");
      const letters = fc.constantFrom("a", "b", "c", "é", "à", "\\n", "€", "😀");
      fc.assert(
        fc.property(fc.array(letters, { maxLength: 7 }), (list) => {
          const text = list.join("");
          expect([text, accepts(counter, text)]).toEqual([text, expected.test(text)]);
        }),
        { numRuns: 300 },
      );
    });
  }

  test("unanchored patterns are found anywhere, anchored ones where they stand", () => {
    const fits = (pattern: string, text: string) =>
      accepts(
        new Counter(regexGrammar(pattern, rawSpelling, false), new Rules(), NOTHING_LOOSE),
        text,
      );
    for (const [pattern, text] of [
      ["b", "abc"],
      ["^b", "abc"],
      ["c$", "abc"],
      ["^abc$", "abc"],
      ["^a|c$", "xxc"],
      ["^a|c$", "xcx"],
      ["", "anything"],
    ] as const)
      expect([pattern, text, fits(pattern, text)]).toEqual([
        pattern,
        text,
        new RegExp(pattern, "u").test(text),
      ]);
  });
});

describe("Counter", () => {
  test("lets a text go on only where its counts can still be met", () => {
    const rules = new Rules();
    const schema = { type: "string", pattern: "^[a-c]{2,40}@[a-c]+$", minLength: 6, maxLength: 9 };
    const counter = new Counter(new SchemaGrammar(rules, true).add(schema), rules, NOTHING_LOOSE);
    const letters = fc.constantFrom("a", "b", "c", "@", '"');
    fc.assert(
      fc.property(fc.array(letters, { maxLength: 14 }), (list) => {
        const text = `"${list.join("")}`;
        if (read(counter, text) === null) return;
        // Somewhere not far the text can be completed, one living letter after the other.
        expect(completes(counter, text)).toBe(true);
      }),
    );
  });

  test("reads bytes of characters one by one and nothing that is no UTF-8", () => {
    const rules = new Rules();
    const counter = new Counter(
      new SchemaGrammar(rules, true).add({ type: "string", maxLength: 3 }),
      rules,
      NOTHING_LOOSE,
    );
    expect(accepts(counter, '"é€😀"')).toBe(true);
    expect(accepts(counter, '"é€😀x"')).toBe(false);
    expect(accepts(counter, '"\\n\\u00e9x"')).toBe(true);
    const step = (...bytes: number[]) => {
      let state: CounterState | null = counter.start;
      for (const byte of [0x22, ...bytes]) state = state && counter.step(state, byte);
      return state;
    };
    for (const wrong of [
      [0xc0, 0xa2],
      [0xe0, 0x80],
      [0xf0, 0x80],
      [0xed, 0xa0],
      [0xf4, 0x90],
      [0x80],
      [0xff],
    ])
      expect([wrong, step(...wrong)]).toEqual([wrong, null]);
  });

  test("stays small where a pattern can be read in ever more ways", () => {
    const rules = new Rules();
    const node = regexGrammar("((a{1,50}){1,50}){1,50}", rawSpelling, true);
    const counter = new Counter(node, rules, NOTHING_LOOSE);
    const state = read(counter, "a".repeat(60));
    expect(state?.threads.length).toBeLessThanOrEqual(128);
    expect(state?.isAccepting).toBe(true);
  });
});

function completes(counter: Counter, text: string): boolean {
  const open = [text];
  for (let at = 0; at < open.length && at < 5000; at++) {
    const prefix = open[at] as string;
    if (accepts(counter, prefix)) return true;
    for (const letter of ["a", "@", '"'])
      if (read(counter, prefix + letter)) open.push(prefix + letter);
  }
  return false;
}

describe("what a counter remembers", () => {
  const counterOf = (pattern: string): Counter =>
    new Counter(regexGrammar(pattern, rawSpelling, true), new Rules(), NOTHING_LOOSE);
  /** States that the counter keeps alive. */
  const reached = ({ start }: Counter): number => {
    const seen = new Set([start]);
    for (const state of seen) for (const after of state.after ?? []) if (after) seen.add(after);
    return seen.size;
  };

  test("is bounded, however many places a text can be in", () => {
    const counter = counterOf("[a-d]{0,200}(,[a-d]{0,200}){0,149}");
    const text = Array.from({ length: 150 }, () => "abcd".repeat(50)).join(",");
    expect(accepts(counter, text)).toBe(true);
    expect(accepts(counter, `${text},`)).toBe(false);
    expect(counter.numStates).toBeLessThanOrEqual(20_000);
    expect(reached(counter)).toBeLessThanOrEqual(20_001);
  });

  test("can be forgotten in the middle of a text", () => {
    const counter = counterOf("(ab{2,30}c?){3}");
    let state: CounterState | null = counter.start;
    for (const byte of Buffer.from("abbbcabbabbbbbc")) {
      counter.forget();
      state = state === null ? null : counter.step(state, byte);
    }
    expect(state?.isAccepting).toBe(true);
    expect([accepts(counter, "abbabbabb"), accepts(counter, "abbabbab")]).toEqual([true, false]);
  });

  test("is forgotten by the first counters where all together remember too much", () => {
    const counters = ["a{0,90}", "b{0,90}", "c{0,90}"].map((pattern) => counterOf(pattern));
    for (const [i, counter] of counters.entries()) read(counter, "abc".charAt(i).repeat(80));
    const all = counters.map(({ numStates }) => numStates);
    trim(counters, 240);
    expect(counters.map(({ numStates }) => numStates)).toEqual(all);
    trim(counters, 100);
    expect(counters.map(({ numStates }) => numStates > 0)).toEqual([false, false, true]);
    expect(counters.map(reached)).toEqual([1, 1, 81]);
  });
});
