import {
  alt,
  chars,
  countOf,
  EMPTY,
  GrammarError,
  intersectRanges,
  invertRanges,
  type Node,
  type Range,
  repeat,
  seq,
  text,
  unit,
} from "./ir.ts";

/** Nested groups at most. */
const MAX_DEPTH = 100;
/** More characters than that are not listed one by one with their escapes. */
const WIDE = 128;

const DIGIT: Range[] = [[0x30, 0x39]];
const WORD: Range[] = [
  [0x30, 0x39],
  [0x41, 0x5a],
  [0x5f, 0x5f],
  [0x61, 0x7a],
];
const SPACE: Range[] = [
  [0x09, 0x0d],
  [0x20, 0x20],
  [0xa0, 0xa0],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
  [0xfeff, 0xfeff],
];
const NEW_LINE: Range[] = [
  [0x0a, 0x0a],
  [0x0d, 0x0d],
  [0x2028, 0x2029],
];
/** What JSON text must escape: control characters, the quote and the backslash. */
const ESCAPED: Range[] = [
  [0x00, 0x1f],
  [0x22, 0x22],
  [0x5c, 0x5c],
];
const UNESCAPED = invertRanges(ESCAPED);

/** Spells the characters of a class; `raw` as they are. */
export type Spell = (ranges: readonly Range[]) => Node;

export const rawSpelling: Spell = chars;

/** As between the quotes of a JSON string. Of large classes only what needs no escape: a smaller language, and a quick one. */
export const jsonSpelling: Spell = (ranges) => {
  const plain = intersectRanges(ranges, UNESCAPED);
  const escaped = intersectRanges(ranges, ESCAPED);
  if (escaped.length === 0 || (plain.length > 0 && countOf(ranges) > WIDE))
    return unit(chars(plain));
  const spelled: Node[] = plain.length > 0 ? [chars(plain)] : [];
  for (const [from, to] of escaped)
    for (let code = from; code <= to; code++)
      spelled.push(text(JSON.stringify(String.fromCharCode(code)).slice(1, -1)));
  return unit(alt(...spelled));
};

/**
 * Reads an ECMAScript pattern as a grammar.
 *
 * @param isWhole the text is matched from its first to its last character, as if the pattern stood between ^ and $
 * @throws {GrammarError} for a syntax error, and for what is no regular language (look-around, back-references, \b)
 */
export function regexGrammar(pattern: string, spell: Spell, isWhole: boolean): Node {
  return new Parser(pattern, spell).read(isWhole);
}

/** One way through the pattern, and whether it is tied to the ends of the text. */
interface Branch {
  readonly node: Node;
  readonly isStart: boolean;
  readonly isEnd: boolean;
}

class Parser {
  readonly #source: readonly string[];
  readonly #pattern: string;
  readonly #spell: Spell;
  #at = 0;
  #depth = 0;
  /** A property was read, of which only the Basic Multilingual Plane is known: no other characters are let through. */
  #hasProperty = false;

  constructor(pattern: string, spell: Spell) {
    this.#pattern = pattern;
    this.#source = [...pattern];
    this.#spell = spell;
  }

  read(isWhole: boolean): Node {
    const branches = this.#branches();
    if (this.#at < this.#source.length) throw this.#error("unbalanced )");
    const anything = repeat(this.#spell(invertRanges([])));
    return alt(
      ...branches.map(({ node, isStart, isEnd }) =>
        seq(isWhole || isStart ? EMPTY : anything, node, isWhole || isEnd ? EMPTY : anything),
      ),
    );
  }

  #branches(): Branch[] {
    const out = [this.#branch()];
    while (this.#take("|")) out.push(this.#branch());
    return out;
  }

  #branch(): Branch {
    const items: Node[] = [];
    let isStart = false;
    let isEnd = false;
    for (;;) {
      const next = this.#source[this.#at];
      if (next === undefined || next === "|" || next === ")") break;
      if (this.#take("^")) {
        if (items.length > 0) throw this.#error("^ inside", "pattern");
        isStart = true;
        continue;
      }
      if (this.#take("$")) {
        isEnd = true;
        continue;
      }
      if (isEnd) throw this.#error("$ inside", "pattern");
      items.push(this.#quantified(this.#atom()));
    }
    return { node: items.length === 1 ? (items[0] as Node) : seq(...items), isStart, isEnd };
  }

  #quantified(item: Node): Node {
    let node = item;
    if (this.#take("*")) node = repeat(item);
    else if (this.#take("+")) node = repeat(item, 1);
    else if (this.#take("?")) node = repeat(item, 0, 1);
    else {
      const count = /^\{(\d+)(?:(,)(\d*))?\}/.exec(
        this.#source.slice(this.#at, this.#at + 24).join(""),
      );
      if (count === null) return item;
      this.#at += count[0].length;
      const min = Number(count[1]);
      const max =
        count[2] === undefined
          ? min
          : count[3] === ""
            ? Number.POSITIVE_INFINITY
            : Number(count[3]);
      if (max < min) throw this.#error("a count whose end is before its begin");
      node = repeat(item, min, max);
    }
    this.#take("?"); // lazy or not, the language is the same
    if (/[*+?]/.test(this.#source[this.#at] ?? "")) throw this.#error("nothing to repeat");
    return node;
  }

  #atom(): Node {
    const char = this.#source[this.#at++] as string;
    switch (char) {
      case ".":
        return this.#spell(invertRanges(NEW_LINE));
      case "[":
        return this.#spell(this.#known(() => this.#class()));
      case "(":
        return this.#group();
      case "\\":
        return this.#spell(this.#known(() => this.#escape(false)));
      case "*":
      case "+":
      case "?":
        throw this.#error("nothing to repeat");
      default:
        return this.#spell([codeRange(char)]);
    }
  }

  #group(): Node {
    if (this.#take("?")) {
      const isNamed =
        this.#source[this.#at] === "<" && !/[=!]/.test(this.#source[this.#at + 1] ?? "");
      if (isNamed) {
        while (this.#at < this.#source.length && this.#source[this.#at] !== ">") this.#at++;
        this.#at++;
      } else if (!this.#take(":")) throw this.#error("look-around", "pattern");
    }
    if (++this.#depth > MAX_DEPTH) throw this.#error("groups nested too deeply");
    const branches = this.#branches();
    this.#depth--;
    if (!this.#take(")")) throw this.#error("a group without its end");
    if (branches.some((branch) => branch.isStart || branch.isEnd))
      throw this.#error("an anchor in a group", "pattern");
    const nodes = branches.map((branch) => branch.node);
    return nodes.length === 1 ? (nodes[0] as Node) : alt(...nodes);
  }

  #known(read: () => Range[]): Range[] {
    this.#hasProperty = false;
    const ranges = read();
    return this.#hasProperty ? intersectRanges(ranges, [[0, 0xffff]]) : ranges;
  }

  #class(): Range[] {
    const isInverted = this.#take("^");
    const ranges: Range[] = [];
    for (;;) {
      const char = this.#source[this.#at++];
      if (char === undefined) throw this.#error("a class without its end");
      if (char === "]") break;
      const first = char === "\\" ? this.#escape(true) : [codeRange(char)];
      const isRange =
        this.#source[this.#at] === "-" && !["]", undefined].includes(this.#source[this.#at + 1]);
      if (!isRange || first.length !== 1 || first[0]?.[0] !== first[0]?.[1]) {
        ranges.push(...first);
        continue;
      }
      this.#at++;
      const end = this.#source[this.#at++] as string;
      const last = end === "\\" ? this.#escape(true) : [codeRange(end)];
      const [from] = first[0] as Range;
      const to = last[0]?.[1] ?? 0;
      if (last.length !== 1 || to < from)
        throw this.#error("a range whose end is before its begin");
      ranges.push([from, to]);
    }
    return isInverted ? invertRanges(ranges) : ranges;
  }

  #escape(isInClass: boolean): Range[] {
    const char = this.#source[this.#at++];
    switch (char) {
      case undefined:
        throw this.#error("a lone \\ at the end");
      case "d":
        return DIGIT;
      case "D":
        return invertRanges(DIGIT);
      case "w":
        return WORD;
      case "W":
        return invertRanges(WORD);
      case "s":
        return SPACE;
      case "S":
        return invertRanges(SPACE);
      case "n":
        return [[0x0a, 0x0a]];
      case "r":
        return [[0x0d, 0x0d]];
      case "t":
        return [[0x09, 0x09]];
      case "v":
        return [[0x0b, 0x0b]];
      case "f":
        return [[0x0c, 0x0c]];
      case "0":
        return [[0, 0]];
      case "x":
        return [this.#hex(/^[0-9a-fA-F]{2}/)];
      case "u":
        return [this.#hex(/^(?:[0-9a-fA-F]{4}|\{[0-9a-fA-F]{1,6}\})/)];
      case "p":
      case "P":
        return this.#property(char === "P");
      case "b":
        if (isInClass) return [[0x08, 0x08]];
        throw this.#error("\\b", "pattern");
      default:
        if (/[1-9kB]/.test(char)) throw this.#error(`\\${char}`, "pattern");
        return [codeRange(char)];
    }
  }

  #hex(form: RegExp): Range {
    const digits = form.exec(this.#source.slice(this.#at, this.#at + 10).join(""))?.[0];
    if (digits === undefined) throw this.#error("an escape that is not complete");
    this.#at += digits.length;
    const code = Number.parseInt(digits.replace(/[{}]/g, ""), 16);
    return [code, code];
  }

  #property(isInverted: boolean): Range[] {
    const name = /^\{([\w=]+)\}/.exec(this.#source.slice(this.#at, this.#at + 64).join(""))?.[1];
    if (name === undefined) throw this.#error("\\p without a name");
    this.#at += name.length + 2;
    const ranges = propertyRanges(name);
    this.#hasProperty = true;
    if (ranges === null) throw this.#error(`\\p{${name}}`);
    return isInverted ? invertRanges(ranges) : ranges;
  }

  #take(char: string): boolean {
    if (this.#source[this.#at] !== char) return false;
    this.#at++;
    return true;
  }

  #error(what: string, keyword?: string): GrammarError {
    return new GrammarError(
      `the pattern ${JSON.stringify(this.#pattern.slice(0, 80))} has ${what}`,
      keyword,
    );
  }
}

const codeRange = (char: string): Range => {
  const code = char.codePointAt(0) as number;
  return [code, code];
};

const properties = new Map<string, Range[] | null>();

/** The characters of a Unicode property in the Basic Multilingual Plane, by asking JavaScript's own pattern for each; null: there is no such one. */
function propertyRanges(name: string): Range[] | null {
  const known = properties.get(name);
  if (known !== undefined) return known;
  let ranges: [number, number][] | null = [];
  try {
    const pattern = new RegExp(`^\\p{${name}}$`, "u");
    for (let code = 0; code <= 0xffff; code++) {
      if (code === 0xd800) code = 0xe000;
      if (!pattern.test(String.fromCodePoint(code))) continue;
      const last = ranges.at(-1);
      if (last !== undefined && last[1] === code - 1) last[1] = code;
      else ranges.push([code, code]);
    }
  } catch {
    ranges = null; // not a property of Unicode
  }
  properties.set(name, ranges);
  return ranges;
}
