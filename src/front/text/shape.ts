import type { ChatRequest, GrammarSpec, OutputFormat, Tool } from "#core/contract";
import type { AnswerFrame, CallGrammar, Dialect } from "./dialects/dialect.ts";
import { FALLBACK } from "./dialects/table.ts";

/** What the answer to one request must look like. */
export interface Shape {
  /** null: anything. */
  readonly grammar: GrammarSpec | null;
  readonly strict: boolean;
  /** The request's field that demands the grammar. */
  readonly param?: string | undefined;
  /** How calls are written; null: there are none to read. */
  readonly dialect: Dialect | null;
  /** What the client should know. */
  readonly warnings: readonly string[];
}

/** A part of an XGrammar structural tag. */
type Format = Readonly<Record<string, unknown>>;

/**
 * The grammar that a request asks for: forced calls, strict calls, or a format of the text.
 *
 * @param own how the model itself writes calls
 */
export function shapeOf(request: ChatRequest, own: Dialect): Shape {
  const { toolChoice, format } = request;
  const tools = toolChoice.kind === "none" || request.rawCalls === true ? [] : request.tools;
  const dialect = tools.length > 0 ? own : null;
  const isForced = toolChoice.kind === "required" || toolChoice.kind === "named";
  if (dialect === null || (!isForced && format === null && !tools.some((tool) => tool.strict))) {
    return free({ dialect, format, frame: own.frame ?? null });
  }
  const named =
    toolChoice.kind === "named" ? tools.filter((tool) => tool.name === toolChoice.name) : tools;
  const strict = named.some((tool) => tool.strict === true);
  const isOne = toolChoice.kind === "named" || !request.parallelToolCalls;
  const shaped = own.grammar === null ? FALLBACK : own;
  const grammar = shaped.grammar as CallGrammar;
  if (isForced) {
    const calls = framed(callsFormat(grammar, named, isOne), own.frame?.calls, own.frame);
    return { grammar: tag(calls), strict, param: "tools", dialect: shaped, warnings: [] };
  }
  if (format !== null) {
    // one call: XGrammar takes no alternatives of which some may go on and some may not
    const calls = framed(callsFormat(grammar, named, true), own.frame?.calls, null);
    const text = framed(textFormat(format), own.frame?.text, null);
    const either = framed(anyOf([text, calls]), undefined, own.frame);
    const isStrict = strict || isStrictFormat(format);
    return {
      grammar: tag(either),
      strict: isStrict,
      param: format.param,
      dialect: shaped,
      warnings: [],
    };
  }
  if (own.grammar === null || own.grammar.trigger === null) {
    const note = "strict: arguments are not enforced in this model's way of writing calls";
    return { grammar: null, strict: false, dialect, warnings: [note] };
  }
  const calls = tag(triggered(own.grammar, tools, isOne));
  return { grammar: calls, strict, param: "tools", dialect, warnings: [] };
}

function free(options: {
  readonly dialect: Dialect | null;
  readonly format: OutputFormat | null;
  readonly frame: AnswerFrame | null;
}): Shape {
  const { dialect, format, frame } = options;
  const strict = format !== null && isStrictFormat(format);
  return {
    grammar: format === null ? null : textGrammar(format, frame),
    strict,
    param: format?.param,
    dialect,
    warnings: [],
  };
}

/** Only a schema may be relaxed. */
const isStrictFormat = (format: OutputFormat): boolean =>
  format.kind === "schema" ? format.strict : true;

function textGrammar(format: OutputFormat, frame: AnswerFrame | null): GrammarSpec {
  if (frame !== null) return tag(framed(textFormat(format), frame.text, frame));
  switch (format.kind) {
    case "json":
      return { kind: "schema", schema: '{"type":"object"}' };
    case "schema":
      return { kind: "schema", schema: JSON.stringify(format.schema) };
    case "regex":
      return { kind: "regex", pattern: format.pattern };
    case "ebnf":
      return { kind: "ebnf", grammar: format.grammar };
    case "choice":
      return tag(textFormat(format));
  }
}

function textFormat(format: OutputFormat): Format {
  switch (format.kind) {
    case "json":
      return { type: "json_schema", json_schema: { type: "object" } };
    case "schema":
      return { type: "json_schema", json_schema: format.schema };
    case "regex":
      return { type: "regex", pattern: format.pattern };
    case "ebnf":
      return { type: "grammar", grammar: format.grammar };
    case "choice":
      return anyOf(format.options.map((value) => ({ type: "const_string", value })));
  }
}

/** Puts what the model writes before this part, and before that its thoughts. */
function framed(
  format: Format,
  lead: string | undefined,
  frame: AnswerFrame | null | undefined,
): Format {
  const elements: Format[] = [];
  if (frame != null) {
    const { begin, end } = frame.thoughts;
    elements.push({ type: "tag", begin, content: { type: "any_text" }, end });
  }
  if (lead !== undefined) elements.push({ type: "const_string", value: lead });
  return elements.length === 0 ? format : { type: "sequence", elements: [...elements, format] };
}

const tag = (format: Format): GrammarSpec => ({
  kind: "structuralTag",
  tag: JSON.stringify({ type: "structural_tag", format }),
});

/** One call or more, and nothing else. */
function callsFormat(grammar: CallGrammar, tools: readonly Tool[], isOne: boolean): Format {
  const tags = tools.map((tool) => callTag(grammar, tool, argumentsOf(tool)));
  const { open, close } = grammar;
  const calls = someOf(grammar, tags, isOne);
  return open === "" ? calls : { type: "tag", begin: open, content: calls, end: close };
}

/** XGrammar repeats tags only that have an end. */
function someOf({ separator, end }: CallGrammar, tags: readonly Format[], isOne: boolean): Format {
  if (isOne || end === "") return anyOf(tags);
  return {
    type: "tags_with_separator",
    tags,
    separator,
    at_least_one: true,
    stop_after_first: false,
  };
}

const anyOf = (elements: readonly Format[]): Format =>
  elements.length === 1 ? (elements[0] as Format) : { type: "or", elements };

/** Free text in which calls of strict tools follow their schemas, and those of others are JSON objects. */
function triggered(grammar: CallGrammar, tools: readonly Tool[], isOne: boolean): Format {
  const { open, close } = grammar;
  const tags = tools.map((tool) =>
    callTag(grammar, tool, tool.strict === true ? argumentsOf(tool) : { type: "object" }),
  );
  const calls = someOf(grammar, tags, isOne);
  return {
    type: "triggered_tags",
    triggers: [grammar.trigger],
    tags: open === "" ? tags : [{ type: "tag", begin: open, content: calls, end: close }],
    at_least_one: false,
    stop_after_first: isOne,
  };
}

function callTag(grammar: CallGrammar, tool: Tool, schema: unknown): Format {
  const begin = grammar.begin(tool.name);
  const content = { type: "json_schema", json_schema: schema };
  if (grammar.end !== "") return { type: "tag", begin, content, end: grammar.end };
  return { type: "sequence", elements: [{ type: "const_string", value: begin }, content] };
}

/** Arguments are an object, whatever a schema says or leaves out. */
function argumentsOf({ parameters }: Tool): unknown {
  if (parameters == null) return { type: "object", properties: {}, additionalProperties: false };
  if (typeof parameters !== "object") return { type: "object" };
  return "type" in parameters ? parameters : { type: "object", ...parameters };
}
