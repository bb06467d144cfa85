import { describe, expect, test } from "bun:test";
import type { ChatRequest, ChosenLogprob, Usage } from "#core/contract";
import { OmlxError } from "#core/contract";
import { type ChoiceEvent, collectChoices } from "#front/service";
import {
  ChunkEncoder,
  decodeChat,
  encodeCompletion,
} from "../../../src/front/api/openai/chat-codec.ts";
import type { AnswerHead } from "../../../src/front/api/openai/head.ts";
import { chatBody } from "../../../src/front/api/openai/schemas.ts";
import { validate } from "../../../src/front/api/validate.ts";

const HELLO = [{ role: "user", content: "Hello" }];
const decode = (body: object) => decodeChat(validate(chatBody, body));
const decodeFields = (fields: object): ChatRequest =>
  decode({ messages: HELLO, ...fields }).request;
const decodeMessages = (...messages: unknown[]) => decode({ messages }).request.messages;

const fnNamed = (name: string) => ({ type: "function", function: { name } });
const F = fnNamed("f");

/** The error's param, and its message behind "| ". */
function refusal(body: unknown): string {
  try {
    decodeChat(validate(chatBody, body));
  } catch (error) {
    if (!(error instanceof OmlxError)) throw error;
    expect(error.code).toBe("invalid_request");
    return error.param ?? "";
  }
  return "accepted";
}

describe("decodeChat()", () => {
  test("decodeChat() fills in what the client left out", () => {
    expect(decode({ messages: HELLO })).toEqual({
      request: {
        model: "",
        messages: [
          {
            role: "user",
            parts: [{ kind: "text", text: "Hello" }],
            name: undefined,
            reasoning: undefined,
            toolCalls: undefined,
            toolCallId: undefined,
          },
        ],
        tools: [],
        templateKwargs: {},
        sampling: {},
        maxTokens: undefined,
        minTokens: 0,
        ignoreEos: false,
        stop: [],
        topLogprobs: null,
        lane: "interactive",
        toolChoice: { kind: "auto" },
        parallelToolCalls: true,
        format: null,
        thinking: {},
      },
      n: 1,
      stream: false,
      includeUsage: false,
      isLegacy: false,
      ignored: [],
    });
  });

  test("decodeChat() takes every field at null as if it were absent", () => {
    const fields = Object.keys(chatBody.shape).filter((key) => key !== "messages");
    const body = { messages: HELLO, ...Object.fromEntries(fields.map((key) => [key, null])) };
    expect(decode(body)).toEqual(decode({ messages: HELLO }));
  });

  test("decodeChat() maps every sampling field", () => {
    const request = decodeFields({
      temperature: 0.5,
      top_p: 0.9,
      top_k: 40,
      min_p: 0.1,
      repetition_penalty: 1.1,
      presence_penalty: 0.2,
      frequency_penalty: -0.3,
      logit_bias: { "5": -100, "17": 2.5 },
      seed: -7,
    });
    expect(request.sampling).toEqual({
      temperature: 0.5,
      topP: 0.9,
      topK: 40,
      minP: 0.1,
      repetitionPenalty: 1.1,
      presencePenalty: 0.2,
      frequencyPenalty: -0.3,
      logitBias: [
        [5, -100],
        [17, 2.5],
      ],
      seed: -7,
    });
  });

  test("decodeChat() reads top_k -1 as off and top_p 0 as the most probable token alone", () => {
    const { sampling } = decodeFields({ top_k: -1, top_p: 0 });
    expect(sampling.topK).toBe(0);
    expect(sampling.topP).toBeGreaterThan(0);
    expect(sampling.topP).toBeLessThan(1e-9);
  });

  test("decodeChat() prefers max_completion_tokens to max_tokens", () => {
    expect(decodeFields({ max_tokens: 5 }).maxTokens).toBe(5);
    expect(decodeFields({ max_tokens: 5, max_completion_tokens: 6 }).maxTokens).toBe(6);
    expect(decodeFields({ max_tokens: 1e12 }).maxTokens).toBe(1e12);
  });

  test("decodeChat() drops empty and repeated stop strings", () => {
    expect(decodeFields({ stop: "" }).stop).toEqual([]);
    expect(decodeFields({ stop: [] }).stop).toEqual([]);
    expect(decodeFields({ stop: "x" }).stop).toEqual(["x"]);
    expect(decodeFields({ stop: ["a", "", "b", "a"] }).stop).toEqual(["a", "b"]);
  });

  test("decodeChat() hands template arguments on", () => {
    const kwargs = { reasoning_effort: "high", x: [1] };
    expect(decodeFields({ chat_template_kwargs: kwargs }).templateKwargs).toEqual(kwargs);
  });

  test("decodeChat() reads how much to think", () => {
    const thinking = (fields: object) => decodeFields(fields).thinking;
    expect(thinking({ reasoning_effort: "low" })).toEqual({ effort: "low" });
    expect(thinking({ thinking_budget: 100, enable_thinking: true })).toEqual({
      budget: 100,
      enabled: true,
    });
    const kwargs = { chat_template_kwargs: { enable_thinking: false } };
    expect(thinking(kwargs)).toEqual({ enabled: false });
  });

  const fn = (name: string, more: object = {}) => ({
    type: "function",
    function: { name, ...more },
  });

  test("decodeChat() reads tools, their names as they are", () => {
    const name = 'weather "now" \n 🌦';
    const parameters = { type: "object", properties: { city: { type: "string" } } };
    const { tools } = decodeFields({
      tools: [
        fn(name, { description: "d", parameters, strict: true }),
        fn("b"),
        { function: { name: "c" } },
      ],
    });
    expect(tools).toEqual([
      { name, description: "d", parameters, strict: true },
      { name: "b" },
      { name: "c" },
    ]);
  });

  test("decodeChat() names tools of a kind that only others can run", () => {
    const { request, ignored } = decode({
      messages: HELLO,
      tools: [{ type: "web_search" }, fn("f")],
    });
    expect(request.tools.map((tool) => tool.name)).toEqual(["f"]);
    expect(ignored).toEqual(["tools[0]"]);
  });

  test("decodeChat() reads which tools may be called", () => {
    const tools = [fn("f"), fn("g")];
    const choose = (tool_choice: unknown) => {
      const request = decodeFields({ tools, tool_choice });
      return [request.toolChoice, request.tools.map((tool) => tool.name)];
    };
    expect(choose("auto")).toEqual([{ kind: "auto" }, ["f", "g"]]);
    expect(choose("none")).toEqual([{ kind: "none" }, ["f", "g"]]);
    expect(choose("required")).toEqual([{ kind: "required" }, ["f", "g"]]);
    const g = { type: "function", function: { name: "g" } };
    expect(choose(g)).toEqual([{ kind: "named", name: "g" }, ["f", "g"]]);
    expect(
      choose({ type: "allowed_tools", allowed_tools: { mode: "required", tools: [g] } }),
    ).toEqual([{ kind: "required" }, ["g"]]);
    expect(decodeFields({ tools, parallel_tool_calls: false }).parallelToolCalls).toBe(false);
    expect(decodeFields({ tools, tool_parser: "none" }).rawCalls).toBe(true);
  });

  test("decodeChat() reads functions of old clients", () => {
    const decoded = decode({
      messages: HELLO,
      functions: [{ name: "f", parameters: {} }],
      function_call: { name: "f" },
    });
    expect(decoded.isLegacy).toBe(true);
    expect(decoded.request).toMatchObject({
      tools: [{ name: "f", parameters: {} }],
      toolChoice: { kind: "named", name: "f" },
      parallelToolCalls: false,
    });
  });

  test("decodeChat() reads what the text must be", () => {
    const schema = { type: "object" };
    const format = (fields: object) => {
      const found = decodeFields(fields).format;
      if (found === null) return null;
      const { param, ...rest } = found;
      expect(param?.split(".")).toContain(Object.keys(fields)[0] as string);
      return rest;
    };
    expect(format({ response_format: { type: "text" } })).toBeNull();
    expect(format({ response_format: { type: "json_object" } })).toEqual({ kind: "json" });
    for (const strict of [true, false]) {
      const json_schema = { name: "x", schema, strict };
      expect(format({ response_format: { type: "json_schema", json_schema } })).toEqual({
        kind: "schema",
        schema,
        strict,
      });
    }
    const relaxed = { kind: "schema", schema, strict: false } as const;
    expect(format({ response_format: { type: "json_object", schema } })).toEqual(relaxed);
    expect(format({ guided_json: schema })).toEqual(relaxed);
    expect(format({ guided_json: JSON.stringify(schema) })).toEqual(relaxed);
    expect(format({ structured_outputs: { json: schema } })).toEqual(relaxed);
    expect(format({ guided_regex: "a+" })).toEqual({ kind: "regex", pattern: "a+" });
    expect(format({ structured_outputs: { choice: ["a", "b", "a"] } })).toEqual({
      kind: "choice",
      options: ["a", "b"],
    });
    const grammar = 'root ::= "x"';
    expect(format({ guided_grammar: grammar })).toEqual({ kind: "ebnf", grammar });
  });

  test("decodeChat() puts flexible service into the background", () => {
    expect(decodeFields({ service_tier: "flex" }).lane).toBe("background");
    expect(decodeFields({ service_tier: "auto" }).lane).toBe("interactive");
  });

  test("decodeChat() knows every role", () => {
    const roles = ["system", "developer", "user", "assistant", "tool", "function"].map((role) => ({
      role,
      content: "x",
    }));
    expect(decodeMessages(...roles).map((message) => message.role)).toEqual([
      "system",
      "system",
      "user",
      "assistant",
      "tool",
      "tool",
    ]);
  });

  test("decodeChat() reads content as a string, as parts, or as nothing", () => {
    const contents = [
      "a",
      "",
      null,
      undefined,
      [],
      [
        { type: "text", text: "a" },
        { type: "input_text", text: "b" },
        { type: "refusal", refusal: "c" },
      ],
    ];
    const messages = decodeMessages(...contents.map((content) => ({ role: "user", content })));
    expect(messages.map(({ parts }) => parts.map((part) => part.text))).toEqual([
      ["a"],
      [],
      [],
      [],
      [],
      ["a", "b", "c"],
    ]);
  });

  test("decodeChat() keeps the text of unknown parts and names them", () => {
    const content = [{ type: "zz_unknown", text: "kept" }, { type: "zz_other" }];
    const { request, ignored } = decode({ messages: [{ role: "user", content }] });
    expect(request.messages[0]?.parts).toEqual([{ kind: "text", text: "kept" }]);
    expect(ignored).toEqual(["messages[0].content[0]", "messages[0].content[1]"]);
  });

  test("decodeChat() names unknown fields of the body and of messages", () => {
    const messages = [{ role: "user", content: "x", cache_control: {} }];
    expect(decode({ messages, zz: 1, user: "u", metadata: {}, store: true }).ignored).toEqual([
      "zz",
      "messages[0].cache_control",
    ]);
  });

  test("decodeChat() keeps tool calls of the history as they were written", () => {
    const [assistant, tool] = decodeMessages(
      {
        role: "assistant",
        content: null,
        tool_calls: [
          { id: "1", type: "function", function: { name: "f", arguments: '{"a": 1}' } },
          { id: "2", type: "function", function: { name: "g", arguments: { b: 2 } } },
          { id: "3", type: "function", function: { name: "h", arguments: "{" } },
          { type: "function", function: { name: "i" } },
          { id: "5", type: "custom", custom: { name: "j", input: "raw" } },
        ],
      },
      { role: "tool", tool_call_id: "1", content: [{ type: "text", text: "done" }] },
    );
    expect(assistant?.toolCalls).toEqual([
      { id: "1", name: "f", arguments: '{"a": 1}' },
      { id: "2", name: "g", arguments: '{"b":2}' },
      { id: "3", name: "h", arguments: "{" },
      { id: "", name: "i", arguments: "" },
      { id: "5", name: "j", arguments: '"raw"' },
    ]);
    expect(tool?.toolCallId).toBe("1");
    expect(tool?.parts).toEqual([{ kind: "text", text: "done" }]);
  });

  test("decodeChat() keeps the reasoning of the history", () => {
    const [a, b] = decodeMessages(
      { role: "assistant", content: "x", reasoning_content: "why" },
      { role: "assistant", content: "x", reasoning: "because" },
    );
    expect(a?.reasoning).toBe("why");
    expect(b?.reasoning).toBe("because");
  });

  const user = (content: unknown) => ({ messages: [{ role: "user", content }] });
  const field = (fields: object) => ({ messages: HELLO, ...fields });
  const refused: [string, unknown, string][] = [
    ["a body that is no object", [], ""],
    ["a null body", null, ""],
    ["no messages", {}, "messages"],
    ["empty messages", { messages: [] }, "messages"],
    ["messages that are a string", { messages: "x" }, "messages"],
    ["a message that is null", { messages: [null] }, "messages[0]"],
    ["a message without role", { messages: [{ content: "x" }] }, "messages[0].role"],
    ["an unknown role", { messages: [...HELLO, { role: "foo" }] }, "messages[1].role"],
    ["content that is a number", user(3), "messages[0].content"],
    ["content that is an object", user({}), "messages[0].content"],
    ["a part without type", user([{}]), "messages[0].content[0].type"],
    ["a part without text", user([{ type: "text" }]), "messages[0].content[0].text"],
    ["nested arrays", user([["x"]]), "messages[0].content[0]"],
    ["an image", user([{ type: "image_url", image_url: {} }]), "messages[0].content[0]"],
    ["sound", user(["x", { type: "input_audio" }].slice(1)), "messages[0].content[0]"],
    ["a file", user([{ type: "file" }]), "messages[0].content[0]"],
    ["max_tokens 0", field({ max_tokens: 0 }), "max_tokens"],
    ["max_tokens -1", field({ max_tokens: -1 }), "max_tokens"],
    ["max_tokens 1.5", field({ max_tokens: 1.5 }), "max_tokens"],
    ["max_tokens as text", field({ max_tokens: "10" }), "max_tokens"],
    ["max_completion_tokens 0", field({ max_completion_tokens: 0 }), "max_completion_tokens"],
    ["min_tokens -1", field({ min_tokens: -1 }), "min_tokens"],
    ["temperature -1", field({ temperature: -1 }), "temperature"],
    ["temperature 3", field({ temperature: 3 }), "temperature"],
    ["temperature as text", field({ temperature: "0.5" }), "temperature"],
    ["top_p 2", field({ top_p: 2 }), "top_p"],
    ["top_k -2", field({ top_k: -2 }), "top_k"],
    ["top_k 1.5", field({ top_k: 1.5 }), "top_k"],
    ["min_p 2", field({ min_p: 2 }), "min_p"],
    ["repetition_penalty 0", field({ repetition_penalty: 0 }), "repetition_penalty"],
    ["presence_penalty 3", field({ presence_penalty: 3 }), "presence_penalty"],
    ["frequency_penalty -3", field({ frequency_penalty: -3 }), "frequency_penalty"],
    ["a bias for a word", field({ logit_bias: { hello: 1 } }), "logit_bias.hello"],
    ["a bias of 200", field({ logit_bias: { "1": 200 } }), "logit_bias.1"],
    ["a seed with a fraction", field({ seed: 0.5 }), "seed"],
    ["a stop that is a number", field({ stop: 1 }), "stop"],
    ["a stop list with a number", field({ stop: ["a", 1] }), "stop[1]"],
    ["100 stop strings", field({ stop: Array(100).fill("x") }), "stop"],
    ["a stop string of 1 MB", field({ stop: "x".repeat(1e6) }), "stop"],
    ["stream as text", field({ stream: "true" }), "stream"],
    ["n 0", field({ n: 0 }), "n"],
    ["n 129", field({ n: 129 }), "n"],
    ["logprobs as a number", field({ logprobs: 5 }), "logprobs"],
    ["top_logprobs alone", field({ top_logprobs: 5 }), "top_logprobs"],
    ["21 top_logprobs", field({ logprobs: true, top_logprobs: 21 }), "top_logprobs"],
    ["xtc_probability 2", field({ xtc_probability: 2 }), "xtc_probability"],
    ["xtc_threshold 0.6", field({ xtc_threshold: 0.6 }), "xtc_threshold"],
    ["no repetition context", field({ repetition_context_size: 0 }), "repetition_context_size"],
    ["moderation", field({ moderation: { model: "x" } }), "moderation"],
    ["a partial question", { messages: [{ ...HELLO[0], partial: true }] }, "messages[0].partial"],
    ["a required tool where there is none", field({ tool_choice: "required" }), "tool_choice"],
    ["a tool choice that is no word", field({ tool_choice: "maybe" }), "tool_choice"],
    [
      "a choice of an unknown tool",
      field({ tools: [F], tool_choice: fnNamed("g") }),
      "tool_choice.function.name",
    ],
    [
      "an unknown allowed tool",
      field({
        tools: [F],
        tool_choice: { type: "allowed_tools", allowed_tools: { tools: [fnNamed("g")] } },
      }),
      "tool_choice.allowed_tools.tools[0].function.name",
    ],
    ["two tools of one name", field({ tools: [F, F] }), "tools[1].function.name"],
    ["a tool without a name", field({ tools: [fnNamed("")] }), "tools[0].function.name"],
    [
      "a function of an unknown name",
      field({ functions: [{ name: "f" }], function_call: { name: "g" } }),
      "function_call.name",
    ],
    ["an unknown format", field({ response_format: { type: "xml" } }), "response_format.type"],
    [
      "a schema that is none",
      field({ response_format: { type: "json_schema", json_schema: { schema: 5 } } }),
      "response_format.json_schema.schema",
    ],
    ["broken JSON as a schema", field({ guided_json: "{" }), "guided_json"],
    ["no choices", field({ guided_choice: [] }), "guided_choice"],
    [
      "two formats",
      field({ guided_regex: "a", response_format: { type: "json_object" } }),
      "guided_regex",
    ],
    ["a negative budget of thoughts", field({ thinking_budget: -1 }), "thinking_budget"],
    ["sound as output", field({ modalities: ["text", "audio"] }), "modalities"],
    ["a model that is a number", field({ model: 5 }), "model"],
    ["template arguments as a list", field({ chat_template_kwargs: [] }), "chat_template_kwargs"],
  ];
  for (const [name, body, param] of refused) {
    test(`decodeChat() refuses ${name}`, () => expect(refusal(body)).toBe(param));
  }

  test("decodeChat() takes neutral values of what is not served", () => {
    const neutral = {
      n: 1,
      tools: [],
      tool_choice: "auto",
      functions: [],
      function_call: "none",
      response_format: { type: "text" },
      logprobs: false,
      top_logprobs: 0,
      modalities: ["text"],
    };
    expect(decode({ messages: HELLO, ...neutral })).toEqual(decode({ messages: HELLO }));
    const tools = [{ type: "function", function: { name: "f" } }];
    expect(decodeFields({ tools, tool_choice: "none" }).toolChoice).toEqual({ kind: "none" });
  });
});

const HEAD: AnswerHead = { id: "chatcmpl-1", created: 7, model: "m", fingerprint: "fp_1" };
const USAGE: Usage = { promptTokens: 10, cachedTokens: 4, completionTokens: 3, reasoningTokens: 1 };
const WIRE_USAGE = {
  prompt_tokens: 10,
  completion_tokens: 3,
  total_tokens: 13,
  prompt_tokens_details: { cached_tokens: 4, audio_tokens: 0 },
  completion_tokens_details: {
    reasoning_tokens: 1,
    audio_tokens: 0,
    accepted_prediction_tokens: 0,
    rejected_prediction_tokens: 0,
  },
};
const SCRIPT: ChoiceEvent[] = [
  { kind: "start", promptTokens: 10, cachedTokens: 0, warnings: [], choice: 0 },
  { kind: "reasoning", text: "Hm", choice: 0 },
  { kind: "text", text: 'a"\n', choice: 0 },
  { kind: "text", text: "b\u2028", choice: 0 },
  { kind: "end", reason: "length", usage: USAGE, choice: 0 },
];
const ANSWER: ChosenLogprob = {
  id: 5,
  text: "\uFFFD",
  bytes: [0xc3],
  offset: 0,
  logprob: Number.NEGATIVE_INFINITY,
  top: [{ id: 6, text: "b", bytes: [98], logprob: -0.25 }],
};
/** Two choices side by side, the second one with log-probabilities. */
const PAIR: ChoiceEvent[] = [
  { kind: "start", promptTokens: 10, cachedTokens: 0, warnings: [], choice: 1 },
  { kind: "start", promptTokens: 10, cachedTokens: 0, warnings: [], choice: 0 },
  { kind: "text", text: "b", logprobs: [ANSWER], choice: 1 },
  { kind: "text", text: "a", choice: 0 },
  { kind: "end", reason: "length", usage: { ...USAGE, cachedTokens: 10 }, choice: 1 },
  { kind: "end", reason: "stop", usage: USAGE, choice: 0 },
];
const WIRE_LOGPROBS = {
  content: [
    {
      token: "\uFFFD",
      logprob: -9999,
      bytes: [0xc3],
      top_logprobs: [{ token: "b", logprob: -0.25, bytes: [98] }],
    },
  ],
  refusal: null,
};

const chunks = (includeUsage: boolean, script = SCRIPT, n = 1) => {
  const encoder = new ChunkEncoder(HEAD, { includeUsage, n });
  return [...encoder.start(), ...script.flatMap((event) => [...encoder.encode(event)])].map(
    (json) => JSON.parse(json),
  );
};

const CALL: ChoiceEvent[] = [
  { choice: 0, kind: "call", index: 0, id: "c", name: "f" },
  { choice: 0, kind: "arguments", index: 0, text: '{"a":' },
  { choice: 0, kind: "arguments", index: 0, text: "1}" },
  { choice: 0, kind: "callEnd", index: 0 },
  { choice: 0, kind: "end", reason: "tool_calls", usage: USAGE },
];
const encodedCall = (isLegacy: boolean) => {
  const encoder = new ChunkEncoder(HEAD, { includeUsage: false, n: 1, isLegacy });
  return CALL.flatMap((event) => [...encoder.encode(event)]).map((json) => JSON.parse(json));
};

describe("ChunkEncoder", () => {
  const shared = {
    id: "chatcmpl-1",
    object: "chat.completion.chunk",
    created: 7,
    model: "m",
    system_fingerprint: "fp_1",
  };
  const chunk = (delta: object, finish: string | null = null) => ({
    ...shared,
    choices: [{ index: 0, delta, logprobs: null, finish_reason: finish }],
  });

  test("ChunkEncoder begins with the role and ends with the reason", () => {
    expect(chunks(false)).toEqual([
      chunk({ role: "assistant", content: "", refusal: null }),
      chunk({ reasoning_content: "Hm" }),
      chunk({ content: 'a"\n' }),
      chunk({ content: "b\u2028" }),
      chunk({}, "length"),
    ]);
  });

  test("ChunkEncoder adds usage only when asked: null on each chunk, then a chunk of its own", () => {
    const all = chunks(true);
    expect(all.slice(0, -1).every((item) => item.usage === null)).toBe(true);
    expect(all.at(-1)).toEqual({ ...shared, choices: [], usage: WIRE_USAGE });
  });

  test("ChunkEncoder tells a call as it comes", () => {
    expect(encodedCall(false).map((item) => item.choices[0].delta)).toEqual([
      {
        tool_calls: [
          { index: 0, id: "c", type: "function", function: { name: "f", arguments: "" } },
        ],
      },
      { tool_calls: [{ index: 0, function: { arguments: '{"a":' } }] },
      { tool_calls: [{ index: 0, function: { arguments: "1}" } }] },
      {},
    ]);
    expect(encodedCall(false).at(-1).choices[0].finish_reason).toBe("tool_calls");
  });

  test("ChunkEncoder tells old clients of a function call", () => {
    const all = encodedCall(true);
    expect(all.map((item) => item.choices[0].delta)).toEqual([
      { function_call: { name: "f", arguments: "" } },
      { function_call: { arguments: '{"a":' } },
      { function_call: { arguments: "1}" } },
      {},
    ]);
    expect(all.at(-1).choices[0].finish_reason).toBe("function_call");
  });

  test("ChunkEncoder writes one line per chunk", () => {
    const encoder = new ChunkEncoder(HEAD, { includeUsage: false, n: 1 });
    const [json] = encoder.encode({ kind: "text", text: "line\nline\r\n", choice: 0 });
    expect(json).not.toMatch(/[\r\n]/);
  });

  test("ChunkEncoder numbers choices, and tells their usage together after the last end", () => {
    const all = chunks(true, PAIR, 2);
    const [last] = all.splice(-1);
    expect(
      all.map(({ choices: [{ index, delta, logprobs, finish_reason }] }) => [
        index,
        delta.content,
        logprobs,
        finish_reason,
      ]),
    ).toEqual([
      [0, "", null, null],
      [1, "", null, null],
      [1, "b", WIRE_LOGPROBS, null],
      [0, "a", null, null],
      [1, undefined, null, "length"],
      [0, undefined, null, "stop"],
    ]);
    expect(last.usage).toMatchObject({ prompt_tokens: 10, completion_tokens: 6, total_tokens: 16 });
    expect(last.usage.prompt_tokens_details.cached_tokens).toBe(4);
  });
});

describe("encodeCompletion()", () => {
  const scripted = async function* (script = SCRIPT) {
    yield* script;
  };

  test("encodeCompletion() has all choices in their order, with log-probabilities", async () => {
    const { choices, usage } = encodeCompletion(HEAD, await collectChoices(scripted(PAIR), 2));
    expect(
      choices.map((choice) => [choice.index, choice.message.content, choice.finish_reason]),
    ).toEqual([
      [0, "a", "stop"],
      [1, "b", "length"],
    ]);
    expect<unknown>(choices[1]?.logprobs).toEqual(WIRE_LOGPROBS);
    expect(usage).toMatchObject({ prompt_tokens: 10, completion_tokens: 6, total_tokens: 16 });
  });

  test("encodeCompletion() has every field of a chat.completion", async () => {
    expect(encodeCompletion(HEAD, await collectChoices(scripted(), 1))).toEqual({
      id: "chatcmpl-1",
      object: "chat.completion",
      created: 7,
      model: "m",
      choices: [
        {
          index: 0,
          message: {
            role: "assistant",
            content: 'a"\nb\u2028',
            refusal: null,
            annotations: [],
            reasoning_content: "Hm",
          },
          logprobs: null,
          finish_reason: "length",
        },
      ],
      usage: WIRE_USAGE,
      system_fingerprint: "fp_1",
    });
  });

  test("encodeCompletion() has no content where there are only calls", async () => {
    const called = async function* () {
      yield* CALL;
    };
    const result = await collectChoices(called(), 1);
    expect(encodeCompletion(HEAD, result).choices[0]).toMatchObject({
      message: {
        content: null,
        tool_calls: [{ id: "c", type: "function", function: { name: "f", arguments: '{"a":1}' } }],
      },
      finish_reason: "tool_calls",
    });
    expect(encodeCompletion(HEAD, result, true).choices[0]).toMatchObject({
      message: { content: null, function_call: { name: "f", arguments: '{"a":1}' } },
      finish_reason: "function_call",
    });
  });
});
