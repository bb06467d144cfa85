import { describe, expect, test } from "bun:test";
import type { ChatEvent, Usage } from "#core/contract";
import { collect } from "#front/service";

const usage: Usage = { promptTokens: 2, cachedTokens: 0, completionTokens: 3, reasoningTokens: 0 };

const LOGPROB = { id: 7, text: "b", bytes: [98], offset: 0, logprob: -0.5, top: [] };

async function* scripted(...events: ChatEvent[]) {
  yield* events;
}

describe("collect()", () => {
  test("collect() joins text and reasoning and keeps the end", async () => {
    const result = await collect(
      scripted(
        { kind: "start", promptTokens: 2, cachedTokens: 0, warnings: [] },
        { kind: "reasoning", text: "a" },
        { kind: "text", text: "b", logprobs: [LOGPROB] },
        { kind: "reasoning", text: "c" },
        { kind: "text", text: "d" },
        { kind: "end", reason: "stop", stop: "x", usage },
      ),
    );
    expect(result).toEqual({
      text: "bd",
      reasoning: "ac",
      calls: [],
      logprobs: [LOGPROB],
      runs: [],
      reason: "stop",
      stop: "x",
      usage,
    });
  });

  test("collect() joins the arguments of calls and leaves out one that was cut off", async () => {
    const result = await collect(
      scripted(
        { kind: "call", index: 0, id: "c0", name: "f" },
        { kind: "arguments", index: 0, text: '{"a"' },
        { kind: "arguments", index: 0, text: ": 1}" },
        { kind: "callEnd", index: 0 },
        { kind: "call", index: 1, id: "c1", name: "g" },
        { kind: "arguments", index: 1, text: "{" },
        { kind: "end", reason: "length", usage },
      ),
    );
    expect(result.calls).toEqual([{ id: "c0", name: "f", arguments: '{"a": 1}' }]);
  });

  test("collect() refuses events that stop without an end", async () => {
    await expect(collect(scripted({ kind: "text", text: "b" }))).rejects.toThrow(
      "without their end",
    );
  });
});
