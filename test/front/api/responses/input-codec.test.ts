import { describe, expect, test } from "bun:test";
import { type Message, OmlxError } from "#core/contract";
import { decodeResponses } from "../../../../src/front/api/openai/responses/input-codec.ts";
import { sealReasoning } from "../../../../src/front/api/openai/responses/reasoning-codec.ts";
import {
  type InputItem,
  responsesBody,
} from "../../../../src/front/api/openai/responses/schemas.ts";

const decode = (body: Record<string, unknown>, earlier: readonly InputItem[] = []) =>
  decodeResponses(responsesBody.parse({ model: "m", ...body }), earlier);
const messagesOf = (...input: unknown[]) => decode({ input }).request.messages;
const user = (text: string) => ({ role: "user", content: text });

/** A message in few words. */
const brief = (message: Message) => ({
  role: message.role,
  text: message.parts.map((part) => part.text).join("|"),
  ...(message.reasoning === undefined ? {} : { reasoning: message.reasoning }),
  ...(message.toolCalls?.length
    ? { calls: message.toolCalls.map((call) => `${call.id}:${call.name}(${call.arguments})`) }
    : {}),
  ...(message.toolCallId === undefined ? {} : { for: message.toolCallId }),
});

function errorOf(run: () => unknown): OmlxError {
  try {
    run();
  } catch (error) {
    if (error instanceof OmlxError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

describe("decodeResponses(), messages", () => {
  test("text is one user message, after the instructions and what came before", () => {
    const earlier = [
      { type: "message", role: "user", content: "a" },
      { type: "message", role: "assistant", content: [{ type: "output_text", text: "b" }] },
    ];
    const { request } = decode({ input: "c", instructions: "be brief" }, earlier);
    expect(request.messages.map(brief)).toEqual([
      { role: "system", text: "be brief" },
      { role: "user", text: "a" },
      { role: "assistant", text: "b" },
      { role: "user", text: "c" },
    ]);
  });

  test("reasoning, text and calls of one turn are one message; developer is system and stays in place", () => {
    const messages = messagesOf(
      user("q"),
      { type: "message", role: "developer", content: [{ type: "input_text", text: "note" }] },
      { type: "reasoning", id: "rs_1", summary: [{ type: "summary_text", text: "hm" }] },
      { type: "message", role: "assistant", phase: "commentary", content: "I look" },
      { type: "function_call", call_id: "c1", name: "read", arguments: '{"a":1}' },
      { type: "function_call", call_id: "c2", name: "read", arguments: '{"a":2}' },
      { type: "function_call_output", id: "fco_1", call_id: "c1", output: "one" },
      {
        type: "function_call_output",
        call_id: "c2",
        output: [
          { type: "input_text", text: "two" },
          { type: "input_image", image_url: "x" },
        ],
      },
    );
    expect(messages.map(brief)).toEqual([
      { role: "user", text: "q" },
      { role: "system", text: "note" },
      {
        role: "assistant",
        text: "I look",
        reasoning: "hm",
        calls: ['c1:read({"a":1})', 'c2:read({"a":2})'],
      },
      { role: "tool", text: "one", for: "c1" },
      { role: "tool", text: "two|[image omitted: this model reads text only]", for: "c2" },
    ]);
  });

  test("a thought that the client kept for us comes back as it was", () => {
    const messages = messagesOf(
      user("q"),
      { type: "reasoning", summary: [], encrypted_content: sealReasoning("über\n42") },
      { role: "assistant", content: "a" },
      user("r"),
    );
    expect(messages[1]?.reasoning).toBe("über\n42");
  });

  test("calls in every form are calls of the tool's name to the model", () => {
    const { request } = decode({
      tools: [
        { type: "namespace", name: "mcp__files__", tools: [{ type: "function", name: "read" }] },
        { type: "custom", name: "apply" },
        { type: "local_shell" },
      ],
      input: [
        user("q"),
        {
          type: "function_call",
          call_id: "1",
          name: "read",
          namespace: "mcp__files__",
          arguments: "{}",
        },
        { type: "custom_tool_call", call_id: "2", name: "apply", input: 'say "hi"' },
        { type: "custom_tool_call_output", call_id: "2", output: "done" },
        { type: "local_shell_call", call_id: "3", action: { type: "exec", command: ["ls"] } },
        { type: "local_shell_call_output", id: "3", output: "files" },
      ],
    });
    const [, first, , second] = request.messages.map(brief);
    expect(first?.calls).toEqual([
      "1:mcp__files__read({})",
      String.raw`2:apply({"input":"say \"hi\""})`,
    ]);
    expect(second?.calls).toEqual(['3:local_shell({"type":"exec","command":["ls"]})']);
    expect(request.messages.map((m) => m.toolCallId).filter(Boolean)).toEqual(["2", "3"]);
  });

  test("items and parts from the future are named, never refused", () => {
    const { request, ignored } = decode({
      zz: 1,
      input: [
        user("q"),
        { type: "zz_item", text: "kept" },
        { type: "web_search_call", id: "ws", status: "completed" },
        { role: "user", content: [{ type: "zz_part" }, { type: "input_text", text: "r" }] },
      ],
    });
    expect(request.messages.map(brief).map((m) => m.text)).toEqual(["q", "kept", "r"]);
    expect(ignored).toEqual([
      "zz",
      "input[1] (zz_item)",
      "input[2] (web_search_call)",
      "input[3].content[0] (zz_part)",
    ]);
  });

  test("what cannot be read is refused with its place", () => {
    const image = { role: "user", content: [{ type: "input_image", image_url: "data:," }] };
    expect(errorOf(() => messagesOf(user("q"), image)).param).toBe("input[1].content[0]");
    expect(errorOf(() => decode({ input: "" })).param).toBe("input");
    expect(errorOf(() => decode({ input: [] })).param).toBe("input");
    expect(errorOf(() => decode({ input: "q", conversation: "conv_1" })).param).toBe(
      "conversation",
    );
    const schema = { format: { type: "json_schema", name: "x" } };
    expect(errorOf(() => decode({ input: "q", text: schema })).param).toBe("text.format.schema");
  });
});

describe("decodeResponses(), tools", () => {
  test("functions, groups, free-form tools and client tools are offered; server tools are left out", () => {
    const { request, tools, ignored } = decode({
      input: "q",
      tools: [
        { type: "function", name: "f", parameters: { type: "object" }, strict: true },
        {
          type: "namespace",
          name: "files",
          tools: [
            { type: "function", name: "f" },
            { type: "custom", name: "g" },
          ],
        },
        {
          type: "custom",
          name: "patch",
          format: { type: "grammar", syntax: "lark", definition: "start: X" },
        },
        { type: "shell" },
        { type: "web_search" },
        { type: "zz" },
      ],
    });
    expect(request.tools.map((tool) => tool.name)).toEqual([
      "f",
      "files__f",
      "files__g",
      "patch",
      "shell",
    ]);
    expect(request.tools[0]).toMatchObject({ strict: true, parameters: { type: "object" } });
    expect(request.tools[3]?.description).toContain("start: X");
    expect(tools.calls.get("files__g")).toEqual({ kind: "custom", name: "g", namespace: "files" });
    expect(ignored).toEqual(["tools[4] (web_search)", "tools[5] (zz)"]);
  });

  test("tools that an item brings are tools, too", () => {
    const added = { type: "additional_tools", tools: [{ type: "function", name: "late" }] };
    expect(decode({ input: [user("q"), added] }).request.tools.map((t) => t.name)).toEqual([
      "late",
    ]);
  });

  test("tool_choice in every form", () => {
    const tools = [
      { type: "function", name: "f" },
      { type: "namespace", name: "n", tools: [{ type: "function", name: "g" }] },
    ];
    const choose = (tool_choice: unknown) => decode({ input: "q", tools, tool_choice }).request;
    expect(choose("required").toolChoice).toEqual({ kind: "required" });
    expect(choose({ type: "function", name: "f" }).toolChoice).toEqual({
      kind: "named",
      name: "f",
    });
    expect(choose({ type: "function", name: "g", namespace: "n" }).toolChoice).toEqual({
      kind: "named",
      name: "n__g",
    });
    const allowed = choose({
      type: "allowed_tools",
      mode: "required",
      tools: [{ type: "function", name: "g" }],
    });
    expect(allowed.toolChoice).toEqual({ kind: "required" });
    expect(allowed.tools.map((tool) => tool.name)).toEqual(["n__g"]);
    expect(errorOf(() => choose({ type: "function", name: "x" })).param).toBe("tool_choice");
    expect(errorOf(() => choose("sometimes")).param).toBe("tool_choice");
    expect(errorOf(() => decode({ input: "q", tool_choice: "required" })).param).toBe(
      "tool_choice",
    );
  });
});

test("decodeResponses() hands on sampling, limits, thinking and formats", () => {
  const { request } = decode({
    input: "q",
    temperature: 0.5,
    top_p: 0.9,
    seed: 7,
    max_output_tokens: 5,
    parallel_tool_calls: false,
    reasoning: { effort: "low" },
    text: { format: { type: "json_schema", name: "x", schema: { type: "object" }, strict: true } },
    include: ["message.output_text.logprobs"],
    top_logprobs: 3,
    service_tier: "flex",
  });
  expect(request).toMatchObject({
    sampling: { temperature: 0.5, topP: 0.9, seed: 7 },
    maxTokens: 5,
    parallelToolCalls: false,
    thinking: { effort: "low" },
    format: {
      kind: "schema",
      schema: { type: "object" },
      strict: true,
      param: "text.format",
    },
    topLogprobs: 3,
    lane: "background",
  });
  expect(decode({ input: "q", reasoning: { effort: "none" } }).request.thinking).toEqual({
    enabled: false,
  });
});
