import type { Loose } from "./counter.ts";
import { ebnfGrammar } from "./ebnf.ts";
import { emit } from "./emit.ts";
import {
  alt,
  chars,
  EMPTY,
  GrammarError,
  invertRanges,
  type Node,
  type Rules,
  repeat,
  rule,
  seq,
  text,
} from "./ir.ts";
import { rawSpelling, regexGrammar } from "./regex.ts";
import { SchemaGrammar } from "./schema.ts";

const MAX_DEPTH = 50;

type JsonObject = Readonly<Record<string, unknown>>;

/** A structural tag in two forms: for XGrammar with our own grammars inside, and as a grammar for the counter. */
export interface StructuralGrammar {
  readonly tag: JsonObject;
  readonly node: Node;
  /** Of all its parts. */
  readonly loose: Loose | null;
  readonly ignored: readonly string[];
}

/**
 * Reads an XGrammar structural tag. The parts that are schemas, patterns and grammars become ours.
 *
 * @throws {GrammarError} for what is malformed or cannot be enforced
 */
export function structuralGrammar(
  source: unknown,
  rules: Rules,
  isStrict: boolean,
): StructuralGrammar {
  if (!isObject(source)) throw new GrammarError("the structural tag is no object");
  const format =
    source["type"] === "structural_tag" || "format" in source ? source["format"] : source;
  const reader = new Reader(rules, isStrict);
  const { form, node } = reader.read(format, 0, null);
  return {
    tag: { type: "structural_tag", format: form },
    node,
    loose: reader.loose,
    ignored: [...reader.ignored],
  };
}

interface Part {
  /** For XGrammar. */
  readonly form: JsonObject;
  readonly node: Node;
}

class Reader {
  readonly ignored = new Set<string>();
  loose: Loose | null = null;
  readonly #rules: Rules;
  readonly #isStrict: boolean;

  constructor(rules: Rules, isStrict: boolean) {
    this.#rules = rules;
    this.#isStrict = isStrict;
  }

  /** @param end what ends the tag around it; free text goes up to there */
  read(format: unknown, depth: number, end: string | null): Part {
    if (depth > MAX_DEPTH) throw new GrammarError("the structural tag is nested too deeply");
    if (!isObject(format)) throw new GrammarError("a format of the structural tag is no object");
    const inner = (keyword: string): Part[] =>
      listAt(format, keyword).map((item) => this.read(item, depth + 1, end));
    switch (format["type"]) {
      case "const_string": {
        const value = stringAt(format, "value");
        return { form: { type: "const_string", value }, node: text(value) };
      }
      case "json_schema": {
        const schema = new SchemaGrammar(this.#rules, this.#isStrict);
        const node = schema.add(format["json_schema"]);
        for (const keyword of schema.ignored) this.ignored.add(keyword);
        return this.#own(node);
      }
      case "regex":
        return this.#own(regexGrammar(stringAt(format, "pattern"), rawSpelling, true));
      case "grammar":
        return this.#own(ebnfGrammar(stringAt(format, "grammar"), this.#rules));
      case "any_text":
        return { form: { type: "any_text" }, node: end === null ? repeat(ANY) : this.#upTo(end) };
      case "sequence": {
        const parts = inner("elements");
        return { form: { type: "sequence", elements: forms(parts) }, node: seq(...nodes(parts)) };
      }
      case "or": {
        const parts = inner("elements");
        return { form: { type: "or", elements: forms(parts) }, node: alt(...nodes(parts)) };
      }
      case "tag":
        return this.#tag(format, depth);
      case "triggered_tags":
        return this.#triggered(format, depth);
      case "tags_with_separator":
        return this.#separated(format, depth);
      default:
        throw new GrammarError(
          `the format ${JSON.stringify(format["type"])?.slice(0, 80)} of the structural tag is not known`,
        );
    }
  }

  #own(node: Node): Part {
    if (!this.#rules.prune(node)) throw new GrammarError("no text satisfies it");
    const { ebnf, loose } = emit(node, this.#rules);
    if (loose !== null) {
      const free = Math.min(loose.free, this.loose?.free ?? loose.free);
      this.loose = { nodes: new Set([...(this.loose?.nodes ?? []), ...loose.nodes]), free };
    }
    return { form: { type: "grammar", grammar: ebnf }, node };
  }

  #tag(format: JsonObject, depth: number): Part {
    const begin = stringAt(format, "begin");
    const end = stringAt(format, "end");
    const content = this.read(format["content"], depth + 1, end);
    // Free text brings its own end.
    const isFree = isObject(format["content"]) && format["content"]["type"] === "any_text";
    return {
      form: { type: "tag", begin, content: content.form, end },
      node: seq(text(begin), content.node, isFree ? EMPTY : text(end)),
    };
  }

  #triggered(format: JsonObject, depth: number): Part {
    const triggers = listAt(format, "triggers").map((t) => {
      if (typeof t !== "string" || t === "") throw new GrammarError("a trigger is no text");
      return t;
    });
    const tags = listAt(format, "tags").map((tag) => ({
      begin: isObject(tag) ? stringAt(tag, "begin") : "",
      part: this.#tag(isObject(tag) ? tag : {}, depth + 1),
    }));
    const isOnce = format["stop_after_first"] === true;
    const isForced = format["at_least_one"] === true;
    const form = {
      type: "triggered_tags",
      triggers,
      tags: tags.map((tag) => tag.part.form),
      at_least_one: isForced,
      stop_after_first: isOnce,
    };
    const any = alt(...tags.map((tag) => tag.part.node));
    const rest = isOnce ? EMPTY : rule(this.#dispatch(triggers, tags, false));
    const node = isForced ? seq(any, rest) : rule(this.#dispatch(triggers, tags, isOnce));
    return { form, node };
  }

  /** Free text in which every trigger begins a tag: one rule for each beginning of a trigger that the text may end with. */
  #dispatch(
    triggers: readonly string[],
    tags: readonly { readonly begin: string; readonly part: Part }[],
    isOnce: boolean,
  ): string {
    const names = new Map<string, string>([["", this.#rules.fresh()]]);
    for (const [read, name] of names) {
      const parts: Node[] = [EMPTY];
      const taken = new Set(triggers.map((t) => t.codePointAt(0) as number));
      for (const t of triggers)
        if (t.startsWith(read)) taken.add(t.codePointAt(read.length) as number);
      for (const code of taken) {
        const grown = read + String.fromCodePoint(code);
        const trigger = triggers.find((t) => grown.endsWith(t));
        const char = chars([[code, code]]);
        if (trigger !== undefined) {
          // The tag is read on from behind its trigger.
          const after = tags
            .filter((tag) => tag.begin.startsWith(trigger))
            .map(({ begin, part }) => afterPrefix(part.node, begin, trigger));
          parts.push(seq(char, alt(...after), isOnce ? EMPTY : rule(names.get("") as string)));
          continue;
        }
        const next = longestBegin(grown, triggers);
        const nextName = names.get(next) ?? this.#rules.fresh();
        names.set(next, nextName);
        parts.push(seq(char, rule(nextName)));
      }
      const others = invertRanges([...taken].map((code) => [code, code] as const));
      parts.push(seq(chars(others), rule(names.get("") as string)));
      this.#rules.define(name, alt(...parts));
    }
    return names.get("") as string;
  }

  #separated(format: JsonObject, depth: number): Part {
    const tags = listAt(format, "tags").map((tag) =>
      this.#tag(isObject(tag) ? tag : {}, depth + 1),
    );
    const separator = stringAt(format, "separator");
    const isOnce = format["stop_after_first"] === true;
    const isForced = format["at_least_one"] === true;
    const any = alt(...nodes(tags));
    const list = isOnce ? any : seq(any, repeat(seq(text(separator), any)));
    return {
      form: {
        type: "tags_with_separator",
        tags: forms(tags),
        separator,
        at_least_one: isForced,
        stop_after_first: isOnce,
      },
      node: isForced ? list : alt(EMPTY, list),
    };
  }

  /** Free text up to the first `end`, which is part of it. */
  #upTo(end: string): Node {
    if (end === "") return repeat(ANY);
    const names = new Map<string, string>([["", this.#rules.fresh()]]);
    for (const [read, name] of names) {
      const parts: Node[] = [];
      const taken = new Set([end.codePointAt(0) as number, end.codePointAt(read.length) as number]);
      for (const code of taken) {
        const grown = read + String.fromCodePoint(code);
        if (grown === end) {
          parts.push(chars([[code, code]]));
          continue;
        }
        const next = longestBegin(grown, [end]);
        const nextName = names.get(next) ?? this.#rules.fresh();
        names.set(next, nextName);
        parts.push(seq(chars([[code, code]]), rule(nextName)));
      }
      const others = invertRanges([...taken].map((code) => [code, code] as const));
      parts.push(seq(chars(others), rule(names.get("") as string)));
      this.#rules.define(name, alt(...parts));
    }
    return rule(names.get("") as string);
  }
}

const ANY = chars(invertRanges([]));

const forms = (parts: readonly Part[]): JsonObject[] => parts.map((part) => part.form);
const nodes = (parts: readonly Part[]): Node[] => parts.map((part) => part.node);

/** A tag's grammar without the beginning that its trigger has read. */
function afterPrefix(node: Node, begin: string, trigger: string): Node {
  if (node.kind !== "seq") throw new Error("a tag is a sequence");
  return seq(text(begin.slice(trigger.length)), ...node.items.slice(1));
}

/** The longest end of `read` that is a beginning of one of the words, but not all of it. */
function longestBegin(read: string, words: readonly string[]): string {
  for (let from = 0; from < read.length; from++) {
    const end = read.slice(from);
    if (words.some((word) => word.startsWith(end) && word !== end)) return end;
  }
  return "";
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function listAt(format: JsonObject, keyword: string): readonly unknown[] {
  const list = format[keyword];
  if (!Array.isArray(list) || list.length === 0)
    throw new GrammarError(`"${keyword}" of the structural tag is no list`);
  return list;
}

function stringAt(format: JsonObject, keyword: string): string {
  const value = format[keyword];
  if (typeof value !== "string")
    throw new GrammarError(`"${keyword}" of the structural tag is no text`);
  return value;
}
