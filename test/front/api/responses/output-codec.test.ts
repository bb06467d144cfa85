import { describe, expect, test } from "bun:test";
import type { ChatEvent, FinishReason } from "#core/contract";
import { FreeformReader } from "../../../../src/front/api/openai/responses/freeform-codec.ts";
import { ResponseWriter } from "../../../../src/front/api/openai/responses/output-codec.ts";
import { responsesBody } from "../../../../src/front/api/openai/responses/schemas.ts";
import type { WireCall } from "../../../../src/front/api/openai/responses/tools-codec.ts";

const usage = { promptTokens: 10, cachedTokens: 4, completionTokens: 3, reasoningTokens: 1 };
const end = (reason: FinishReason): ChatEvent => ({ kind: "end", reason, usage });

function write(events: readonly ChatEvent[], calls: Record<string, WireCall> = {}, more = {}) {
  const body = responsesBody.parse({ model: "m", input: "q", ...more });
  const head = { id: "resp_1", createdAt: 1, model: "m" };
  const writer = new ResponseWriter(head, body, new Map(Object.entries(calls)));
  const written = [...writer.start(), ...events.flatMap((event) => [...writer.write(event)])];
  return { written, types: written.map((event) => event.type), response: writer.response() };
}

const call = (name: string, text: string): ChatEvent[] => [
  { kind: "call", index: 0, id: "call_1", name },
  ...[...text].map((character): ChatEvent => ({ kind: "arguments", index: 0, text: character })),
  { kind: "callEnd", index: 0 },
];

describe("ResponseWriter", () => {
  test("reasoning, text and a call are three items, each opened, filled and closed", () => {
    const { types, response } = write([
      { kind: "start", promptTokens: 10, cachedTokens: 4, warnings: [] },
      { kind: "reasoning", text: "hm" },
      { kind: "text", text: "I " },
      { kind: "text", text: "look" },
      { kind: "call", index: 0, id: "call_1", name: "f" },
      { kind: "arguments", index: 0, text: '{"a"' },
      { kind: "arguments", index: 0, text: ":1}" },
      { kind: "callEnd", index: 0 },
      end("tool_calls"),
    ]);
    expect(types.map((type) => type.replace("response.", ""))).toEqual([
      "created",
      "in_progress",
      "output_item.added",
      "reasoning_summary_part.added",
      "reasoning_summary_text.delta",
      "reasoning_summary_text.done",
      "reasoning_summary_part.done",
      "output_item.done",
      "output_item.added",
      "content_part.added",
      "output_text.delta",
      "output_text.delta",
      "output_text.done",
      "content_part.done",
      "output_item.done",
      "output_item.added",
      "function_call_arguments.delta",
      "function_call_arguments.delta",
      "function_call_arguments.done",
      "output_item.done",
      "completed",
    ]);
    expect(response.output.map(({ id, ...item }) => item)).toEqual([
      { type: "reasoning", status: "completed", summary: [{ type: "summary_text", text: "hm" }] },
      {
        type: "message",
        status: "completed",
        role: "assistant",
        content: [{ type: "output_text", text: "I look", annotations: [], logprobs: [] }],
      },
      {
        type: "function_call",
        status: "completed",
        call_id: "call_1",
        name: "f",
        arguments: '{"a":1}',
      },
    ]);
    expect(response["usage"]).toEqual({
      input_tokens: 10,
      input_tokens_details: { cached_tokens: 4, cache_write_tokens: 6 },
      output_tokens: 3,
      output_tokens_details: { reasoning_tokens: 1 },
      total_tokens: 13,
    });
  });

  test("an answer cut by its length is incomplete, and so is a call in it", () => {
    const cut: ChatEvent[] = [
      { kind: "call", index: 0, id: "call_1", name: "f" },
      { kind: "arguments", index: 0, text: '{"a' },
      end("length"),
    ];
    const { types, response } = write(cut);
    expect(types).not.toContain("response.function_call_arguments.done");
    expect(types.at(-1)).toBe("response.incomplete");
    expect(response.status).toBe("incomplete");
    expect(response["incomplete_details"]).toEqual({ reason: "max_output_tokens" });
    expect(response.output[0]).toMatchObject({ status: "incomplete", arguments: '{"a' });
  });

  test("an answer without a word has an empty message", () => {
    const { response } = write([end("stop")]);
    expect(response.output).toMatchObject([{ type: "message", content: [{ text: "" }] }]);
  });

  test("calls are written as the client's own kind of tool", () => {
    const calls: Record<string, WireCall> = {
      n__f: { kind: "function", name: "f", namespace: "n" },
      patch: { kind: "custom", name: "patch" },
      local_shell: { kind: "local_shell", name: "local_shell" },
      apply_patch: { kind: "apply_patch", name: "apply_patch" },
    };
    const one = (name: string, args: unknown) => {
      const { response, types } = write(
        [...call(name, JSON.stringify(args)), end("tool_calls")],
        calls,
      );
      return { item: response.output[0], types };
    };
    expect(one("n__f", {}).item).toMatchObject({
      type: "function_call",
      name: "f",
      namespace: "n",
    });
    const custom = one("patch", { input: 'a\n"b" é' });
    expect(custom.item).toMatchObject({ type: "custom_tool_call", input: 'a\n"b" é' });
    expect(custom.types).toContain("response.custom_tool_call_input.delta");
    expect(one("local_shell", { command: ["ls"] }).item).toMatchObject({
      type: "local_shell_call",
      action: { type: "exec", command: ["ls"], env: {} },
    });
    expect(one("apply_patch", { type: "delete_file", path: "x" }).item).toMatchObject({
      type: "apply_patch_call",
      operation: { type: "delete_file", path: "x" },
    });
  });

  test("a thought is sealed for clients that ask to keep it", () => {
    const events: ChatEvent[] = [{ kind: "reasoning", text: "hm" }, end("stop")];
    const { response } = write(events, {}, { include: ["reasoning.encrypted_content"] });
    expect(response.output[0]?.["encrypted_content"]).toStartWith("omlx1.");
  });
});

describe("FreeformReader", () => {
  const text = 'line\n"quoted" \\ tab\t é 😀 \u0001';
  const raw = JSON.stringify({ input: text }).replace("é", "\\u00e9");

  test("gives the text however the arguments are cut", () => {
    for (let size = 1; size <= raw.length; size++) {
      const reader = new FreeformReader();
      let out = "";
      for (let at = 0; at < raw.length; at += size) out += reader.push(raw.slice(at, at + size));
      expect(out + reader.end()).toBe(text);
      expect(reader.text).toBe(text);
    }
  });

  test("arguments of another shape are passed on", () => {
    const reader = new FreeformReader();
    expect(reader.push('{"other":1}') + reader.end()).toBe('{"other":1}');
    const late = new FreeformReader();
    expect(late.push('{"x":1,"input":"a"}') + late.end()).toBe("a");
  });
});
