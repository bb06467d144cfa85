import { describe, expect, test } from "bun:test";
import type { Message, Tool } from "#core/contract";
import { TokenTrie } from "../../../src/front/text/added-tokens.ts";
import { dialectNamed } from "../../../src/front/text/dialects/table.ts";
import { adapt } from "../../../src/front/text/template/adapt.ts";
import { toTemplateInput } from "../../../src/front/text/template/conversation.ts";
import { Manners } from "../../../src/front/text/template/manners.ts";
import { ChatTemplate } from "../../../src/front/text/template/render.ts";
import { ToolOrder } from "../../../src/front/text/template/tool-order.ts";
import { FAMILIES } from "../../helpers/dialects.ts";

const NONE = { special: new TokenTrie([]), all: new TokenTrie([]) };
const message = (role: Message["role"], text: string, more: Partial<Message> = {}): Message => ({
  role,
  parts: text === "" ? [] : [{ kind: "text", text }],
  ...more,
});
const call = (text: string, id = "call_1") => ({ toolCalls: [{ id, name: "f", arguments: text }] });

/** Every message in brackets; knows no tools. */
const PLAIN =
  "{% for m in messages %}[{{ m.role }}: {{ m.content }}]{% endfor %}{% if add_generation_prompt %}[assistant: {% endif %}";
/** As strict as Gemma's and Mistral's: users and assistants take turns, and there is no one else. */
const STRICT = `{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}[{{ m.role }}: {{ m.content }}]{% endfor %}`;
/** A first system message, then turns. */
const FIRST_SYSTEM = `{% if messages[0].role == 'system' %}[S: {{ messages[0].content }}]{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}{% for m in rest %}{% if m.role == 'system' %}{{ raise_exception('System message must be at the beginning') }}{% endif %}[{{ m.role }}: {{ m.content }}]{% endfor %}`;
const QWEN = FAMILIES[0]?.template ?? "";

function rendered(
  source: string,
  messages: readonly Message[],
  tools: readonly Tool[] = [],
  dialect = "hermes",
): { text: string; notes: readonly string[] } {
  const template = new ChatTemplate("m", { default: source, toolUse: null }, {});
  const manners = new Manners((list, offered) =>
    template.render({ messages: list, tools: offered, kwargs: {}, marker: "\uFDD0", cut: null }),
  );
  const asked = { messages, tools, templateKwargs: {} };
  const { conversation, notes } = adapt(asked, manners, dialectNamed(dialect));
  return { text: template.render(toTemplateInput(conversation, NONE)), notes };
}
const textOf = (source: string, ...messages: Message[]) => rendered(source, messages).text;

describe("adapt()", () => {
  test("leaves alone what a template can render", () => {
    const messages = [
      message("user", "a"),
      message("assistant", "b"),
      message("system", "now c"),
      message("user", "d"),
      message("user", "e"),
    ];
    expect(textOf(PLAIN, ...messages)).toBe(
      "[user: a][assistant: b][system: now c][user: d][user: e][assistant: ",
    );
  });

  test("keeps later system messages at their place as reminders where a template refuses them", () => {
    const messages = [
      message("system", "s"),
      message("user", "a"),
      message("assistant", "b"),
      message("user", "c"),
      message("system", "be brief"),
    ];
    expect(textOf(FIRST_SYSTEM, ...messages)).toBe(
      "[S: s][user: a][assistant: b][user: c][user: <system-reminder>\nbe brief\n</system-reminder>]",
    );
  });

  test("makes turns alternate where a template demands that", () => {
    const messages = [
      message("system", "s"),
      message("user", "a"),
      message("user", "b"),
      message("assistant", "c"),
      message("assistant", "d"),
      message("system", "t"),
      message("user", "e"),
    ];
    expect(textOf(STRICT, ...messages)).toBe(
      "[user: s\n\na\n\nb][assistant: c\n\nd][user: <system-reminder>\nt\n</system-reminder>\n\ne]",
    );
  });

  test("ends a result with what the user says next where turns are counted without calls", () => {
    const counted =
      "{% set n = namespace(turns=0) %}{% for m in messages %}{% if m.role == 'tool' %}[result: {{ m.content }}]{% elif m.tool_calls %}[call: {{ m.tool_calls[0].function.arguments | tojson }}]" +
      "{% else %}{% if (m.role == 'user') != (n.turns % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}{% set n.turns = n.turns + 1 %}[{{ m.role }}: {{ m.content }}]{% endif %}{% endfor %}";
    const messages = [
      message("user", "a"),
      message("assistant", "", call('{"x": 1}')),
      message("tool", "42", { toolCallId: "call_1" }),
      message("user", "b"),
      message("system", "c"),
      message("assistant", "d"),
      message("user", "e"),
    ];
    expect(textOf(counted, ...messages)).toBe(
      '[user: a][call: {"x": 1}][result: 42\n\nb\n\n<system-reminder>\nc\n</system-reminder>][assistant: d][user: e]',
    );
    expect(textOf(QWEN, ...messages.slice(0, 4))).toContain("<|im_start|>user\nb<|im_end|>");
  });

  test("puts a system message that a template drops into the user's turn", () => {
    const drops =
      "{% for m in messages if m.role != 'system' %}[{{ m.role }}: {{ m.content }}]{% endfor %}";
    expect(textOf(drops, message("system", "s"), message("user", "a"))).toBe("[user: s\n\na]");
    expect(textOf(drops, message("system", "s"))).toBe("[user: s]");
  });

  test("describes tools, calls and results in text where a template knows none", () => {
    const tools = [{ name: "f", description: "does f", parameters: { type: "object" } }];
    const messages = [
      message("system", "s"),
      message("user", "a"),
      message("assistant", "I call.", call('{"x": 1}')),
      message("tool", "42", { toolCallId: "call_1" }),
    ];
    const { text, notes } = rendered(PLAIN, messages, tools);
    expect(text).toStartWith("[system: s\n\n# Tools");
    expect(text).toContain('{"name":"f","description":"does f","parameters":{"type":"object"}}');
    expect(text).toContain(
      '[assistant: I call.\n<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>]' +
        "[user: <tool_response>\n42\n</tool_response>]",
    );
    expect(notes).toHaveLength(2);
    expect(rendered(QWEN, messages, tools).notes).toEqual([]);
  });

  test("tells an orphan result as the user's words", () => {
    const orphan = message("tool", "42", { toolCallId: "call_9" });
    for (const before of [[], [message("user", "a"), message("assistant", "b")]]) {
      expect(textOf(QWEN, ...before, orphan)).toContain(
        "<|im_start|>user\n<tool_response>\n42\n</tool_response>",
      );
    }
  });

  test("gives calls the ids that a family's template wants", () => {
    const messages = [
      message("user", "a"),
      message("assistant", "", call("{}", "call_abc")),
      message("tool", "1", { toolCallId: "call_abc" }),
      message("assistant", "", call("{}", "call_def")),
      message("tool", "2", { toolCallId: "call_def" }),
    ];
    const kimi = FAMILIES.find(({ dialect }) => dialect === "kimi")?.template ?? "";
    const { text } = rendered(kimi, messages, [], "kimi");
    expect(text).toContain("<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>");
    expect(text).toContain("<|tool_call_begin|>functions.f:1<|tool_call_argument_begin|>");
    const mistral = FAMILIES.find(({ dialect }) => dialect === "mistral-list")?.template ?? "";
    const ids = [
      ...rendered(mistral, messages, [], "mistral-list").text.matchAll(/"id": "(\w+)"/g),
    ];
    expect(ids.map(([, id]) => id?.length)).toEqual([9, 9]);
    const gptOss = FAMILIES.find(({ dialect }) => dialect === "harmony")?.template ?? "";
    expect(rendered(gptOss, messages, [], "harmony").text).toContain(
      "<|start|>functions.f to=assistant",
    );
  });

  const odd: readonly (readonly [string, readonly Message[]])[] = [
    [
      "broken arguments",
      [
        message("user", "a"),
        message("assistant", "", call("{")),
        message("tool", "x", { toolCallId: "call_1" }),
      ],
    ],
    [
      "empty arguments",
      [
        message("user", "a"),
        message("assistant", "", call("")),
        message("tool", "", { toolCallId: "call_1" }),
      ],
    ],
    ["arguments that are a list", [message("user", "a"), message("assistant", "", call("[1]"))]],
    [
      "two results for one call",
      [
        message("user", "a"),
        message("assistant", "", call("{}")),
        message("tool", "x", { toolCallId: "call_1" }),
        message("tool", "y", { toolCallId: "call_1" }),
      ],
    ],
    [
      "a result before its call",
      [message("tool", "x", { toolCallId: "call_1" }), message("assistant", "", call("{}"))],
    ],
    [
      "a result without an id",
      [message("user", "a"), message("assistant", "", call("{}")), message("tool", "x")],
    ],
    [
      "nothing but empty messages",
      [message("user", ""), message("assistant", ""), message("user", "")],
    ],
    ["assistant first", [message("assistant", "a"), message("user", "b")]],
    ["system only", [message("system", "a")]],
  ];
  test.each(odd)("renders %s", (_, messages) => {
    for (const source of [PLAIN, FIRST_SYSTEM, QWEN]) {
      const { text } = rendered(source, messages, [{ name: "f" }]);
      for (const one of messages) {
        for (const part of one.parts) expect(text).toContain(part.text);
      }
    }
  });

  test("renders a conversation that grows with the same beginning", () => {
    const turns = [
      message("user", "a"),
      message("assistant", "", call('{"x": 1}')),
      message("tool", "1", { toolCallId: "call_1" }),
      message("assistant", "b"),
      message("system", "note"),
      message("user", "c"),
      message("assistant", "d"),
      message("user", "e"),
    ];
    for (const source of [PLAIN, FIRST_SYSTEM, QWEN]) {
      let before = "";
      for (let length = 1; length <= turns.length; length++) {
        if (turns[length - 1]?.role === "assistant") continue;
        const text = textOf(source, ...turns.slice(0, length));
        const common = before.replace(/(?:\[assistant: |<\|im_start\|>assistant\n)$/, "");
        expect(text.startsWith(common)).toBe(true);
        before = text;
      }
    }
  });
});

describe("ToolOrder.settle()", () => {
  test("renders a tool as it was seen first, whatever the order of its keys", () => {
    const order = new ToolOrder();
    const first: Tool = {
      name: "f",
      parameters: { type: "object", properties: { b: { type: "string" }, a: {} } },
    };
    const again: Tool = {
      parameters: { properties: { a: {}, b: { type: "string" } }, type: "object" },
      name: "f",
    };
    expect(order.settle(first)).toBe(first);
    expect(order.settle(again)).toBe(first);
    expect(order.settle({ ...again, name: "g" }).name).toBe("g");
  });
});
