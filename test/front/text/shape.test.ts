import { describe, expect, test } from "bun:test";
import { CHAT_DEFAULTS, type ChatRequest, type GrammarSpec } from "#core/contract";
import { dialectNamed } from "../../../src/front/text/dialects/table.ts";
import { shapeOf } from "../../../src/front/text/shape.ts";

const PARAMETERS = { type: "object", properties: { city: { type: "string" } } };
const request = (more: Partial<ChatRequest>): ChatRequest => ({
  ...CHAT_DEFAULTS,
  model: "m",
  messages: [],
  tools: [{ name: "f", parameters: PARAMETERS }, { name: "g" }],
  ...more,
});
const formatOf = (grammar: GrammarSpec | null) =>
  grammar?.kind === "structuralTag" ? JSON.parse(grammar.tag).format : grammar;
const shape = (dialect: string, more: Partial<ChatRequest>) => {
  const { grammar, ...rest } = shapeOf(request(more), dialectNamed(dialect));
  return { ...rest, dialect: rest.dialect?.name, format: formatOf(grammar) };
};

const F_TAG = {
  type: "tag",
  begin: '<tool_call>\n{"name": "f", "arguments": ',
  content: { type: "json_schema", json_schema: PARAMETERS },
  end: "}\n</tool_call>",
};

describe("shapeOf()", () => {
  test("asks for nothing where a model may call as it likes", () => {
    expect(shape("hermes", {})).toMatchObject({ format: null, dialect: "hermes" });
    expect(shape("hermes", { toolChoice: { kind: "none" } })).toMatchObject({
      format: null,
      dialect: undefined,
    });
  });

  test("forces one call or more as the model writes them", () => {
    const forced = shape("hermes", { toolChoice: { kind: "required" } });
    expect(forced.format).toMatchObject({
      type: "tags_with_separator",
      separator: "\n",
      at_least_one: true,
      stop_after_first: false,
    });
    expect(forced.format.tags[0]).toEqual(F_TAG);
    expect(forced.format.tags[1].content.json_schema).toEqual({
      type: "object",
      properties: {},
      additionalProperties: false,
    });
    const one = { toolChoice: { kind: "required" }, parallelToolCalls: false } as const;
    expect(shape("hermes", one).format).toMatchObject({ type: "or", elements: [F_TAG, {}] });
  });

  test("forces the named call alone", () => {
    const { format } = shape("hermes", { toolChoice: { kind: "named", name: "f" } });
    expect(format).toEqual(F_TAG);
  });

  test("forces calls in JSON where the model's own way has no grammar", () => {
    expect(shape("glm", { toolChoice: { kind: "named", name: "f" } })).toMatchObject({
      dialect: "hermes",
      format: F_TAG,
    });
    expect(shape("glm", {}).dialect).toBe("glm");
  });

  test("puts sections around calls that have them", () => {
    expect(shape("kimi", { toolChoice: { kind: "required" } }).format).toMatchObject({
      type: "tag",
      begin: "<|tool_calls_section_begin|>",
      end: "<|tool_calls_section_end|>",
    });
  });

  test("holds strict calls to their schema where the text is free", () => {
    const tools = [{ name: "f", parameters: PARAMETERS, strict: true }, { name: "g" }];
    const { format, strict } = shape("hermes", { tools });
    expect(strict).toBe(true);
    expect(format).toMatchObject({ type: "triggered_tags", triggers: ["<tool_call>"] });
    expect(format.tags[0]).toEqual(F_TAG);
    expect(format.tags[1].content.json_schema).toEqual({ type: "object" });
  });

  test("warns where strict calls cannot be held to their schema", () => {
    const tools = [{ name: "f", parameters: PARAMETERS, strict: true }];
    const { format, warnings } = shape("glm", { tools });
    expect(format).toBeNull();
    expect(warnings[0]).toMatch(/not enforced/);
  });

  test("says what the text must be", () => {
    const none = { tools: [] };
    const schema = { type: "object" };
    expect(shape("hermes", { ...none, format: { kind: "json" } }).format).toEqual({
      kind: "schema",
      schema: '{"type":"object"}',
    });
    const relaxed = { ...none, format: { kind: "schema", schema, strict: false } } as const;
    expect(shape("hermes", relaxed).strict).toBe(false);
    expect(
      shape("hermes", { ...none, format: { kind: "choice", options: ["a", "b"] } }).format,
    ).toEqual({
      type: "or",
      elements: [
        { type: "const_string", value: "a" },
        { type: "const_string", value: "b" },
      ],
    });
  });

  test("leaves the choice between a text of the format and calls", () => {
    const { format } = shape("hermes", { format: { kind: "json" } });
    expect(format).toMatchObject({
      type: "or",
      elements: [{ type: "json_schema" }, { type: "or" }],
    });
  });

  test("lets a model of channels think first and answer in the channel of answers", () => {
    const { format } = shape("harmony", { tools: [], format: { kind: "json" } });
    expect(format.elements).toMatchObject([
      { type: "tag", begin: "<|channel|>analysis<|message|>", end: "<|end|>" },
      { type: "const_string", value: "<|start|>assistant<|channel|>final<|message|>" },
      { type: "json_schema" },
    ]);
  });
});
