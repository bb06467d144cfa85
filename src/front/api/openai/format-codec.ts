import { invalidRequest, type OutputFormat } from "#core/contract";
import type { ChatBody } from "./schemas.ts";

/**
 * What the text must be: OpenAI's response_format, or one of the fields that vLLM's clients know.
 *
 * @throws {OmlxError} invalid_request with `param`
 */
export function decodeFormat(body: ChatBody): OutputFormat | null {
  const all = [...responseFormat(body), ...structuredOutputs(body), ...guided(body)];
  const [first, second] = all;
  if (first !== undefined && second !== undefined) {
    throw invalidRequest(
      `Cannot follow "${first.param}" and "${second.param}" at once`,
      second.param,
    );
  }
  return first === undefined ? null : { ...first.format, param: first.param };
}

interface Found {
  readonly param: string;
  readonly format: OutputFormat;
}

function responseFormat({ response_format: wire }: ChatBody): Found[] {
  if (wire == null) return [];
  const param = "response_format";
  switch (wire.type) {
    case "text":
      return [];
    case "json_object":
      return wire.schema == null
        ? [{ param, format: { kind: "json" } }]
        : [{ param, format: schemaFormat(wire.schema, false, `${param}.schema`) }];
    case "json_schema": {
      const { schema, strict } = wire.json_schema ?? { schema: wire.schema, strict: wire.strict };
      const at = wire.json_schema == null ? `${param}.schema` : `${param}.json_schema.schema`;
      return [{ param, format: schemaFormat(schema, strict === true, at) }];
    }
    default:
      throw invalidRequest(
        `Invalid value for "${param}.type": expected "text", "json_object" or "json_schema"`,
        `${param}.type`,
      );
  }
}

function structuredOutputs({ structured_outputs: wire }: ChatBody): Found[] {
  if (wire == null) return [];
  const base = "structured_outputs";
  return [
    ...found(wire.json ?? wire.json_schema, `${base}.json`, jsonFormat),
    ...found(wire.regex, `${base}.regex`, regexFormat),
    ...found(wire.choice, `${base}.choice`, choiceFormat),
    ...found(wire.grammar, `${base}.grammar`, grammarFormat),
    ...(wire.json_object === true
      ? [{ param: `${base}.json_object`, format: { kind: "json" as const } }]
      : []),
  ];
}

function guided(body: ChatBody): Found[] {
  return [
    ...found(body.guided_json, "guided_json", jsonFormat),
    ...found(body.guided_regex, "guided_regex", regexFormat),
    ...found(body.guided_choice, "guided_choice", choiceFormat),
    ...found(body.guided_grammar, "guided_grammar", grammarFormat),
  ];
}

function found<T>(
  value: T | null | undefined,
  param: string,
  read: (value: T, param: string) => OutputFormat,
): Found[] {
  return value == null ? [] : [{ param, format: read(value, param) }];
}

function schemaFormat(schema: unknown, strict: boolean, param: string): OutputFormat {
  if (typeof schema !== "boolean" && (typeof schema !== "object" || schema === null)) {
    throw invalidRequest(`Invalid value for "${param}": expected a JSON schema`, param);
  }
  return { kind: "schema", schema, strict };
}

/** A schema, as a value or as JSON text. */
function jsonFormat(value: unknown, param: string): OutputFormat {
  if (typeof value !== "string") return schemaFormat(value, false, param);
  try {
    return schemaFormat(JSON.parse(value), false, param);
  } catch {
    throw invalidRequest(`Invalid value for "${param}": expected a JSON schema`, param);
  }
}

const regexFormat = (pattern: string): OutputFormat => ({ kind: "regex", pattern });
const grammarFormat = (grammar: string): OutputFormat => ({ kind: "ebnf", grammar });

function choiceFormat(options: readonly string[], param: string): OutputFormat {
  if (options.length === 0) {
    throw invalidRequest(`Invalid value for "${param}": expected at least one text`, param);
  }
  return { kind: "choice", options: [...new Set(options)] };
}
