import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { OmlxError } from "#core/contract";
import { decodeChat } from "../../../src/front/api/openai/chat-codec.ts";
import { decodeCompletion } from "../../../src/front/api/openai/completions-codec.ts";
import { chatBody, completionBody } from "../../../src/front/api/openai/schemas.ts";
import { validate } from "../../../src/front/api/validate.ts";

const ROOT = join(import.meta.dir, "..", "..", "..");

/** What happens to a field, by a value that asks for something. */
type Row =
  /** The decoded request differs. */
  | { readonly fate: "honoured"; readonly value: unknown; readonly beside?: object }
  /** Nothing differs and nothing is said, as the documentation promises. */
  | { readonly fate: "without effect"; readonly value: unknown }
  /** Nothing differs, and the header says so. */
  | { readonly fate: "ignored"; readonly value: unknown }
  | { readonly fate: "refused"; readonly value: unknown; readonly neutral?: unknown };

const honoured = (value: unknown, beside?: object): Row =>
  beside === undefined ? { fate: "honoured", value } : { fate: "honoured", value, beside };
const noEffect = (value: unknown): Row => ({ fate: "without effect", value });
const ignored = (value: unknown): Row => ({ fate: "ignored", value });
const refused = (value: unknown, neutral?: unknown): Row => ({ fate: "refused", value, neutral });

const ANSWER_ROWS: Readonly<Record<string, Row>> = {
  model: honoured("other"),
  frequency_penalty: honoured(0.5),
  logit_bias: honoured({ "5": 10 }),
  max_tokens: honoured(5),
  n: honoured(2),
  presence_penalty: honoured(0.5),
  seed: honoured(7),
  stop: honoured(["x"]),
  stream: honoured(true),
  stream_options: honoured({ include_usage: true }),
  temperature: honoured(0.3),
  top_p: honoured(0.3),
  user: noEffect("me"),
};

/** Not OpenAI's, but other servers' and ours. */
const MORE_ROWS: Readonly<Record<string, Row>> = {
  top_k: honoured(5),
  min_p: honoured(0.1),
  xtc_probability: honoured(0.5),
  xtc_threshold: honoured(0.2),
  repetition_penalty: honoured(1.1),
  repetition_context_size: honoured(64),
  min_tokens: honoured(3),
  ignore_eos: honoured(true),
  service_tier: honoured("flex"),
  no_such_field: ignored(1),
};

const TOOL = { type: "function", function: { name: "f" } };
const FUNCTION = { name: "f" };

const CHAT_ROWS: Readonly<Record<string, Row>> = {
  ...ANSWER_ROWS,
  ...MORE_ROWS,
  messages: honoured([{ role: "user", content: "Bye" }]),
  audio: refused({ voice: "x", format: "wav" }),
  logprobs: honoured(true),
  top_logprobs: honoured(5, { logprobs: true }),
  max_completion_tokens: honoured(5),
  metadata: noEffect({ a: "b" }),
  modalities: refused(["text", "audio"], ["text"]),
  moderation: refused({ model: "x" }),
  prediction: noEffect({ type: "content", content: "x" }),
  prompt_cache_key: noEffect("x"),
  prompt_cache_options: noEffect({}),
  prompt_cache_retention: noEffect("24h"),
  safety_identifier: noEffect("x"),
  store: noEffect(true),
  verbosity: ignored("low"),
  web_search_options: refused({ search_context_size: "low" }),
  chat_template_kwargs: honoured({ a: 1 }),
  tools: honoured([TOOL]),
  tool_choice: honoured("required", { tools: [TOOL] }),
  parallel_tool_calls: honoured(false),
  tool_parser: honoured("none"),
  functions: honoured([FUNCTION]),
  function_call: honoured(FUNCTION, { functions: [FUNCTION] }),
  response_format: honoured({ type: "json_object" }),
  structured_outputs: honoured({ regex: "a+" }),
  guided_json: honoured({ type: "object" }),
  guided_regex: honoured("a+"),
  guided_choice: honoured(["a", "b"]),
  guided_grammar: honoured('root ::= "a"'),
  reasoning_effort: honoured("low"),
  thinking_budget: honoured(100),
  enable_thinking: honoured(false),
};

const COMPLETION_ROWS: Readonly<Record<string, Row>> = {
  ...ANSWER_ROWS,
  ...MORE_ROWS,
  prompt: honoured("Bye"),
  best_of: refused(3, 1),
  echo: honoured(true),
  logprobs: honoured(2),
  suffix: refused("end", ""),
};

/** The fields of an interface in the openai package's declarations. */
async function fieldsOf(file: string, name: string): Promise<string[]> {
  const source = await Bun.file(join(ROOT, "node_modules/openai/resources", file)).text();
  const begin = source.indexOf(`export interface ${name} {`);
  const body = source.slice(begin, source.indexOf("\n}", begin));
  return [...body.matchAll(/^ {4}(\w+)\??:/gm)].map((match) => match[1] as string);
}

/** The names in backquotes under a heading of a documentation page. */
async function documented(page: string, heading: string): Promise<Set<string>> {
  const text = await Bun.file(join(ROOT, "docs/api", page)).text();
  const section = text.split(/^## /m).find((part) => part.startsWith(heading)) ?? "";
  return new Set([...section.matchAll(/`([^`]+)`/g)].map((match) => match[1] as string));
}

const HEADINGS: Readonly<Record<Row["fate"], string>> = {
  honoured: "Accepted and honoured",
  "without effect": "Accepted without effect",
  ignored: "Ignored, and told so",
  refused: "Refused",
};

interface Decoded {
  readonly ignored: readonly string[];
}

const ROUTES = [
  {
    name: "chat",
    rows: CHAT_ROWS,
    page: "chat-completions.md",
    types: ["chat/completions/completions.d.ts", "ChatCompletionCreateParamsBase"],
    base: { messages: [{ role: "user", content: "Hello" }] },
    decode: (body: object): Decoded => decodeChat(validate(chatBody, body)),
  },
  {
    name: "completions",
    rows: COMPLETION_ROWS,
    page: "completions.md",
    types: ["completions.d.ts", "CompletionCreateParamsBase"],
    base: { prompt: "Hello" },
    decode: (body: object): Decoded => decodeCompletion(validate(completionBody, body)),
  },
] as const;

describe.each(ROUTES)("parameters of $name", ({ name, rows, page, types, base, decode }) => {
  test(`every field that OpenAI knows for ${name} is in the table`, async () => {
    const fields = await fieldsOf(types[0], types[1]);
    expect(fields.length).toBeGreaterThan(15);
    expect(fields.filter((field) => !(field in rows))).toEqual([]);
  });

  for (const [field, row] of Object.entries(rows)) {
    test(`${name}: "${field}" is ${row.fate}, as its page says`, async () => {
      if (field !== "no_such_field" && field !== "verbosity") {
        const names = await documented(page, HEADINGS[row.fate]);
        expect([...names].map((text) => text.split(".")[0])).toContain(field);
      }
      const beside = row.fate === "honoured" ? (row.beside ?? {}) : {};
      const without = decode({ ...base, ...beside });
      const body = { ...base, ...beside, [field]: row.value };
      if (row.fate === "refused") {
        let error: unknown;
        try {
          decode(body);
        } catch (thrown) {
          error = thrown;
        }
        expect(error).toBeInstanceOf(OmlxError);
        expect((error as OmlxError).code).toBe("invalid_request");
        expect((error as OmlxError).param).toBe(field);
        for (const nothing of [null, row.neutral ?? null]) {
          expect(decode({ ...base, [field]: nothing })).toEqual(without);
        }
        return;
      }
      const { ignored: told, ...request } = decode(body);
      const { ignored: _, ...same } = without;
      expect(told).toEqual(row.fate === "ignored" ? [field] : []);
      if (row.fate === "honoured") expect(request).not.toEqual(same);
      else expect(request).toEqual(same);
      if (field in base) return;
      expect(decode({ ...base, ...beside, [field]: null })).toEqual(
        row.fate === "ignored" ? { ...without, ignored: [field] } : without,
      );
    });
  }

  test(`${name}: unknown stream_options are named`, () => {
    const options = { include_usage: false, include_obfuscation: true };
    expect(decode({ ...base, stream_options: options }).ignored).toEqual([
      "stream_options.include_obfuscation",
    ]);
  });
});
