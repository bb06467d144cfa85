import {
  alt,
  chars,
  GrammarError,
  invertRanges,
  type Node,
  type Rules,
  repeat,
  rule,
  seq,
  text,
  unit,
} from "./ir.ts";

/** Values in enum, const and examples are nested no deeper. */
const MAX_DEPTH = 200;

const HEX = chars([
  [0x30, 0x39],
  [0x41, 0x46],
  [0x61, 0x66],
]);
/** What stands between the quotes as it is. */
const PLAIN = chars(
  invertRanges([
    [0x00, 0x1f],
    [0x22, 0x22],
    [0x5c, 0x5c],
  ]),
);
/** After the backslash. No surrogates: a pair would count as two characters, a lone one is no text. */
const ESCAPE = alt(
  chars([...'"\\/bfnrt'].map((c) => [c.charCodeAt(0), c.charCodeAt(0)] as const)),
  seq(
    text("u"),
    alt(
      seq(
        chars([
          [0x30, 0x39],
          [0x41, 0x43],
          [0x45, 0x46],
          [0x61, 0x63],
          [0x65, 0x66],
        ]),
        repeat(HEX, 3, 3),
      ),
      seq(
        chars([
          [0x44, 0x44],
          [0x64, 0x64],
        ]),
        chars([[0x30, 0x37]]),
        repeat(HEX, 2, 2),
      ),
    ),
  ),
);
const CHARACTER = unit(alt(PLAIN, seq(text("\\"), ESCAPE)));

/** The rules of JSON itself: any value, any string; written as json.dumps does, a blank after comma and colon. */
export class JsonRules {
  readonly #rules: Rules;
  #string: Node | undefined;
  #some: Node | undefined;
  #object: Node | undefined;
  #array: Node | undefined;
  #value: Node | undefined;

  constructor(rules: Rules) {
    this.#rules = rules;
  }

  /** The rest of a string after its first quote. Reads on by itself: XGrammar is slow with a loop inside a sequence. */
  get #rest(): Node {
    if (this.#string === undefined) {
      const name = this.#rules.fresh();
      this.#string = rule(name);
      this.#rules.define(
        name,
        alt(text('"'), seq(PLAIN, this.#string), seq(text("\\"), ESCAPE, this.#string)),
      );
    }
    return this.#string;
  }

  get string(): Node {
    return seq(text('"'), this.#rest);
  }

  /** A string of `min` to `max` characters. */
  boundedString(min: number, max: number): Node {
    if (min <= 0 && max === Number.POSITIVE_INFINITY) return this.string;
    const rest = min > 0 ? this.#nonEmpty : this.#rest;
    if (min <= 1 && max === Number.POSITIVE_INFINITY) return seq(text('"'), rest);
    const exact = seq(
      { kind: "length", item: repeat(CHARACTER), min, max, isApart: true },
      text('"'),
    );
    return seq(text('"'), { kind: "loose", exact, loose: rest, min: min > 1 ? min : 0, max });
  }

  get #nonEmpty(): Node {
    this.#some ??= this.#rules.add(
      alt(seq(PLAIN, this.#rest), seq(text("\\"), ESCAPE, this.#rest)),
    );
    return this.#some;
  }

  get value(): Node {
    if (this.#value === undefined) {
      const name = this.#rules.fresh();
      this.#value = rule(name);
      this.#rules.define(
        name,
        alt(
          this.string,
          this.#number(),
          this.object,
          this.array,
          text("true"),
          text("false"),
          text("null"),
        ),
      );
    }
    return this.#value;
  }

  get object(): Node {
    if (this.#object === undefined) {
      const name = this.#rules.fresh();
      this.#object = rule(name);
      this.#rules.define(name, this.objectOf(this.string, this.value, 0, Number.POSITIVE_INFINITY));
    }
    return this.#object;
  }

  get array(): Node {
    if (this.#array === undefined) {
      const name = this.#rules.fresh();
      this.#array = rule(name);
      this.#rules.define(name, this.arrayOf(this.value, 0, Number.POSITIVE_INFINITY));
    }
    return this.#array;
  }

  objectOf(key: Node, value: Node, min: number, max: number): Node {
    return listOf("{", seq(key, text(": "), value), "}", min, max);
  }

  arrayOf(item: Node, min: number, max: number): Node {
    return listOf("[", item, "]", min, max);
  }

  #number(): Node {
    const digit = chars([[0x30, 0x39]]);
    const sign = repeat(text("-"), 0, 1);
    const whole = alt(text("0"), seq(chars([[0x31, 0x39]]), repeat(digit, 0, 15)));
    return seq(sign, whole, repeat(seq(text("."), repeat(digit, 1, 16)), 0, 1));
  }
}

function listOf(open: string, item: Node, close: string, min: number, max: number): Node {
  const full = (): Node =>
    seq(
      text(open),
      item,
      {
        kind: "repeat",
        item: seq(text(", "), item),
        min: Math.max(0, min - 1),
        max: max - 1,
        isApart: true,
      },
      text(close),
    );
  const empty = text(`${open}${close}`);
  if (max <= 0) return min > 0 ? alt() : empty;
  return min > 0 ? full() : alt(empty, full());
}

/** A value as json.dumps writes it. */
export function spellJson(value: unknown, depth = 0): string {
  if (depth > MAX_DEPTH) throw new GrammarError("a value is nested too deeply", "const");
  if (Array.isArray(value)) return `[${value.map((v) => spellJson(v, depth + 1)).join(", ")}]`;
  if (typeof value === "object" && value !== null) {
    const entries = Object.entries(value).map(
      ([key, v]) => `${JSON.stringify(key)}: ${spellJson(v, depth + 1)}`,
    );
    return `{${entries.join(", ")}}`;
  }
  return JSON.stringify(value);
}

/** Strings of plain characters that are none of `words`, with both quotes. */
export function stringExcept(words: readonly string[], rules: Rules): Node {
  interface Branch {
    readonly next: Map<number, Branch>;
    isWord: boolean;
  }
  const root: Branch = { next: new Map(), isWord: false };
  for (const word of words) {
    let at = root;
    for (const char of word) {
      const code = char.codePointAt(0) as number;
      let next = at.next.get(code);
      if (next === undefined) {
        next = { next: new Map(), isWord: false };
        at.next.set(code, next);
      }
      at = next;
    }
    at.isWord = true;
  }
  const free = rules.fresh();
  rules.define(free, alt(text('"'), seq(PLAIN, rule(free))));
  const names = new Map<Branch, string>([[root, rules.fresh()]]);
  for (const [branch, name] of names) {
    const parts: Node[] = branch.isWord ? [] : [text('"')];
    const taken = [...branch.next.keys()];
    const other = chars(
      invertRanges([
        [0x00, 0x1f],
        [0x22, 0x22],
        [0x5c, 0x5c],
        ...taken.map((code) => [code, code] as const),
      ]),
    );
    parts.push(seq(other, rule(free)));
    for (const [code, next] of branch.next) {
      // A name that has to be escaped is never spelled, so it needs no way.
      if (code < 0x20 || code === 0x22 || code === 0x5c) continue;
      const nextName = names.get(next) ?? rules.fresh();
      names.set(next, nextName);
      parts.push(seq(chars([[code, code]]), rule(nextName)));
    }
    rules.define(name, alt(...parts));
  }
  return seq(text('"'), rule(names.get(root) as string));
}
