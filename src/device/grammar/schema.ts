import { isEmptyLanguage } from "./counter.ts";
import { FORMATS } from "./formats.ts";
import { alt, GrammarError, NOTHING, type Node, type Rules, rule, seq, text } from "./ir.ts";
import { JsonRules, spellJson, stringExcept } from "./json.ts";
import { compareDecimals, type Decimal, decimalOf, numberGrammar } from "./numbers.ts";
import { jsonSpelling, regexGrammar } from "./regex.ts";

type JsonObject = Readonly<Record<string, unknown>>;
type Schema = JsonObject | boolean;
/** Schemas that all hold for one value. */
type Conjunction = readonly Schema[];

const MAX_ALTERNATIVES = 10_000;
/** Branches of a oneOf that are compared pair by pair. */
const MAX_COMPARED = 200;
const MAX_ORDERED = 64;

const TYPES = ["null", "boolean", "number", "string", "array", "object"] as const;
type Type = (typeof TYPES)[number];

/** Keywords that say nothing about which values are valid, or that are read beside others. */
const SILENT = new Set([
  "$schema",
  "$id",
  "id",
  "$comment",
  "$defs",
  "definitions",
  "$anchor",
  "$vocabulary",
  "$dynamicAnchor",
  "title",
  "description",
  "default",
  "examples",
  "example",
  "deprecated",
  "readOnly",
  "writeOnly",
  "contentEncoding",
  "contentMediaType",
  "contentSchema",
  "discriminator",
  "externalDocs",
  "xml",
  "then",
  "else",
  "minContains",
  "maxContains",
  "strict",
  "name",
  "nullable",
  "$recursiveAnchor",
]);

/** Keywords by the type of value that they are about. */
const ABOUT: Readonly<Record<string, Type>> = {
  properties: "object",
  required: "object",
  additionalProperties: "object",
  patternProperties: "object",
  propertyNames: "object",
  minProperties: "object",
  maxProperties: "object",
  dependentRequired: "object",
  dependencies: "object",
  unevaluatedProperties: "object",
  items: "array",
  prefixItems: "array",
  additionalItems: "array",
  unevaluatedItems: "array",
  minItems: "array",
  maxItems: "array",
  uniqueItems: "array",
  minLength: "string",
  maxLength: "string",
  pattern: "string",
  format: "string",
  minimum: "number",
  maximum: "number",
  exclusiveMinimum: "number",
  exclusiveMaximum: "number",
  multipleOf: "number",
};

const SUPPORTED = new Set([
  ...Object.keys(ABOUT),
  "type",
  "enum",
  "const",
  "anyOf",
  "oneOf",
  "allOf",
  "$ref",
  "not",
]);

/**
 * A JSON schema as a grammar of JSON text, written as json.dumps does, properties in the order of the schema.
 *
 * Every text of the grammar is valid; not every valid text is in it: objects that list their properties have no others
 * unless additionalProperties says so, and formats and unanchored patterns are read narrowly.
 */
export class SchemaGrammar {
  readonly #rules: Rules;
  readonly #json: JsonRules;
  readonly #isStrict: boolean;
  readonly #ignored = new Set<string>();
  #document: unknown;
  #anchors: ReadonlyMap<string, unknown> | undefined;
  readonly #ids = new Map<Schema, number>();
  /** By the numbers of a conjunction's schemas. */
  readonly #names = new Map<string, string>();
  readonly #queue: { readonly name: string; readonly schemas: Conjunction }[] = [];

  /** @param isStrict what cannot be enforced is an error; else it is left out, and ignored() tells */
  constructor(rules: Rules, isStrict: boolean) {
    this.#rules = rules;
    this.#json = new JsonRules(rules);
    this.#isStrict = isStrict;
  }

  /** Keywords that were left out. */
  get ignored(): readonly string[] {
    return [...this.#ignored];
  }

  /**
   * Adds a schema's rules.
   *
   * @throws {GrammarError} for a schema that is malformed, that nothing satisfies, or that cannot be enforced
   */
  add(document: unknown): Node {
    if (!isSchema(document))
      throw new GrammarError("the schema is neither an object nor a boolean");
    this.#document = document;
    this.#anchors = undefined;
    const root = this.#nodeOf([document]);
    for (let next = this.#queue.pop(); next !== undefined; next = this.#queue.pop())
      this.#rules.define(next.name, this.#conjunction(next.schemas));
    return root;
  }

  /** A value for which all the schemas hold; its rule is written later. */
  #nodeOf(schemas: Conjunction): Node {
    const distinct = [...new Set(schemas.filter((s) => s !== true))];
    if (distinct.includes(false)) return NOTHING;
    if (distinct.length === 0) return this.#json.value;
    const key = distinct
      .map((schema) => this.#idOf(schema))
      .sort((a, b) => a - b)
      .join(" ");
    let name = this.#names.get(key);
    if (name === undefined) {
      name = this.#rules.fresh();
      this.#names.set(key, name);
      this.#queue.push({ name, schemas: distinct });
    }
    return rule(name);
  }

  #idOf(schema: Schema): number {
    const known = this.#ids.get(schema);
    if (known !== undefined) return known;
    this.#ids.set(schema, this.#ids.size);
    return this.#ids.size - 1;
  }

  /** Strict: an error. Else the keyword is left out. */
  #cannot(keyword: string, why = "is not supported"): void {
    if (this.#isStrict) throw new GrammarError(`the schema keyword "${keyword}" ${why}`, keyword);
    this.#ignored.add(keyword);
  }

  #conjunction(schemas: Conjunction): Node {
    return alt(...this.#alternatives(schemas).map((flat) => this.#flat(flat)));
  }

  // ---- applicators

  /** Resolves $ref, allOf, anyOf and oneOf: one of these lists of plain schemas holds. */
  #alternatives(schemas: Conjunction): readonly (readonly JsonObject[])[] {
    interface Open {
      readonly todo: readonly Schema[];
      readonly done: readonly JsonObject[];
      readonly seen: ReadonlySet<Schema>;
    }
    const out: (readonly JsonObject[])[] = [];
    const open: Open[] = [{ todo: schemas, done: [], seen: new Set() }];
    for (let current = open.pop(); current !== undefined; current = open.pop()) {
      if (out.length + open.length > MAX_ALTERNATIVES)
        throw new GrammarError("it has too many alternatives", "anyOf");
      const todo = [...current.todo];
      const done = [...current.done];
      const seen = new Set(current.seen);
      let isPossible = true;
      let branches: readonly Schema[] | null = null;
      while (todo.length > 0 && branches === null) {
        const schema = todo.pop() as Schema;
        if (schema === false) isPossible = false;
        if (typeof schema === "boolean" || seen.has(schema)) continue;
        seen.add(schema);
        done.push(schema);
        this.#checkKeywords(schema);
        if ("$ref" in schema) {
          const target = this.#resolve(schema["$ref"]);
          if (target === schema) throw new GrammarError("a $ref leads to itself", "$ref");
          todo.push(target);
        }
        if ("allOf" in schema) todo.push(...schemasOf(schema, "allOf"));
        if ("anyOf" in schema && "oneOf" in schema) {
          // Two choices at once: the second is met again in each branch of the first.
          todo.push({ oneOf: schema["oneOf"] });
          branches = schemasOf(schema, "anyOf");
        } else if ("anyOf" in schema) branches = schemasOf(schema, "anyOf");
        else if ("oneOf" in schema) branches = this.#exclusive(schemasOf(schema, "oneOf"));
      }
      if (!isPossible) continue;
      if (branches === null) {
        if (done.length > 0 && done.every(isPureRef))
          throw new GrammarError("a $ref leads to itself", "$ref");
        out.push(done);
      }
      // The last one is taken up first; the order of the alternatives is the schema's.
      else
        for (const branch of [...branches].reverse())
          open.push({ todo: [...todo, branch], done, seen });
    }
    return out;
  }

  #checkKeywords(schema: JsonObject): void {
    for (const [keyword, value] of Object.entries(schema)) {
      if (SUPPORTED.has(keyword) || SILENT.has(keyword) || keyword.startsWith("x-")) continue;
      if (keyword === "contains" && schema["minContains"] === 0 && !("maxContains" in schema))
        continue;
      if (keyword === "if" && !("then" in schema) && !("else" in schema)) continue;
      if (keyword === "dependentSchemas" && isObject(value) && Object.keys(value).length === 0)
        continue;
      if (UNSUPPORTED.has(keyword)) this.#cannot(keyword);
      // Words that JSON Schema does not know say nothing, as it demands.
    }
  }

  #exclusive(branches: readonly Schema[]): readonly Schema[] {
    if (branches.length > 1) {
      if (branches.length > MAX_COMPARED || !this.#areDisjoint(branches))
        this.#cannot("oneOf", "is supported only where its branches exclude each other");
    }
    return branches;
  }

  #areDisjoint(branches: readonly Schema[]): boolean {
    const plain = branches.map((branch) => this.#plainParts(branch, new Set()));
    for (let i = 0; i < plain.length; i++)
      for (let j = 0; j < i; j++)
        if (!areDisjoint(plain[i] as JsonObject[], plain[j] as JsonObject[])) return false;
    return true;
  }

  /** A schema with its $ref and allOf, as far as that needs no choice. */
  #plainParts(schema: Schema, seen: Set<Schema>): JsonObject[] {
    const out: JsonObject[] = [];
    const todo = [schema];
    for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
      if (typeof next === "boolean" || seen.has(next)) continue;
      seen.add(next);
      out.push(next);
      if ("$ref" in next) todo.push(this.#resolve(next["$ref"]));
      if ("allOf" in next) todo.push(...schemasOf(next, "allOf"));
    }
    return out;
  }

  #resolve(ref: unknown): Schema {
    if (typeof ref !== "string") throw new GrammarError("$ref is not a string", "$ref");
    const found = this.#find(ref);
    if (!isSchema(found))
      throw new GrammarError(`$ref "${ref.slice(0, 200)}" leads nowhere`, "$ref");
    return found;
  }

  #find(ref: string): unknown {
    if (ref === "#") return this.#document;
    if (ref.startsWith("#/")) {
      let at: unknown = this.#document;
      for (const part of ref.slice(2).split("/")) {
        const key = decodePart(part);
        if (Array.isArray(at)) at = at[Number(key)];
        else if (isObject(at) && Object.hasOwn(at, key)) at = at[key];
        else return undefined;
      }
      return at;
    }
    this.#anchors ??= anchorsOf(this.#document);
    return this.#anchors.get(ref);
  }

  // ---- one alternative

  #flat(schemas: readonly JsonObject[]): Node {
    const listed = this.#listed(schemas);
    if (listed !== null) return listed;
    const types = this.#typesOf(schemas);
    return alt(...[...types].map((type) => this.#ofType(type, schemas)));
  }

  /** The values of enum and const, those that fit the rest; null: there is none of these keywords. */
  #listed(schemas: readonly JsonObject[]): Node | null {
    let values: Map<string, unknown> | null = null;
    for (const schema of schemas) {
      const lists: (readonly unknown[])[] = [];
      if ("const" in schema) lists.push([schema["const"]]);
      if ("enum" in schema) {
        if (!Array.isArray(schema["enum"])) throw new GrammarError("enum is not an array", "enum");
        lists.push(schema["enum"]);
      }
      for (const list of lists) {
        const own = new Map(list.map((value) => [canonical(value), value] as const));
        const before: Map<string, unknown> = values ?? own;
        values = new Map([...before].filter(([key]) => own.has(key)));
      }
    }
    if (values === null) return null;
    const types = this.#typesOf(schemas);
    const isInteger = schemas.some(
      (s) => typeNames(s)?.includes("integer") && !typeNames(s)?.includes("number"),
    );
    const fitting: Node[] = [];
    for (const value of values.values()) {
      if (!types.has(typeOf(value))) continue;
      if (isInteger && typeof value === "number" && !Number.isInteger(value)) continue;
      const verdict = fits(value, schemas);
      if (verdict === null)
        this.#cannot(
          "enum",
          "beside keywords that are about its objects or arrays is not supported",
        );
      if (verdict !== false) fitting.push(text(spellJson(value)));
    }
    return alt(...fitting);
  }

  #typesOf(schemas: readonly JsonObject[]): ReadonlySet<Type> {
    let types: Set<Type> = new Set(TYPES);
    let isSaid = false;
    for (const schema of schemas) {
      const names = typeNames(schema);
      if (names !== null) {
        isSaid = true;
        const own = new Set(names.map((name) => (name === "integer" ? "number" : name)));
        if (schema["nullable"] === true) own.add("null");
        types = new Set([...types].filter((type) => own.has(type)));
      }
      const not = schema["not"];
      if (not !== undefined) types = this.#without(not, types);
      if ("const" in schema || "enum" in schema) isSaid = true;
    }
    if (isSaid) return types;
    const meant = new Set<Type>();
    for (const schema of schemas)
      for (const keyword of Object.keys(schema)) {
        const about = ABOUT[keyword];
        if (about !== undefined) meant.add(about);
      }
    return meant.size === 0 ? types : new Set([...types].filter((type) => meant.has(type)));
  }

  /** Only whole types can be ruled out. */
  #without(not: unknown, types: Set<Type>): Set<Type> {
    if (not === false) return types;
    if (not === true || (isObject(not) && Object.keys(not).length === 0)) return new Set();
    const names = isObject(not) ? typeNames(not) : null;
    const isPlain = isObject(not) && Object.keys(not).every((k) => k === "type" || SILENT.has(k));
    if (names === null || !isPlain || names.includes("integer")) {
      this.#cannot("not");
      return types;
    }
    return new Set([...types].filter((type) => !names.includes(type)));
  }

  #ofType(type: Type, schemas: readonly JsonObject[]): Node {
    switch (type) {
      case "null":
        return text("null");
      case "boolean":
        return alt(text("true"), text("false"));
      case "number":
        return this.#number(schemas);
      case "string":
        return this.#string(schemas);
      case "array":
        return this.#array(schemas);
      case "object":
        return this.#object(schemas);
    }
  }

  #number(schemas: readonly JsonObject[]): Node {
    let min: Decimal | null = null;
    let max: Decimal | null = null;
    let isMinExcluded = false;
    let isMaxExcluded = false;
    let multipleOf: Decimal | null = null;
    let isInteger = false;
    const lower = (value: Decimal, isExcluded: boolean) => {
      const order = min === null ? 1 : compareDecimals(value, min);
      if (order > 0) [min, isMinExcluded] = [value, isExcluded];
      else if (order === 0) isMinExcluded ||= isExcluded;
    };
    const upper = (value: Decimal, isExcluded: boolean) => {
      const order = max === null ? -1 : compareDecimals(value, max);
      if (order < 0) [max, isMaxExcluded] = [value, isExcluded];
      else if (order === 0) isMaxExcluded ||= isExcluded;
    };
    for (const schema of schemas) {
      const names = typeNames(schema);
      if (names?.includes("integer") && !names.includes("number")) isInteger = true;
      const minimum = numberAt(schema, "minimum");
      const maximum = numberAt(schema, "maximum");
      // Draft 4 says by a boolean whether the bound itself is out.
      if (minimum !== null) lower(minimum, schema["exclusiveMinimum"] === true);
      if (maximum !== null) upper(maximum, schema["exclusiveMaximum"] === true);
      const above =
        typeof schema["exclusiveMinimum"] === "boolean"
          ? null
          : numberAt(schema, "exclusiveMinimum");
      const below =
        typeof schema["exclusiveMaximum"] === "boolean"
          ? null
          : numberAt(schema, "exclusiveMaximum");
      if (above !== null) lower(above, true);
      if (below !== null) upper(below, true);
      const step = numberAt(schema, "multipleOf");
      if (step === null) continue;
      if (step.digits <= 0n) throw new GrammarError("multipleOf is not positive", "multipleOf");
      if (multipleOf === null || compareDecimals(step, multipleOf) === 0) multipleOf = step;
      else this.#cannot("multipleOf", "is supported once");
    }
    const bounds = { isInteger, min, max, isMinExcluded, isMaxExcluded };
    const node = numberGrammar({ ...bounds, multipleOf }, this.#rules);
    if (node !== null) return node;
    this.#cannot(
      "multipleOf",
      `is not supported for ${isInteger ? "these integers" : "these numbers"}`,
    );
    return numberGrammar({ ...bounds, multipleOf: null }, this.#rules) as Node;
  }

  #string(schemas: readonly JsonObject[]): Node {
    let min = 0;
    let max = Number.POSITIVE_INFINITY;
    const patterns = new Map<string, { readonly keyword: string; readonly isWhole: boolean }>();
    for (const schema of schemas) {
      min = Math.max(min, countAt(schema, "minLength") ?? 0);
      max = Math.min(max, countAt(schema, "maxLength") ?? Number.POSITIVE_INFINITY);
      const { pattern, format } = schema;
      if (pattern !== undefined) {
        if (typeof pattern !== "string")
          throw new GrammarError("pattern is not a string", "pattern");
        patterns.set(pattern, { keyword: "pattern", isWhole: false });
      }
      const known =
        typeof format === "string" && Object.hasOwn(FORMATS, format) ? FORMATS[format] : undefined;
      if (known !== undefined) patterns.set(known, { keyword: "format", isWhole: true });
    }
    if (min > max) return NOTHING;
    for (const [pattern, { keyword, isWhole }] of patterns) {
      if (patterns.size > 1) {
        // A pattern beside a format, or two patterns: the first is enforced, the others cannot be.
        const [, second] = [...patterns.values()];
        this.#cannot(
          second?.keyword ?? keyword,
          "is supported once per string, beside no other pattern or format",
        );
      }
      const item = this.#pattern(pattern, isWhole, keyword);
      if (item === null) break;
      if (min === 0 && max === Number.POSITIVE_INFINITY) return seq(text('"'), item, text('"'));
      const bounded: Node = { kind: "length", item, min, max };
      return isEmptyLanguage(bounded, this.#rules) ? NOTHING : seq(text('"'), bounded, text('"'));
    }
    return this.#json.boundedString(min, max);
  }

  #pattern(pattern: string, isWhole: boolean, keyword: string): Node | null {
    try {
      return regexGrammar(pattern, jsonSpelling, isWhole);
    } catch (error) {
      if (!(error instanceof GrammarError)) throw error;
      if (this.#isStrict)
        throw new GrammarError(
          `the schema keyword "${keyword}" cannot be enforced: ${error.message}`,
          keyword,
        );
      this.#ignored.add(keyword);
      return null;
    }
  }

  #array(schemas: readonly JsonObject[]): Node {
    let min = 0;
    let max = Number.POSITIVE_INFINITY;
    let numFirst = 0;
    let isUnique = false;
    const shapes = schemas.map((schema) => {
      min = Math.max(min, countAt(schema, "minItems") ?? 0);
      max = Math.min(max, countAt(schema, "maxItems") ?? Number.POSITIVE_INFINITY);
      if (schema["uniqueItems"] === true) isUnique = true;
      const isOld = Array.isArray(schema["items"]);
      const first =
        isOld || "prefixItems" in schema ? schemasOf(schema, isOld ? "items" : "prefixItems") : [];
      const rest =
        schemaAt(schema, isOld ? "additionalItems" : "items") ??
        schemaAt(schema, "unevaluatedItems");
      numFirst = Math.max(numFirst, first.length);
      return { first, rest: rest ?? true };
    });
    const at = (index: number): Conjunction =>
      shapes.map(({ first, rest }) => first[index] ?? rest);
    const rest = shapes.map((shape) => shape.rest);
    if (rest.includes(false)) {
      const longest = Math.min(...shapes.map((s) => (s.rest === false ? s.first.length : max)));
      max = Math.min(max, longest);
    }
    if (min > max) return NOTHING;
    if (isUnique && max > 1) {
      const ordered = numFirst === 0 ? this.#orderedSet(rest, min, max) : null;
      if (ordered !== null) return ordered;
      this.#cannot("uniqueItems");
    }
    if (numFirst === 0) return this.#json.arrayOf(this.#nodeOf(rest), min, max);
    const first = Array.from({ length: Math.min(numFirst, max) }, (_, i) => this.#nodeOf(at(i)));
    const items = first.flatMap((node, i) => (i === 0 ? [node] : [text(", "), node]));
    const more = {
      kind: "repeat",
      item: seq(text(", "), this.#nodeOf(rest)),
      min: Math.max(0, min - numFirst),
      max: max - numFirst,
      isApart: true,
    } as const;
    return seq(text("["), ...items, ...(max > numFirst ? [more] : []), text("]"));
  }

  /** Listed values without repetition: in the order of the list. null: they are not listed. */
  #orderedSet(schemas: Conjunction, min: number, max: number): Node | null {
    const all = this.#alternatives(schemas);
    const [only] = all;
    if (all.length !== 1 || only === undefined) return null;
    const node = this.#listed(only);
    if (node === null || node.kind !== "alt" || node.items.length > MAX_ORDERED) return null;
    const values = node.items;
    const cap = Math.min(max, values.length);
    const names = new Map<string, string>();
    const nameOf = (at: number, count: number): string => {
      const key = `${at} ${count}`;
      const name = names.get(key) ?? this.#rules.fresh();
      names.set(key, name);
      return name;
    };
    const root = nameOf(0, 0);
    for (let at = 0; at <= values.length; at++) {
      for (let count = 0; count <= Math.min(at, cap); count++) {
        const value = values[at];
        const parts: Node[] = [];
        if (value === undefined) {
          if (count >= min) parts.push(text("]"));
        } else {
          if (count < cap)
            parts.push(seq(text(count === 0 ? "" : ", "), value, rule(nameOf(at + 1, count + 1))));
          parts.push(rule(nameOf(at + 1, count)));
        }
        this.#rules.define(nameOf(at, count), alt(...parts));
      }
    }
    return seq(text("["), rule(root));
  }

  #object(schemas: readonly JsonObject[]): Node {
    let min = 0;
    let max = Number.POSITIVE_INFINITY;
    const required = new Set<string>();
    const shapes: ObjectShape[] = [];
    for (const schema of schemas) {
      min = Math.max(min, countAt(schema, "minProperties") ?? 0);
      max = Math.min(max, countAt(schema, "maxProperties") ?? Number.POSITIVE_INFINITY);
      for (const name of stringsAt(schema, "required")) required.add(name);
      shapes.push(shapeOf(schema));
    }
    const names = new Set(shapes.flatMap((shape) => [...shape.properties.keys()]));
    for (const schema of schemas) this.#require(schema, names, required);
    const keys = shapes.flatMap((shape) => (shape.keys === null ? [] : [shape.keys]));
    const isListed = names.size > 0;
    const isClosed = shapes.some((shape) => shape.others === false && shape.patterns.length === 0);
    for (const name of required) names.add(name);

    const entries: { readonly name: string; readonly node: Node; readonly isRequired: boolean }[] =
      [];
    for (const name of names) {
      const node = this.#propertyNode(name, shapes);
      const isRequired = required.has(name);
      if (node === null && isRequired) return NOTHING;
      if (node !== null) entries.push({ name, node, isRequired });
    }
    const isOpen =
      !isClosed &&
      (shapes.some((s) => s.others !== undefined && s.others !== false) ||
        !isListed ||
        shapes.some((s) => s.patterns.length > 0));
    const extra = isOpen ? this.#extraEntry(shapes, keys, [...names]) : null;
    if (keys.length > 0 && isListed)
      this.#checkNames(
        keys,
        entries.map((e) => e.name),
      );
    return this.#members(entries, extra, min, max);
  }

  /** What one property brings along: always required, then it holds whether the other one is there or not. */
  #require(schema: JsonObject, names: ReadonlySet<string>, required: Set<string>): void {
    for (const keyword of ["dependentRequired", "dependencies"]) {
      const map = schema[keyword];
      if (map === undefined) continue;
      if (!isObject(map)) throw new GrammarError(`${keyword} is not an object`, keyword);
      for (const [name, needed] of Object.entries(map)) {
        if (!Array.isArray(needed)) {
          this.#cannot(keyword, "with schemas is not supported");
          continue;
        }
        if (names.has(name) || required.has(name))
          for (const other of needed) if (typeof other === "string") required.add(other);
      }
    }
  }

  /** null: the property must not be there. */
  #propertyNode(name: string, shapes: readonly ObjectShape[]): Node | null {
    const conjunction: Schema[] = [];
    for (const shape of shapes) {
      const own = shape.properties.get(name);
      const matching = shape.patterns.filter(({ pattern }) => this.#matches(pattern, name));
      conjunction.push(...matching.map((p) => p.schema));
      if (own !== undefined) conjunction.push(own);
      else if (matching.length === 0 && shape.others !== undefined && !shape.isUnevaluated) {
        if (shape.others === false) return null;
        conjunction.push(shape.others);
      }
    }
    return conjunction.includes(false) ? null : this.#nodeOf(conjunction);
  }

  #matches(pattern: string, name: string): boolean {
    try {
      return new RegExp(pattern, "u").test(name);
    } catch {
      throw new GrammarError(
        `patternProperties has the malformed pattern ${JSON.stringify(pattern.slice(0, 80))}`,
        "patternProperties",
      );
    }
  }

  /** One further entry of an object; null: none can be told from the listed ones. */
  #extraEntry(
    shapes: readonly ObjectShape[],
    keys: readonly Schema[],
    names: readonly string[],
  ): Node | null {
    const patterns = shapes.flatMap((shape) => shape.patterns);
    const others = shapes.map((shape) => shape.others ?? true);
    if (patterns.length > 0) {
      const [only] = patterns;
      if (
        patterns.length > 1 ||
        only === undefined ||
        names.some((n) => this.#matches(only.pattern, n))
      ) {
        this.#cannot(
          "patternProperties",
          "is supported with one pattern that matches no listed property",
        );
        return null;
      }
      const key = this.#pattern(only.pattern, false, "patternProperties");
      if (key === null) return null;
      const beside = shapes
        .filter((shape) => shape.patterns.length === 0)
        .map((shape) => shape.others ?? true);
      return seq(text('"'), key, text('": '), this.#nodeOf([only.schema, ...beside]));
    }
    const value = this.#nodeOf(others);
    if (keys.length > 0)
      return names.length > 0
        ? null
        : seq(this.#nodeOf([...keys, { type: "string" }]), text(": "), value);
    const key = names.length === 0 ? this.#json.string : stringExcept(names, this.#rules);
    return seq(key, text(": "), value);
  }

  #checkNames(keys: readonly Schema[], names: readonly string[]): void {
    const flats = this.#alternatives(keys);
    const isAllowed = (name: string) => flats.some((flat) => fits(name, flat) === true);
    if (!names.every(isAllowed)) this.#cannot("propertyNames", "does not allow a listed property");
  }

  /** The entries in order; a rule for each place and for how many stand before it, as far as that matters. */
  #members(
    entries: readonly {
      readonly name: string;
      readonly node: Node;
      readonly isRequired: boolean;
    }[],
    extra: Node | null,
    min: number,
    max: number,
  ): Node {
    const numRequired = entries.filter((e) => e.isRequired).length;
    // Further keys may repeat, so they do not count; one of them does.
    const isLimited = max < entries.length || (extra !== null && max < Number.POSITIVE_INFINITY);
    if (entries.length === 0) {
      if (extra === null) return min > 0 ? NOTHING : text("{}");
      if (min > 1) this.#cannot("minProperties", "above 1 is supported only for listed properties");
      return listed(extra, Math.min(min, 1), max);
    }
    let needed = min <= numRequired ? 0 : min;
    if (extra !== null && needed > entries.length) {
      this.#cannot("minProperties", "above the number of listed properties is not supported");
      needed = entries.length;
    }
    if (numRequired > max) return NOTHING;
    const limit = isLimited ? Math.min(max, entries.length + 64) : Number.POSITIVE_INFINITY;
    const cap = Math.max(1, needed, isLimited ? limit : 1);
    if (cap * entries.length > 20_000)
      throw new GrammarError("it is too large", isLimited ? "maxProperties" : "minProperties");
    const names = new Map<string, string>();
    const nameOf = (at: number, count: number): string => {
      const key = `${at} ${Math.min(count, cap)}`;
      const name = names.get(key) ?? this.#rules.fresh();
      names.set(key, name);
      return name;
    };
    const root = nameOf(0, 0);
    for (let at = 0; at < entries.length; at++) {
      const { name, node, isRequired } = entries[at] as (typeof entries)[number];
      for (let count = 0; count <= Math.min(at, cap); count++) {
        const parts: Node[] = [];
        if (count < limit) {
          const key = `${count === 0 ? "" : ", "}${JSON.stringify(name)}: `;
          parts.push(seq(text(key), node, rule(nameOf(at + 1, count + 1))));
        }
        if (!isRequired) parts.push(rule(nameOf(at + 1, count)));
        this.#rules.define(nameOf(at, count), alt(...parts));
      }
    }
    for (let count = 0; count <= Math.min(entries.length, cap); count++) {
      const more = extra === null || count >= limit ? null : this.#more(extra, count, limit);
      const isEnough = count >= needed;
      const end = isEnough ? [text("}")] : [];
      this.#rules.define(
        nameOf(entries.length, count),
        alt(...end, ...(more === null || !isEnough ? [] : [more])),
      );
    }
    return seq(text("{"), rule(root));
  }

  #more(extra: Node, count: number, limit: number): Node {
    const first = count === 0 ? seq(extra) : seq(text(", "), extra);
    const left = limit - count - 1;
    const item = seq(text(", "), extra);
    const rest: Node = { kind: "repeat", item, min: 0, max: left, isApart: true };
    return seq(first, ...(left > 0 ? [rest] : []), text("}"));
  }
}

const UNSUPPORTED = new Set([
  "contains",
  "dependentSchemas",
  "if",
  "$dynamicRef",
  "$recursiveRef",
  "disallow",
  "extends",
  "divisibleBy",
]);

const listed = (entry: Node, min: number, max: number): Node => {
  const full = seq(
    text("{"),
    entry,
    {
      kind: "repeat",
      item: seq(text(", "), entry),
      min: Math.max(0, min - 1),
      max: max - 1,
      isApart: true,
    },
    text("}"),
  );
  if (max <= 0) return min > 0 ? NOTHING : text("{}");
  return min > 0 ? full : alt(text("{}"), full);
};

/** What a schema says about an object's entries. */
interface ObjectShape {
  readonly properties: ReadonlyMap<string, Schema>;
  readonly patterns: readonly { readonly pattern: string; readonly schema: Schema }[];
  /** undefined: nothing is said. */
  readonly others: Schema | undefined;
  /** `others` is about what no schema at all lists. */
  readonly isUnevaluated: boolean;
  readonly keys: Schema | null;
}

function shapeOf(schema: JsonObject): ObjectShape {
  const map = (keyword: string): [string, Schema][] => {
    const value = schema[keyword] ?? {};
    if (!isObject(value)) throw new GrammarError(`${keyword} is not an object`, keyword);
    return Object.entries(value).map(([name, part]) => {
      if (!isSchema(part))
        throw new GrammarError(`${keyword} has something that is no schema`, keyword);
      return [name, part];
    });
  };
  const additional = schemaAt(schema, "additionalProperties");
  return {
    properties: new Map(map("properties")),
    patterns: map("patternProperties").map(([pattern, part]) => ({ pattern, schema: part })),
    others: additional ?? schemaAt(schema, "unevaluatedProperties"),
    isUnevaluated: additional === undefined,
    keys: schemaAt(schema, "propertyNames") ?? null,
  };
}

/** Whether no value can satisfy both; false: that is not certain. */
function areDisjoint(a: readonly JsonObject[], b: readonly JsonObject[]): boolean {
  const [x, y] = [valuesOf(a), valuesOf(b)];
  if (x !== null && y !== null) return ![...x].some((value) => y.has(value));
  const [s, t] = [kindsOf(a), kindsOf(b)];
  const common = [...s].filter((type) => t.has(type));
  if (common.length === 0) return true;
  if (common.length > 1 || common[0] !== "object") {
    if (common.length === 1 && common[0] === "number") return areApart(a, b) || areApart(b, a);
    return false;
  }
  const required = (parts: readonly JsonObject[]) =>
    new Set(parts.flatMap((p) => stringsAt(p, "required")));
  const [p, q] = [required(a), required(b)];
  const property = (parts: readonly JsonObject[], name: string): JsonObject[] =>
    parts.flatMap((part) => {
      const map = part["properties"];
      const value = isObject(map) && Object.hasOwn(map, name) ? map[name] : undefined;
      return isObject(value) ? [value] : [];
    });
  const forbids = (parts: readonly JsonObject[], name: string) =>
    parts.some(
      (part) =>
        part["additionalProperties"] === false &&
        !("patternProperties" in part) &&
        !(isObject(part["properties"]) && Object.hasOwn(part["properties"], name)),
    );
  for (const name of p) if (forbids(b, name)) return true;
  for (const name of q) if (forbids(a, name)) return true;
  for (const name of p) {
    if (!q.has(name)) continue;
    const [left, right] = [property(a, name), property(b, name)];
    const [v, w] = [valuesOf(left), valuesOf(right)];
    if (v !== null && w !== null && ![...v].some((value) => w.has(value))) return true;
    const [k, l] = [kindsOf(left), kindsOf(right)];
    if (![...k].some((type) => l.has(type))) return true;
  }
  return false;
}

/** Whether all numbers of the one lie below those of the other. */
function areApart(low: readonly JsonObject[], high: readonly JsonObject[]): boolean {
  const least = (parts: readonly JsonObject[], keyword: string) =>
    parts.flatMap((part) => (typeof part[keyword] === "number" ? [part[keyword]] : []));
  const tops = least(low, "maximum");
  const openTops = least(low, "exclusiveMaximum");
  const bottoms = least(high, "minimum");
  const openBottoms = least(high, "exclusiveMinimum");
  return (
    tops.some((top) => bottoms.some((b) => top < b) || openBottoms.some((b) => top <= b)) ||
    openTops.some((top) => [...bottoms, ...openBottoms].some((b) => top <= b))
  );
}

function valuesOf(parts: readonly JsonObject[]): ReadonlySet<string> | null {
  for (const part of parts) {
    if ("const" in part) return new Set([canonical(part["const"])]);
    if (Array.isArray(part["enum"])) return new Set(part["enum"].map(canonical));
  }
  return null;
}

function kindsOf(parts: readonly JsonObject[]): ReadonlySet<Type> {
  let types = new Set<Type>(TYPES);
  for (const part of parts) {
    const names = typeNames(part);
    if (names !== null) {
      const own = new Set(names.map((name) => (name === "integer" ? "number" : name)));
      if (part["nullable"] === true) own.add("null");
      types = new Set([...types].filter((type) => own.has(type)));
    }
    const values = valuesOf([part]);
    if (values !== null) {
      const own = new Set([...values].map((value) => typeOf(JSON.parse(value))));
      types = new Set([...types].filter((type) => own.has(type)));
    }
  }
  return types;
}

/** Whether a value fits what schemas say beside enum and const; null: too hard to tell. */
function fits(value: unknown, schemas: readonly JsonObject[]): boolean | null {
  for (const schema of schemas) {
    const names = typeNames(schema);
    const type = typeOf(value);
    if (
      names !== null &&
      !names.some((n) => n === type || (n === "integer" && Number.isInteger(value)))
    )
      if (!(value === null && schema["nullable"] === true)) return false;
    if ("const" in schema && canonical(schema["const"]) !== canonical(value)) return false;
    if (
      Array.isArray(schema["enum"]) &&
      !schema["enum"].some((v) => canonical(v) === canonical(value))
    )
      return false;
    const about = Object.keys(schema).filter((keyword) => ABOUT[keyword] === type);
    if (about.length > 0 && (type === "object" || type === "array")) return null;
    if (typeof value === "string" && !stringFits(value, schema)) return false;
    if (typeof value === "number" && !numberFits(value, schema)) return false;
  }
  return true;
}

function stringFits(value: string, schema: JsonObject): boolean {
  const length = [...value].length;
  if (length < (countAt(schema, "minLength") ?? 0)) return false;
  if (length > (countAt(schema, "maxLength") ?? Number.POSITIVE_INFINITY)) return false;
  const { pattern } = schema;
  if (typeof pattern !== "string") return true;
  try {
    return new RegExp(pattern, "u").test(value);
  } catch {
    throw new GrammarError(
      `the pattern ${JSON.stringify(pattern.slice(0, 80))} is malformed`,
      "pattern",
    );
  }
}

function numberFits(value: number, schema: JsonObject): boolean {
  const bound = (keyword: string) => (typeof schema[keyword] === "number" ? schema[keyword] : null);
  const [min, max] = [bound("minimum"), bound("maximum")];
  const [above, below] = [bound("exclusiveMinimum"), bound("exclusiveMaximum")];
  const step = bound("multipleOf");
  if (min !== null && (value < min || (schema["exclusiveMinimum"] === true && value === min)))
    return false;
  if (max !== null && (value > max || (schema["exclusiveMaximum"] === true && value === max)))
    return false;
  if (above !== null && value <= above) return false;
  if (below !== null && value >= below) return false;
  return step === null || Number.isInteger(value / step);
}

function typeOf(value: unknown): Type {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  const type = typeof value;
  return type === "boolean" || type === "number" || type === "string" ? type : "object";
}

function typeNames(schema: JsonObject): readonly (Type | "integer")[] | null {
  const { type } = schema;
  if (type === undefined) return null;
  const names: readonly unknown[] = Array.isArray(type) ? type : [type];
  for (const name of names)
    if (name !== "integer" && !(TYPES as readonly unknown[]).includes(name))
      throw new GrammarError(
        `the type ${JSON.stringify(name)?.slice(0, 80)} is none of JSON`,
        "type",
      );
  return names as readonly (Type | "integer")[];
}

/** Equal for values that are equal in JSON, whatever the order of their keys. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) =>
    isObject(part)
      ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)))
      : part,
  );
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isSchema(value: unknown): value is Schema {
  return typeof value === "boolean" || isObject(value);
}

const isPureRef = (schema: JsonObject): boolean =>
  "$ref" in schema && Object.keys(schema).every((k) => k === "$ref" || SILENT.has(k));

function schemasOf(schema: JsonObject, keyword: string): readonly Schema[] {
  const list = schema[keyword];
  if (
    !Array.isArray(list) ||
    !list.every(isSchema) ||
    (list.length === 0 && keyword !== "prefixItems" && keyword !== "items")
  )
    throw new GrammarError(`${keyword} is not a list of schemas`, keyword);
  return list;
}

function schemaAt(schema: JsonObject, keyword: string): Schema | undefined {
  const value = schema[keyword];
  if (value === undefined) return undefined;
  if (!isSchema(value)) throw new GrammarError(`${keyword} is not a schema`, keyword);
  return value;
}

function countAt(schema: JsonObject, keyword: string): number | null {
  const value = schema[keyword];
  if (value === undefined) return null;
  if (typeof value !== "number" || value < 0 || !Number.isInteger(value))
    throw new GrammarError(`${keyword} is not a count`, keyword);
  return value;
}

function numberAt(schema: JsonObject, keyword: string): Decimal | null {
  const value = schema[keyword];
  if (value === undefined) return null;
  if (typeof value !== "number" || !Number.isFinite(value))
    throw new GrammarError(`${keyword} is not a number`, keyword);
  return decimalOf(value);
}

function stringsAt(schema: JsonObject, keyword: string): readonly string[] {
  const value = schema[keyword];
  if (value === undefined || typeof value === "boolean") return [];
  if (!Array.isArray(value) || !value.every((v) => typeof v === "string"))
    throw new GrammarError(`${keyword} is not a list of names`, keyword);
  return value;
}

function decodePart(part: string): string {
  let decoded = part;
  try {
    decoded = decodeURIComponent(part);
  } catch {
    // a stray % is what it is
  }
  return decoded.replaceAll("~1", "/").replaceAll("~0", "~");
}

/** Everything that a $ref can name but for paths: "#anchor" and $id. */
function anchorsOf(document: unknown): ReadonlyMap<string, unknown> {
  const found = new Map<string, unknown>();
  const todo: unknown[] = [document];
  for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
    if (typeof next !== "object" || next === null) continue;
    if (isObject(next)) {
      if (typeof next["$anchor"] === "string") found.set(`#${next["$anchor"]}`, next);
      for (const key of ["$id", "id"])
        if (typeof next[key] === "string") found.set(next[key], next);
    }
    for (const value of Object.values(next)) if (value !== undefined) todo.push(value);
  }
  return found;
}
