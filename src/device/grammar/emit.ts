import type { Loose } from "./counter.ts";
import {
  countOf,
  GrammarError,
  intersectRanges,
  invertRanges,
  MAX_CODE_POINT,
  type Node,
  type Range,
  type Rules,
} from "./ir.ts";

/** Repetitions of wide items beyond this are not written out: each would be compiled against the whole vocabulary. */
const MAX_WIDE = 4;
const MAX_NARROW = 32;
/** Ways to spell a character that are repeated wherever it stands. */
const MAX_WAYS = 12;
/** An item whose first character is one of so many is narrow. */
const NARROW = 24;
/** Characters of a grammar's text at most. */
const MAX_LENGTH = 4_000_000;

/** A grammar as XGrammar reads it. */
export interface Emitted {
  readonly ebnf: string;
  /** The counts and lengths that the text leaves out; null: none. */
  readonly loose: Loose | null;
}

/** Writes what can be reached from `root`, with "root" as its first rule. */
export function emit(root: Node, rules: Rules): Emitted {
  const writer = new Writer(rules);
  const lines = [`root ::= ${writer.write(root)}`];
  let length = 0;
  for (const name of writer.names) {
    const line = `${name} ::= ${writer.write(rules.get(name))}`;
    length += line.length;
    if (length > MAX_LENGTH) throw new GrammarError("it is too large");
    lines.push(line);
  }
  lines.push(...writer.extra);
  const { looseNodes: nodes, free } = writer;
  return { ebnf: lines.join("\n"), loose: nodes.size === 0 ? null : { nodes, free } };
}

class Writer {
  /** Grows while rules are written. */
  readonly names = new Set<string>();
  /** Rules that come with those of the grammar. */
  readonly extra: string[] = [];
  readonly #classes = new Map<string, string>();
  readonly looseNodes = new Set<Node>();
  free = Number.POSITIVE_INFINITY;
  readonly #rules: Rules;

  constructor(rules: Rules) {
    this.#rules = rules;
  }

  write(node: Node): string {
    switch (node.kind) {
      case "text":
        return quote(node.text);
      case "chars":
        return grouped(this.#spellings(node.ranges));
      case "seq":
        return node.items.length === 0
          ? '""'
          : `(${node.items.map((item) => this.write(item)).join(" ")})`;
      case "alt":
        if (node.items.length === 0) throw new GrammarError("nothing satisfies it");
        return grouped(this.#ways(node));
      case "repeat":
        return this.#repeat(node, node.item, node.min, node.max);
      case "rule":
        this.names.add(node.name);
        return node.name;
      case "unit":
        return this.write(node.item);
      case "length":
        // A pattern may have to be left long before its length ends.
        this.#loosen(node, Number.POSITIVE_INFINITY, 0);
        return this.write(node.item);
      case "loose":
        this.#loosen(node, node.min, node.max);
        return this.write(node.loose);
    }
  }

  #loosen(node: Node, min: number, max: number): void {
    this.looseNodes.add(node);
    this.free = min > 0 ? 0 : Math.min(this.free, max);
  }

  #repeat(whole: Node, node: Node, min: number, max: number): string {
    if (max <= 0) return '""';
    const item = `(${this.write(node)})`;
    if (min === 0 && max === 1) return `${item}?`;
    const isFree = max === Number.POSITIVE_INFINITY;
    if (isFree && min <= 1) return this.#loop(node, min);
    const last = isFree ? min : max;
    if (last <= MAX_WIDE || (last <= MAX_NARROW && this.#isNarrow(node)))
      return `${item}{${min},${isFree ? "" : max}}`;
    this.#loosen(whole, min > 1 ? min : 0, max);
    return this.#loop(node, Math.min(min, 1));
  }

  /** Those with many ways have a rule of their own. */
  #spellings(ranges: readonly Range[]): string[] {
    const ways = spellings(ranges);
    if (ways.length <= MAX_WAYS) return ways;
    const body = ways.join(" | ");
    const name = this.#classes.get(body) ?? `class${this.#classes.size}`;
    if (!this.#classes.has(body)) this.extra.push(`${name} ::= ${body}`);
    this.#classes.set(body, name);
    return [name];
  }

  /** A rule that reads on by itself: XGrammar is slow where each round of a loop ends a rule. */
  #loop(item: Node, min: number): string {
    const ways = this.#ways(item);
    if (ways.length === 1 && /^\[[^\]]*\]$/.test(ways[0] as string))
      return `${ways[0]}${min === 0 ? "*" : "+"}`;
    const name = `loop${this.extra.length}`;
    this.extra.push(`${name} ::= "" | ${ways.map((way) => `${way} ${name}`).join(" | ")}`);
    return min === 0 ? name : grouped(ways.map((way) => `${way} ${name}`));
  }

  /** The alternatives of a node, each a sequence. */
  #ways(node: Node): string[] {
    switch (node.kind) {
      case "unit":
        return this.#ways(node.item);
      case "chars":
        return this.#spellings(node.ranges);
      case "alt":
        if (node.items.length === 0) throw new GrammarError("nothing satisfies it");
        return node.items.flatMap((item) => this.#ways(item));
      case "seq": {
        const [first, ...rest] = node.items;
        if (first === undefined) return ['""'];
        const ends = rest.map((item) => this.write(item)).join(" ");
        return this.#ways(first).map((way) => `${way} ${ends}`);
      }
      default:
        return [this.write(node)];
    }
  }

  #isNarrow(node: Node, depth = 0): boolean {
    if (depth > 16) return false;
    switch (node.kind) {
      case "text":
        return true;
      case "chars":
        return countOf(node.ranges) <= NARROW;
      case "seq":
        return node.items.every((item) => this.#isNarrow(item, depth + 1));
      case "alt":
        return (
          node.items.length <= 8 && node.items.every((item) => this.#isNarrow(item, depth + 1))
        );
      case "unit":
      case "length":
        return this.#isNarrow(node.item, depth + 1);
      case "repeat":
        return node.max <= MAX_WIDE && this.#isNarrow(node.item, depth + 1);
      case "rule":
        return this.#rules.has(node.name);
      case "loose":
        return false;
    }
  }
}

const grouped = (ways: readonly string[]): string =>
  ways.length === 1 ? (ways[0] as string) : `(${ways.join(" | ")})`;

function quote(value: string): string {
  let body = "";
  for (const char of value.toWellFormed()) {
    const code = char.codePointAt(0) as number;
    if (char === '"' || char === "\\") body += `\\${char}`;
    else body += code < 0x20 || code === 0x7f ? hex(code) : char;
  }
  return `"${body}"`;
}

const hex = (code: number): string =>
  code <= 0xff
    ? `\\x${code.toString(16).padStart(2, "0")}`
    : code <= 0xffff
      ? `\\u${code.toString(16).padStart(4, "0")}`
      : `\\U${code.toString(16).padStart(8, "0")}`;

const ASCII_END = 0x7f;
const BEYOND: readonly Range[] = [
  [0x80, 0xd7ff],
  [0xe000, MAX_CODE_POINT],
];

/**
 * The ways to spell a character of a class. XGrammar reads what a class lists as bytes, and lets an inverted class have
 * any bytes of characters beyond ASCII: lists beyond ASCII are spelled byte by byte. That all bytes are UTF-8 is seen
 * to elsewhere.
 */
function spellings(ranges: readonly Range[]): string[] {
  const beyond = intersectRanges(ranges, BEYOND);
  const ascii = ranges
    .filter(([from]) => from <= ASCII_END)
    .map(([from, to]): Range => [from, Math.min(to, ASCII_END)]);
  if (beyond.length === 2 && countOf(beyond) === countOf(BEYOND)) {
    const out = invertRanges(ranges).filter(([from]) => from <= ASCII_END);
    // XGrammar knows no empty class.
    return out.length === 0 ? ["[\\x00]", "[^\\x00]"] : [`[^${listOf(out)}]`];
  }
  const parts = ascii.length === 0 ? [] : [`[${listOf(ascii)}]`];
  // Characters that share all bytes but the last are spelled together.
  const lasts = new Map<string, Range[]>();
  for (const [from, to] of beyond)
    for (const bytes of utf8Ranges(from, to)) {
      const lead = bytes
        .slice(0, -1)
        .map((range) => `[${byteList([range])}] `)
        .join("");
      const list = lasts.get(lead) ?? [];
      list.push(bytes.at(-1) as Range);
      lasts.set(lead, list);
    }
  for (const [lead, list] of lasts) parts.push(`${lead}[${byteList(list)}]`);
  return parts;
}

/** A single byte is listed twice: alone XGrammar would take it for a character. */
const byteList = (ranges: readonly Range[]): string =>
  ranges
    .map(([from, to]) => (from === to ? hex(from) + hex(from) : `${hex(from)}-${hex(to)}`))
    .join("");

const listOf = (ranges: readonly Range[]): string =>
  ranges.map(([from, to]) => (from === to ? hex(from) : `${hex(from)}-${hex(to)}`)).join("");

/** Ranges of bytes, one after the other, that spell exactly the characters from `from` to `to`, which are beyond ASCII. */
function utf8Ranges(from: number, to: number): Range[][] {
  for (const last of [0x7ff, 0xffff])
    if (from <= last && to > last) return [...utf8Ranges(from, last), ...utf8Ranges(last + 1, to)];
  const length = to <= 0x7ff ? 2 : to <= 0xffff ? 3 : 4;
  // Cut where the bytes behind the first that differs do not run through all values.
  for (let i = 1; i < length; i++) {
    const mask = (1 << (6 * i)) - 1;
    if ((from & ~mask) === (to & ~mask)) continue;
    if ((from & mask) !== 0)
      return [...utf8Ranges(from, from | mask), ...utf8Ranges((from | mask) + 1, to)];
    if ((to & mask) !== mask)
      return [...utf8Ranges(from, (to & ~mask) - 1), ...utf8Ranges(to & ~mask, to)];
  }
  const [first, last] = [utf8(from, length), utf8(to, length)];
  return [first.map((byte, i): Range => [byte, last[i] as number])];
}

function utf8(code: number, length: number): number[] {
  const lead = [0xc0, 0xe0, 0xf0][length - 2] as number;
  const out = [lead | (code >> (6 * (length - 1)))];
  for (let i = length - 2; i >= 0; i--) out.push(0x80 | ((code >> (6 * i)) & 63));
  return out;
}
