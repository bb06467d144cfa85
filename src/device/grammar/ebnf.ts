import {
  alt,
  chars,
  EMPTY,
  GrammarError,
  invertRanges,
  type Node,
  type Range,
  type Rules,
  repeat,
  rule,
  seq,
  text,
} from "./ir.ts";

const MAX_DEPTH = 100;

/**
 * Reads a grammar in GBNF, as llama.cpp has it.
 *
 * @returns the rule "root"
 * @throws {GrammarError} for a syntax error or a rule that is missing
 */
export function ebnfGrammar(source: string, rules: Rules): Node {
  return new Parser(source, rules).read();
}

type Token =
  | { readonly kind: "name" | "mark"; readonly text: string; readonly at: number }
  | { readonly kind: "text"; readonly text: string; readonly at: number }
  | { readonly kind: "class"; readonly ranges: readonly Range[]; readonly at: number }
  | { readonly kind: "count"; readonly min: number; readonly max: number; readonly at: number };

class Parser {
  readonly #source: string;
  readonly #rules: Rules;
  readonly #names = new Map<string, string>();
  readonly #defined = new Set<string>();
  #tokens: readonly Token[] = [];
  #at = 0;
  #depth = 0;

  constructor(source: string, rules: Rules) {
    this.#source = source;
    this.#rules = rules;
  }

  read(): Node {
    this.#tokens = [...this.#scan()];
    while (this.#at < this.#tokens.length) {
      const name = this.#tokens[this.#at];
      if (name?.kind !== "name" || !this.#isDefinition(this.#at))
        throw this.#error("a rule is expected", name?.at);
      if (this.#defined.has(name.text))
        throw this.#error(`rule "${name.text}" is defined twice`, name.at);
      this.#defined.add(name.text);
      this.#at += 2;
      this.#rules.define(this.#nameOf(name.text), this.#alternatives());
    }
    for (const name of this.#names.keys())
      if (!this.#defined.has(name)) throw new GrammarError(`rule "${name}" is not defined`);
    if (!this.#defined.has("root")) throw new GrammarError('it has no rule "root"');
    return rule(this.#nameOf("root"));
  }

  #nameOf(name: string): string {
    const own = this.#names.get(name) ?? this.#rules.fresh();
    this.#names.set(name, own);
    return own;
  }

  #isDefinition(at: number): boolean {
    const next = this.#tokens[at + 1];
    return this.#tokens[at]?.kind === "name" && next?.kind === "mark" && next.text === "::=";
  }

  #alternatives(): Node {
    if (++this.#depth > MAX_DEPTH) throw this.#error("groups are nested too deeply");
    const items = [this.#sequence()];
    while (this.#take("|")) items.push(this.#sequence());
    this.#depth--;
    return items.length === 1 ? (items[0] as Node) : alt(...items);
  }

  #sequence(): Node {
    const items: Node[] = [];
    for (;;) {
      const token = this.#tokens[this.#at];
      if (token === undefined || this.#isDefinition(this.#at)) break;
      if (token.kind === "mark" && (token.text === "|" || token.text === ")")) break;
      items.push(this.#quantified(this.#element(token)));
    }
    if (items.length === 0) return EMPTY;
    return items.length === 1 ? (items[0] as Node) : seq(...items);
  }

  #element(token: Token): Node {
    this.#at++;
    switch (token.kind) {
      case "name":
        return rule(this.#nameOf(token.text));
      case "text":
        return text(token.text);
      case "class":
        return chars(token.ranges);
      case "mark":
        if (token.text === "(") {
          const inner = this.#alternatives();
          if (!this.#take(")")) throw this.#error("a ) is missing", token.at);
          return inner;
        }
        throw this.#error(`${token.text} stands where an element is expected`, token.at);
      case "count":
        throw this.#error("there is nothing to repeat", token.at);
    }
  }

  #quantified(item: Node): Node {
    let node = item;
    for (;;) {
      const token = this.#tokens[this.#at];
      if (token?.kind !== "count") return node;
      this.#at++;
      node = repeat(node, token.min, token.max);
    }
  }

  #take(mark: string): boolean {
    const token = this.#tokens[this.#at];
    if (token?.kind !== "mark" || token.text !== mark) return false;
    this.#at++;
    return true;
  }

  *#scan(): Generator<Token> {
    const source = this.#source;
    const form =
      /\s+|#[^\n]*|([a-zA-Z_][\w.-]*)|(::=|[|()])|"((?:[^"\\\n]|\\[\s\S])*)"|\[((?:[^\]\\]|\\[\s\S])*)\]|([*+?])|\{(\d*)(,?)(\d*)\}|(\.)/y;
    while (form.lastIndex < source.length) {
      const at = form.lastIndex;
      const match = form.exec(source);
      if (match === null) throw this.#error(`${JSON.stringify(source[at])} is not understood`, at);
      const [, name, mark, quoted, listed, sign, min, comma, max, dot] = match;
      if (name !== undefined) yield { kind: "name", text: name, at };
      else if (mark !== undefined) yield { kind: "mark", text: mark, at };
      else if (quoted !== undefined)
        yield {
          kind: "text",
          text: this.#unescape(quoted, at).join("").replaceAll(ESCAPED_DASH, "-"),
          at,
        };
      else if (listed !== undefined) yield { kind: "class", ranges: this.#classOf(listed, at), at };
      else if (dot !== undefined) yield { kind: "class", ranges: invertRanges([]), at };
      else if (sign !== undefined)
        yield {
          kind: "count",
          min: sign === "+" ? 1 : 0,
          max: sign === "?" ? 1 : Number.POSITIVE_INFINITY,
          at,
        };
      else if (min !== undefined) {
        if (min === "" && max === "") throw this.#error("a count has no number", at);
        const last =
          comma === "" ? Number(min) : max === "" ? Number.POSITIVE_INFINITY : Number(max);
        if (last < Number(min)) throw this.#error("a count ends before it begins", at);
        yield { kind: "count", min: Number(min), max: last, at };
      }
    }
  }

  /** The characters of a quoted text or of a class, escapes resolved; "-" between two stays as it is. */
  #unescape(source: string, at: number): string[] {
    const out: string[] = [];
    const form = /\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([\s\S]))|([\s\S])/gu;
    for (const [, x, u, long, escaped, plain] of source.matchAll(form)) {
      const code = x ?? u ?? long;
      if (code !== undefined) {
        const value = Number.parseInt(code, 16);
        if (value > 0x10ffff) throw this.#error("an escape is no character", at);
        out.push(String.fromCodePoint(value));
      } else if (escaped !== undefined) {
        const named: Readonly<Record<string, string>> = { n: "\n", r: "\r", t: "\t", 0: "\0" };
        // An escaped "-" is no range: it is told from a plain one by a mark that is taken off again.
        out.push(escaped === "-" ? ESCAPED_DASH : (named[escaped] ?? escaped));
      } else out.push(plain ?? "");
    }
    return out;
  }

  #classOf(source: string, at: number): readonly Range[] {
    const isInverted = source.startsWith("^");
    const list = this.#unescape(isInverted ? source.slice(1) : source, at);
    const codeOf = (char: string | undefined) =>
      char === ESCAPED_DASH ? 0x2d : (char?.codePointAt(0) ?? 0);
    const ranges: Range[] = [];
    for (let i = 0; i < list.length; i++) {
      const from = codeOf(list[i]);
      if (list[i + 1] === "-" && i + 2 < list.length) {
        const to = codeOf(list[i + 2]);
        if (to < from) throw this.#error("a range ends before it begins", at);
        ranges.push([from, to]);
        i += 2;
      } else ranges.push([from, from]);
    }
    return isInverted ? invertRanges(ranges) : ranges;
  }

  #error(what: string, at?: number): GrammarError {
    const line = at === undefined ? "" : ` (line ${this.#source.slice(0, at).split("\n").length})`;
    return new GrammarError(`${what}${line}`);
  }
}

const ESCAPED_DASH = "\\-";
