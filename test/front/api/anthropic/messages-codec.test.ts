import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { ChatRequest, Message } from "#core/contract";
import {
  decodeMessages,
  decodePrompt,
} from "../../../../src/front/api/anthropic/messages-codec.ts";
import { countBody, messagesBody } from "../../../../src/front/api/anthropic/schemas.ts";
import { signThoughts } from "../../../../src/front/api/anthropic/signature-codec.ts";
import { validate } from "../../../../src/front/api/validate.ts";

const HELLO = [{ role: "user", content: "Hi" }];

function decode(fields: object, isBackground = false) {
  const body = { model: "m", max_tokens: 10, messages: HELLO, ...fields };
  return decodeMessages(validate(messagesBody, body), isBackground);
}
const request = (fields: object): ChatRequest => decode(fields).request;

/** Messages as [role, text, …what else they hold]. */
const told = (messages: readonly Message[]) =>
  messages.map(({ role, parts, ...rest }) => {
    const text = parts.map((part) => (part.kind === "text" ? part.text : "")).join("");
    return Object.keys(rest).length === 0 ? [role, text] : [role, text, rest];
  });
const read = (...messages: object[]) => told(request({ messages }).messages);

const use = (id: string, name: string, input: unknown = {}) => ({
  type: "tool_use",
  id,
  name,
  input,
});
const result = (id: string, content?: unknown, more: object = {}) => ({
  type: "tool_result",
  tool_use_id: id,
  ...(content === undefined ? {} : { content }),
  ...more,
});
const text = (words: string) => ({ type: "text", text: words });
const user = (...content: object[]) => ({ role: "user", content });
const assistant = (...content: object[]) => ({ role: "assistant", content });
const messageOf = (run: () => unknown): { message: string; param: string | undefined } => {
  try {
    run();
  } catch (error) {
    expect(error).toMatchObject({ code: "invalid_request" });
    const { message, param } = error as { message: string; param?: string };
    return { message, param };
  }
  throw new Error("nothing was thrown");
};

describe("decodeMessages()", () => {
  test("reads sampling, limits and lanes", () => {
    expect(
      request({
        temperature: 0.5,
        top_p: 0,
        top_k: -1,
        stop_sequences: ["a", "", "b", "a"],
        metadata: { user_id: "x" },
      }),
    ).toMatchObject({
      sampling: { temperature: 0.5, topP: Number.EPSILON, topK: 0 },
      maxTokens: 10,
      stop: ["a", "b"],
      lane: "interactive",
    });
    expect(decode({}, true).request.lane).toBe("background");
    expect(request({ service_tier: "flex" }).lane).toBe("background");
    expect(request({ service_tier: "auto" }).lane).toBe("interactive");
  });

  test.each([
    [{ max_tokens: undefined }, "max_tokens"],
    [{ max_tokens: 0 }, "max_tokens"],
    [{ max_tokens: 1.5 }, "max_tokens"],
    [{ max_tokens: "10" }, "max_tokens"],
    [{ temperature: -1 }, "temperature"],
    [{ top_p: 2 }, "top_p"],
    [{ messages: [] }, "messages"],
    [{ messages: undefined }, "messages"],
    [{ messages: [null] }, "messages[0]"],
    [{ messages: [user({ type: "text" })] }, "messages[0].content[0].text"],
    [{ messages: [user(text("x"), { type: "image", source: {} })] }, "messages[0].content[1]"],
    [{ tool_choice: { type: "any" } }, "tool_choice"],
    [{ tool_choice: { type: "tool", name: "f" } }, "tool_choice.name"],
    [{ output_config: { format: { type: "xml" } } }, "output_config.format"],
  ])("refuses %j and names %s", (fields, param) => {
    expect(messageOf(() => decode(fields)).param).toBe(param);
  });

  test("takes a token limit of any size", () => {
    expect(request({ max_tokens: 1e12 }).maxTokens).toBe(1e12);
  });

  test("reads thinking, effort, format and template arguments", () => {
    expect(request({}).thinking).toEqual({});
    expect(request({ thinking: { type: "disabled" } }).thinking).toEqual({ enabled: false });
    expect(request({ thinking: { type: "enabled", budget_tokens: 2048 } }).thinking).toEqual({
      enabled: true,
      budget: 2048,
    });
    const adaptive = {
      thinking: { type: "adaptive", display: "omitted" },
      output_config: { effort: "high" },
    };
    expect(request(adaptive).thinking).toEqual({ enabled: true, effort: "high" });
    expect(decode(adaptive).hidesThoughts).toBe(true);
    const schema = { type: "object" };
    const format = { type: "json_schema", schema };
    const wanted = { kind: "schema" as const, schema, strict: true, param: "output_config.format" };
    expect(request({ output_config: { format } }).format).toEqual(wanted);
    expect(request({ output_format: format }).format).toEqual({
      ...wanted,
      param: "output_format",
    });
    expect(request({ chat_template_kwargs: { a: 1 } }).templateKwargs).toEqual({ a: 1 });
  });

  test("names what it does not know, and nothing that changes no answer", () => {
    const known = decode({
      metadata: {},
      service_tier: "auto",
      stream: true,
      cache_control: { type: "ephemeral" },
      context_management: { edits: [{ type: "clear_thinking_20251015", keep: "all" }] },
    });
    expect(known.ignored).toEqual([]);
    const unknown = decode({
      zz_new: 1,
      context_management: { edits: [{ type: "clear_tool_uses_20250919" }] },
      messages: [
        assistant({ type: "redacted_thinking", data: "x" }, { type: "server_tool_use", id: "s" }),
        user({ type: "zz_unknown" }, { type: "zz_unknown", text: "kept" }),
        { role: "zz_role", content: "Hi" },
      ],
    });
    expect(unknown.ignored).toEqual([
      "zz_new",
      "context_management.edits",
      "messages[0].content[0]",
      "messages[0].content[1]",
      "messages[1].content[0]",
      "messages[1].content[1]",
      "messages[2].role",
    ]);
    expect(told(unknown.request.messages)).toEqual([
      ["assistant", ""],
      ["user", "kept"],
      ["user", "Hi"],
    ]);
  });

  test("sees marks for the cache wherever they are", () => {
    const cache_control = { type: "ephemeral" };
    expect(decode({}).marksCache).toBe(false);
    expect(decode({ cache_control }).marksCache).toBe(true);
    expect(decode({ system: [{ ...text("x"), cache_control }] }).marksCache).toBe(true);
    expect(decode({ messages: [user({ ...text("x"), cache_control })] }).marksCache).toBe(true);
    expect(decode({ tools: [{ name: "f", cache_control }] }).marksCache).toBe(true);
  });
});

describe("system prompts", () => {
  const BILLING = "x-anthropic-billing-header: cc_version=2.1.330; cch=0a1b2;";

  test("are the first message, from text or blocks", () => {
    const blocks = [{ ...text("A"), cache_control: { type: "ephemeral" } }, text("B")];
    expect(told(request({ system: "A" }).messages)[0]).toEqual(["system", "A"]);
    expect(told(request({ system: blocks }).messages)[0]).toEqual(["system", "A\nB"]);
    expect(told(request({ system: [] }).messages)).toEqual([["user", "Hi"]]);
  });

  test("stay at their place inside the messages", () => {
    expect(
      read({ role: "user", content: "1" }, { role: "system", content: "2" }, user(text("3"))),
    ).toEqual([
      ["user", "1"],
      ["system", "2"],
      ["user", "3"],
    ]);
  });

  test.each([
    [BILLING, []],
    [`${BILLING}\nA`, ["A"]],
    [`A\n${BILLING}\nB`, ["A\nB"]],
    [[text(BILLING), text("A"), text("B")], ["A\nB"]],
    [[text("A"), text(`B\n  ${BILLING}`)], ["A\nB\n"]],
    [[text("A"), text(BILLING)], ["A"]],
    [`about x-anthropic-billing-header: no`, ["about x-anthropic-billing-header: no"]],
  ])("lose the billing line: %j", (system, left) => {
    const all = told(request({ system }).messages);
    expect(all.slice(0, -1)).toEqual(left.map((words) => ["system", words]));
    expect(decodePrompt(validate(countBody, { messages: HELLO, system })).request.messages).toEqual(
      request({ system }).messages,
    );
  });

  test("lose it also in a system message, and token counters everywhere", () => {
    const left = "<total_tokens>12345 tokens left</total_tokens>";
    expect(
      read({ role: "system", content: `${BILLING}\nA` }, user(text("B"), text(`\n${left}`)), {
        role: "system",
        content: left,
      }),
    ).toEqual([
      ["system", "A"],
      ["user", "B"],
    ]);
  });
});

describe("tool calls and results", () => {
  test("become calls and messages of their own, results before text", () => {
    expect(
      read(
        HELLO[0] as object,
        assistant(text("Let me see."), use("1", "f", { a: 1 }), use("2", "g", "{}")),
        user(text("Also:"), result("2", [text("x"), text("y")]), result("1", "z")),
      ),
    ).toEqual([
      ["user", "Hi"],
      [
        "assistant",
        "Let me see.",
        {
          toolCalls: [
            { id: "1", name: "f", arguments: '{"a":1}' },
            { id: "2", name: "g", arguments: "{}" },
          ],
        },
      ],
      ["tool", "x\ny", { name: "g", toolCallId: "2" }],
      ["tool", "z", { name: "f", toolCallId: "1" }],
      ["user", "Also:"],
    ]);
  });

  test.each([
    [{ b: 2, a: 1 }, '{"b":2,"a":1}'],
    ["{", "{"],
    [[1], "[1]"],
    [null, "{}"],
    [undefined, "{}"],
  ])("keep their input %j as %s", (input, wanted) => {
    const [message] = request({ messages: [assistant(use("1", "f", input))] }).messages;
    expect(message?.toolCalls?.[0]?.arguments).toBe(wanted);
  });

  test("results without a call, or before it, are what the user says", () => {
    expect(read(user(result("9", "x"), text("y")))).toEqual([["user", "[Tool result (9)]: x\ny"]]);
    expect(read(user(result("1", "x")), assistant(use("1", "f")))[0]).toEqual([
      "user",
      "[Tool result (1)]: x",
    ]);
  });

  test("errors are told in words, once", () => {
    const errors: [unknown, string][] = [
      ["boom", "Error: boom"],
      ["Error: boom", "Error: boom"],
      ["<tool_use_error>boom</tool_use_error>", "<tool_use_error>boom</tool_use_error>"],
      ["", "Error"],
      [undefined, "Error"],
    ];
    for (const [content, wanted] of errors) {
      const block = result("1", content, { is_error: true });
      expect(read(assistant(use("1", "f")), user(block))[1]?.[1]).toBe(wanted);
    }
  });

  test("an image in a result becomes a note, and the client is told", () => {
    const source = { type: "base64", media_type: "image/png", data: "AA==" };
    const { request, notes } = decode({
      messages: [assistant(use("1", "f")), user(result("1", [{ type: "image", source }]))],
    });
    expect(told(request.messages)[1]?.[1]).toContain("image/png");
    expect(notes).toEqual([expect.stringContaining("messages[1].content[0].content[0]")]);
  });
});

describe("tools", () => {
  const f = { name: "f", description: "F", input_schema: { type: "object" } };
  const deferred = (name: string) => ({ ...f, name, defer_loading: true });
  const names = (fields: object) => request(fields).tools.map((tool) => tool.name);

  test("are read, with or without a schema", () => {
    expect(request({ tools: [f, { name: "g" }, { ...f, name: "h", strict: true }] }).tools).toEqual(
      [
        { name: "f", description: "F", parameters: { type: "object" } },
        { name: "g", description: undefined, parameters: { type: "object", properties: {} } },
        { name: "h", description: "F", parameters: { type: "object" }, strict: true },
      ],
    );
  });

  test("of Anthropic's servers, doubles and nameless ones are left aside by their path", () => {
    const { request, ignored } = decode({
      tools: [
        { type: "web_search_20260318", name: "web_search" },
        f,
        f,
        {},
        { type: "zz_tool_2030", name: "zz" },
        { type: "zz_with_schema", name: "own", input_schema: {} },
      ],
    });
    expect(request.tools.map((tool) => tool.name)).toEqual(["f", "own"]);
    expect(ignored).toEqual(["tools[0]", "tools[2]", "tools[3]", "tools[4]"]);
  });

  test("are chosen", () => {
    const choose = (tool_choice: object) => request({ tools: [f], tool_choice }).toolChoice;
    expect(request({ tools: [f] }).toolChoice).toEqual({ kind: "auto" });
    expect(choose({ type: "auto" })).toEqual({ kind: "auto" });
    expect(choose({ type: "none" })).toEqual({ kind: "none" });
    expect(choose({ type: "any" })).toEqual({ kind: "required" });
    expect(choose({ type: "tool", name: "f" })).toEqual({ kind: "named", name: "f" });
    const alone = { type: "any", disable_parallel_tool_use: true };
    expect(request({ tools: [f], tool_choice: alone }).parallelToolCalls).toBe(false);
    expect(request({ tools: [f] }).parallelToolCalls).toBe(true);
  });

  test("that are deferred are told at the place that mentions them; the list stays as it was", () => {
    const tools = [deferred("a"), f, deferred("b"), deferred("c")];
    expect(names({ tools })).toEqual(["f"]);
    const add = { type: "tool_addition", tool: { type: "tool_reference", name: "a" } };
    const reference = { type: "tool_reference", tool_name: "b" };
    const messages = [
      assistant(use("1", "f"), use("2", "f")),
      user(result("1", [reference]), result("2", [reference])),
      { role: "system", content: [add] },
    ];
    const { tools: all, messages: read } = request({ tools, messages });
    expect(all.map(({ name, isTold }) => [name, isTold ?? false])).toEqual([
      ["f", false],
      ["b", true],
      ["a", true],
    ]);
    const described = (name: string) =>
      `Tool available from here on: {"name":"${name}","description":"F","parameters":{"type":"object"}}`;
    expect(told(read).map(([, words]) => words)).toEqual([
      "",
      described("b"),
      "Tool available: b",
      described("a"),
    ]);
  });

  test("that are deferred are offered at once where nothing could find them", () => {
    expect(names({ tools: [deferred("a"), deferred("b")] })).toEqual(["a", "b"]);
    const search = { type: "tool_search_tool_regex_20251119", name: "tool_search_tool_regex" };
    expect(names({ tools: [search, f, deferred("a")] })).toEqual(["f", "a"]);
  });

  test("that come later are listed where the list was empty", () => {
    const definition = { name: "new", input_schema: { type: "object" } };
    const add = { type: "tool_addition", tool: { type: "tool_definition", definition } };
    const { tools, messages } = request({ messages: [...HELLO, user(add)] });
    expect(tools).toMatchObject([{ name: "new" }]);
    expect(tools[0]?.isTold).toBeUndefined();
    expect(told(messages)[1]).toEqual(["user", "Tool available: new"]);
  });

  test("come and go with tool_addition and tool_removal", () => {
    const definition = { name: "new", input_schema: { type: "object" } };
    const add = { type: "tool_addition", tool: { type: "tool_definition", definition } };
    const remove = { type: "tool_removal", tool: { type: "tool_reference", name: "f" } };
    const system = (...content: object[]) => ({ role: "system", content });
    expect(names({ tools: [f], messages: [...HELLO, system(add)] })).toEqual(["f", "new"]);
    expect(names({ tools: [f], messages: [...HELLO, system(remove, add)] })).toEqual(["new"]);
    const strange = [{ type: "tool_addition" }, { type: "tool_addition", tool: { name: 5 } }];
    const { ignored } = decode({ messages: [...HELLO, system(...strange)] });
    expect(ignored).toEqual(["messages[1].content[0]", "messages[1].content[1]"]);
  });
});

describe("thoughts", () => {
  test("come back as reasoning, also when they were not shown", () => {
    const shown = { type: "thinking", thinking: "hm", signature: signThoughts("hm", false) };
    const hidden = { type: "thinking", thinking: "", signature: signThoughts("höm 🌸", true) };
    const foreign = { type: "thinking", thinking: "", signature: "EqQBCkYI" };
    expect(read(assistant(shown, text("x")))).toEqual([["assistant", "x", { reasoning: "hm" }]]);
    expect(read(assistant(hidden, text("x")))).toEqual([
      ["assistant", "x", { reasoning: "höm 🌸" }],
    ]);
    expect(read(assistant(foreign, text("x")))).toEqual([["assistant", "x"]]);
  });
});

describe("documents and search results", () => {
  const doc = (source: object, more: object = {}) =>
    decode({ messages: [user({ type: "document", source, ...more })] });
  const words = (source: object, more: object = {}) =>
    told(doc(source, more).request.messages)[0]?.[1];
  const base64 = (value: string) => Buffer.from(value).toString("base64");

  test("that are text are read", () => {
    const plain = { type: "text", media_type: "text/plain", data: "Hällo" };
    expect(words(plain, { title: "T", context: "C" })).toBe("[Document: T]\nC\nHällo");
    const coded = { type: "base64", media_type: "text/plain", data: base64("Hällo") };
    expect(words(coded)).toBe("[Document: untitled]\nHällo");
    expect(words({ ...coded, media_type: "application/json" })).toContain("Hällo");
    expect(words({ type: "content", content: [text("x"), text("y")] })).toEndWith("x\ny");
  });

  test("that are not text become a note, and the client is told", () => {
    const pdf = { type: "base64", media_type: "application/pdf", data: base64("%PDF") };
    expect(words(pdf, { title: "T" })).toMatch(/^\[Document: T \(application\/pdf\)/);
    expect(doc(pdf).notes).toHaveLength(1);
    for (const source of [{ type: "url", url: "http://127.0.0.1/x" }, { type: "file" }, {}]) {
      expect(doc(source).notes).toHaveLength(1);
    }
  });

  test("of a search name their source", () => {
    const found = {
      type: "search_result",
      title: "T",
      source: "https://example.org",
      content: [text("x")],
    };
    expect(read(user(found))).toEqual([["user", "[Search result: T (https://example.org)]\nx"]]);
  });
});

test("decodePrompt() reads every JSON value as some conversation or refuses it in words", () => {
  const block = fc.record({
    type: fc.oneof(
      fc.constantFrom(
        "text",
        "tool_use",
        "tool_result",
        "thinking",
        "document",
        "search_result",
        "tool_reference",
        "tool_addition",
        "tool_removal",
        "zz",
      ),
      fc.string(),
    ),
    text: fc.jsonValue(),
    content: fc.jsonValue(),
    source: fc.jsonValue(),
    tool: fc.jsonValue(),
    name: fc.jsonValue(),
    input: fc.jsonValue(),
    tool_use_id: fc.jsonValue(),
    thinking: fc.jsonValue(),
    signature: fc.jsonValue(),
    title: fc.jsonValue(),
  });
  const message = fc.record({
    role: fc.constantFrom("user", "assistant", "system", "zz"),
    content: fc.oneof(fc.string(), fc.array(block, { maxLength: 4 })),
  });
  fc.assert(
    fc.property(fc.array(message, { minLength: 1, maxLength: 5 }), (messages) => {
      try {
        const { request } = decodePrompt(validate(countBody, { messages }));
        for (const { parts } of request.messages) {
          for (const part of parts) if (part.kind === "text") expect(part.text).toBeString();
        }
      } catch (error) {
        expect(error).toMatchObject({ code: "invalid_request" });
      }
    }),
    { numRuns: 300 },
  );
});
