/** Code points, both ends included. */
export type Range = readonly [from: number, to: number];

/** What a text may be; the characters of texts are code points. */
export type Node =
  | { readonly kind: "text"; readonly text: string }
  /** One character; ranges ascend and do not touch. */
  | { readonly kind: "chars"; readonly ranges: readonly Range[] }
  | { readonly kind: "seq"; readonly items: readonly Node[] }
  /** No alternative at all: nothing fits. */
  | { readonly kind: "alt"; readonly items: readonly Node[] }
  | {
      readonly kind: "repeat";
      readonly item: Node;
      readonly min: number;
      readonly max: number;
      /** What follows begins with another character than the item: where the count ends, only one way is left. */
      readonly isApart?: boolean;
    }
  | { readonly kind: "rule"; readonly name: string }
  /** One character of a string, however it is spelled; what "length" counts. */
  | { readonly kind: "unit"; readonly item: Node }
  /** Between min and max units; not nested. */
  | {
      readonly kind: "length";
      readonly item: Node;
      readonly min: number;
      readonly max: number;
      readonly isApart?: boolean;
    }
  /** `exact`, which XGrammar sees as `loose`, the same without its count of `min` (0: that it does see) to `max` characters. */
  | {
      readonly kind: "loose";
      readonly exact: Node;
      readonly loose: Node;
      readonly min: number;
      readonly max: number;
    };

export const MAX_CODE_POINT = 0x10ffff;

export const text = (value: string): Node => ({ kind: "text", text: value });
export const seq = (...items: readonly Node[]): Node => ({ kind: "seq", items });
export const alt = (...items: readonly Node[]): Node => ({ kind: "alt", items });
export const rule = (name: string): Node => ({ kind: "rule", name });
export const unit = (item: Node): Node => ({ kind: "unit", item });
export const EMPTY: Node = seq();
export const NOTHING: Node = alt();
export const repeat = (item: Node, min = 0, max = Number.POSITIVE_INFINITY): Node => ({
  kind: "repeat",
  item,
  min,
  max,
});

export const chars = (ranges: readonly Range[]): Node => {
  const merged = mergeRanges(ranges);
  return merged.length === 0 ? NOTHING : { kind: "chars", ranges: merged };
};

/** Ascending ranges that neither overlap nor touch. */
export function mergeRanges(ranges: readonly Range[]): Range[] {
  const out: [number, number][] = [];
  for (const [from, to] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const last = out.at(-1);
    if (last !== undefined && from <= last[1] + 1) last[1] = Math.max(last[1], to);
    else out.push([from, to]);
  }
  return out;
}

/** All characters but those; surrogates are no characters. */
export function invertRanges(ranges: readonly Range[]): Range[] {
  const out: Range[] = [];
  let next = 0;
  for (const [from, to] of mergeRanges([...ranges, [0xd800, 0xdfff]])) {
    if (from > next) out.push([next, from - 1]);
    next = to + 1;
  }
  if (next <= MAX_CODE_POINT) out.push([next, MAX_CODE_POINT]);
  return out;
}

/** Characters that are in both. */
export function intersectRanges(a: readonly Range[], b: readonly Range[]): Range[] {
  return invertRanges([...invertRanges(a), ...invertRanges(b)]);
}

export function countOf(ranges: readonly Range[]): number {
  return ranges.reduce((sum, [from, to]) => sum + to - from + 1, 0);
}

export function includes(ranges: readonly Range[], code: number): boolean {
  for (const [from, to] of ranges) if (code >= from && code <= to) return true;
  return false;
}

/** Nodes of one grammar at most; what is larger takes too long to compile. */
const MAX_RULES = 30_000;

/** Rules by name. A rule may be named before it is defined. */
export class Rules {
  readonly #nodes = new Map<string, Node>();
  #next = 0;

  /** A name that no other rule has. */
  fresh(): string {
    if (this.#next >= MAX_RULES) throw new GrammarError("it is too large");
    return `r${this.#next++}`;
  }

  define(name: string, node: Node): Node {
    this.#nodes.set(name, node);
    return rule(name);
  }

  add(node: Node): Node {
    return this.define(this.fresh(), node);
  }

  has(name: string): boolean {
    return this.#nodes.has(name);
  }

  get(name: string): Node {
    const node = this.#nodes.get(name);
    if (node === undefined) throw new GrammarError(`rule "${name}" is not defined`);
    return node;
  }

  /**
   * Takes out what can never be completed, such as an object that must hold itself.
   *
   * @returns false if nothing is left of `root`
   */
  prune(root: Node): boolean {
    const productive = new Set<string>();
    // Mostly a rule is defined before those that it names: backwards few rounds are enough.
    const backwards = [...this.#nodes].reverse();
    for (let grew = true; grew; ) {
      grew = false;
      for (const [name, node] of backwards) {
        if (productive.has(name) || !isProductive(node, productive)) continue;
        productive.add(name);
        grew = true;
      }
    }
    for (const [name, node] of this.#nodes) this.#nodes.set(name, without(node, productive));
    return isProductive(root, productive);
  }
}

/** A grammar that cannot be enforced; `keyword` is what it is about, where that is known. */
export class GrammarError extends Error {
  readonly keyword: string | undefined;

  constructor(message: string, keyword?: string) {
    super(message);
    this.keyword = keyword;
  }
}

function isProductive(node: Node, rules: ReadonlySet<string>): boolean {
  switch (node.kind) {
    case "text":
    case "chars":
      return true;
    case "seq":
      return node.items.every((item) => isProductive(item, rules));
    case "alt":
      return node.items.some((item) => isProductive(item, rules));
    case "repeat":
      return node.min === 0 || isProductive(node.item, rules);
    case "rule":
      return rules.has(node.name);
    case "unit":
    case "length":
      return isProductive(node.item, rules);
    case "loose":
      return isProductive(node.exact, rules);
  }
}

function without(node: Node, rules: ReadonlySet<string>): Node {
  switch (node.kind) {
    case "alt":
      return alt(
        ...node.items
          .filter((item) => isProductive(item, rules))
          .map((item) => without(item, rules)),
      );
    case "seq":
      return seq(...node.items.map((item) => without(item, rules)));
    case "repeat":
      return isProductive(node.item, rules) ? { ...node, item: without(node.item, rules) } : EMPTY;
    default:
      return node;
  }
}
