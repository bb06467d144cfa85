import type { GrammarSpec } from "#core/contract";
import { Counter } from "./counter.ts";
import { ebnfGrammar } from "./ebnf.ts";
import { emit } from "./emit.ts";
import { GrammarError, type Node, Rules } from "./ir.ts";
import { rawSpelling, regexGrammar } from "./regex.ts";
import { SchemaGrammar } from "./schema.ts";
import { structuralGrammar } from "./structural.ts";

/** A grammar, ready to be compiled. */
export interface Source {
  /** For XGrammar: its EBNF, or a structural tag. */
  readonly text:
    | { readonly kind: "ebnf"; readonly ebnf: string }
    | { readonly kind: "tag"; readonly tag: Readonly<Record<string, unknown>> };
  /** Holds what the text leaves open; null: nothing. */
  readonly counter: Counter | null;
  /** Schema keywords that are not enforced. */
  readonly ignored: readonly string[];
}

/**
 * Reads a grammar.
 *
 * @param isStrict schema keywords that cannot be enforced are an error, not left out
 * @throws {GrammarError}
 */
export function readSource(spec: GrammarSpec, isStrict: boolean): Source {
  const rules = new Rules();
  switch (spec.kind) {
    case "schema": {
      const schema = new SchemaGrammar(rules, isStrict);
      return finish(schema.add(parse(spec.schema)), rules, schema.ignored);
    }
    case "regex":
      return finish(regexGrammar(spec.pattern, rawSpelling, true), rules, []);
    case "ebnf":
      return finish(ebnfGrammar(spec.grammar, rules), rules, []);
    case "structuralTag": {
      const { tag, node, loose, ignored } = structuralGrammar(parse(spec.tag), rules, isStrict);
      return {
        text: { kind: "tag", tag },
        counter: loose === null ? null : new Counter(node, rules, loose),
        ignored,
      };
    }
  }
}

function finish(root: Node, rules: Rules, ignored: readonly string[]): Source {
  if (!rules.prune(root)) throw new GrammarError("no text satisfies it");
  const { ebnf, loose } = emit(root, rules);
  return {
    text: { kind: "ebnf", ebnf },
    counter: loose === null ? null : new Counter(root, rules, loose),
    ignored,
  };
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch (error) {
    throw new GrammarError(
      `it is not JSON: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}
