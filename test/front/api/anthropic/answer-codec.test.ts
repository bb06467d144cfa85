import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { ChatEvent, FinishReason } from "#core/contract";
import {
  type AnswerHead,
  MessageEncoder,
  MessageFold,
} from "../../../../src/front/api/anthropic/answer-codec.ts";
import {
  type MessageEvent,
  message,
  messageEvent,
} from "../../../../src/front/api/anthropic/answers.ts";
import { thoughtsOf } from "../../../../src/front/api/anthropic/signature-codec.ts";

const HEAD: AnswerHead = { id: "msg_1", model: "m", marksCache: false, hidesThoughts: false };

const start: ChatEvent = { kind: "start", promptTokens: 100, cachedTokens: 64, warnings: [] };
const say = (text: string): ChatEvent => ({ kind: "text", text });
const think = (text: string): ChatEvent => ({ kind: "reasoning", text });
const call = (index: number, ...pieces: string[]): ChatEvent[] => [
  { kind: "call", index, id: `call_${index}`, name: `f${index}` },
  ...pieces.map((text): ChatEvent => ({ kind: "arguments", index, text })),
];
const called = (index: number): ChatEvent => ({ kind: "callEnd", index });
const end = (reason: FinishReason, stop?: string): ChatEvent => ({
  kind: "end",
  reason,
  stop,
  usage: { promptTokens: 100, cachedTokens: 0, completionTokens: 7, reasoningTokens: 3 },
});

function encode(events: readonly ChatEvent[], head: Partial<AnswerHead> = {}): MessageEvent[] {
  const encoder = new MessageEncoder({ ...HEAD, ...head });
  const out = events.flatMap((event) => [...encoder.encode(event)]);
  return out.map((event) => messageEvent.parse(structuredClone(event)));
}

function fold(events: readonly MessageEvent[]) {
  const all = new MessageFold();
  for (const event of structuredClone(events) as MessageEvent[]) all.add(event);
  return message.parse(all.message);
}

/** Events in few words. */
const brief = (events: readonly MessageEvent[]) =>
  events.map((event) => {
    switch (event.type) {
      case "content_block_start":
        return `${event.index} ${event.content_block.type}`;
      case "content_block_delta":
        return `${event.index} ${Object.values(event.delta).slice(1).join()}`;
      case "content_block_stop":
        return `${event.index} stop`;
      case "message_delta":
        return event.delta.stop_reason;
      default:
        return event.type;
    }
  });

describe("MessageEncoder", () => {
  test("writes thoughts, text and calls as blocks, each whole before the next", () => {
    const events = encode([
      start,
      think("h"),
      think("m"),
      say("\n\n"),
      say("Let me"),
      say(" see. "),
      ...call(0, '{"a"', ":1}"),
      called(0),
      ...call(1),
      called(1),
      end("tool_calls"),
    ]);
    const signature = brief(events)[5] as string;
    expect(signature).toMatch(/^0 omlx0\.[0-9a-f]+$/);
    expect(brief(events)).toEqual([
      "message_start",
      "ping",
      "0 thinking",
      "0 h",
      "0 m",
      signature,
      "0 stop",
      "1 text",
      "1 \n\nLet me",
      "1  see. ",
      "1 stop",
      "2 tool_use",
      '2 {"a"',
      "2 :1}",
      "2 stop",
      "3 tool_use",
      "3 stop",
      "tool_use",
      "message_stop",
    ]);
    const { content, stop_reason } = fold(events);
    expect(stop_reason).toBe("tool_use");
    expect(content).toEqual([
      { type: "thinking", thinking: "hm", signature: signature.slice(2) },
      { type: "text", text: "\n\nLet me see. ", citations: null },
      {
        type: "tool_use",
        id: "call_0",
        name: "f0",
        input: { a: 1 },
        caller: { type: "direct" },
      },
      { type: "tool_use", id: "call_1", name: "f1", input: {}, caller: { type: "direct" } },
    ]);
  });

  test("opens no text block for blanks between others, but keeps an answer of blanks", () => {
    const blanks = [start, say(" \n"), ...call(0, "{}"), called(0), say("\n"), end("tool_calls")];
    expect(fold(encode(blanks)).content.map((block) => block.type)).toEqual(["tool_use"]);
    const late = [start, think("x"), say("\n"), think("y"), say("z"), end("stop")];
    expect(fold(encode(late)).content).toMatchObject([{ thinking: "xy" }, { text: "z" }]);
    expect(fold(encode([start, say(" "), say("\n"), end("stop")])).content).toMatchObject([
      { type: "text", text: " \n" },
    ]);
    expect(brief(encode([start, end("length")])).slice(2)).toEqual([
      "0 text",
      "0 stop",
      "max_tokens",
      "message_stop",
    ]);
  });

  test("never closes a call that was cut off", () => {
    const events = encode([start, say("x"), ...call(0, '{"a":'), end("length")]);
    expect(brief(events).slice(-4)).toEqual([
      "1 tool_use",
      '1 {"a":',
      "max_tokens",
      "message_stop",
    ]);
    expect(fold(events).content.map((block) => block.type)).toEqual(["text"]);
    expect(fold(encode([start, ...call(0, "{"), end("length")])).content).toMatchObject([
      { type: "text", text: "" },
    ]);
  });

  test("tells which stop sequence ended the text", () => {
    const delta = (reason: FinishReason, stop?: string) => {
      const { stop_reason, stop_sequence } = fold(encode([start, say("x"), end(reason, stop)]));
      return [stop_reason, stop_sequence];
    };
    expect(delta("stop")).toEqual(["end_turn", null]);
    expect(delta("stop", "###")).toEqual(["stop_sequence", "###"]);
    expect(delta("length")).toEqual(["max_tokens", null]);
  });

  test("carries thoughts that are not to be shown in their signature", () => {
    const events = encode([start, think("hm 🌸"), say("x"), end("stop")], { hidesThoughts: true });
    expect(events.some((e) => e.type === "content_block_delta" && "thinking" in e.delta)).toBe(
      false,
    );
    const [block] = fold(events).content;
    if (block?.type !== "thinking") throw new Error("no thoughts");
    expect(block.thinking).toBe("");
    expect(thoughtsOf(block.thinking, block.signature)).toBe("hm 🌸");
  });

  test("counts the prompt the same at the start, at the end and as a whole", () => {
    for (const [marksCache, counts] of [
      [false, [36, 0, 64]],
      [true, [0, 36, 64]],
    ] as const) {
      const events = encode([start, say("x"), end("stop")], { marksCache });
      const usages = [
        ...events.flatMap((e) => (e.type === "message_start" ? [e.message.usage] : [])),
        ...events.flatMap((e) => (e.type === "message_delta" ? [e.usage] : [])),
        fold(events).usage,
      ];
      expect(usages).toHaveLength(3);
      for (const usage of usages) {
        expect([
          usage.input_tokens,
          usage.cache_creation_input_tokens,
          usage.cache_read_input_tokens,
        ]).toEqual([...counts]);
      }
      expect(usages.map((usage) => usage.output_tokens)).toEqual([0, 7, 7]);
      expect(fold(events).usage.output_tokens_details).toEqual({ thinking_tokens: 3 });
    }
  });

  test("gives the same whole answer wherever texts are cut", () => {
    const whole: ChatEvent[] = [
      start,
      think("some thoughts 🌸"),
      say(" \n and text "),
      ...call(0, '{"k":"v w"}'),
      called(0),
      say("\nmore"),
      end("tool_calls"),
    ];
    const wanted = fold(encode(whole));
    fc.assert(
      fc.property(fc.array(fc.nat(20), { maxLength: 12 }), (cuts) => {
        const pieces = whole.flatMap((event): ChatEvent[] => {
          if (!("text" in event)) return [event];
          const at = [0, ...cuts.filter((n) => n < event.text.length), event.text.length];
          const borders = at.sort((a, b) => a - b);
          return borders
            .slice(1)
            .map((to, i) => ({ ...event, text: event.text.slice(borders[i], to) }));
        });
        expect(fold(encode(pieces))).toEqual(wanted);
      }),
      { numRuns: 200 },
    );
  });
});
