import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { ChatEvent, ChatRequest, TokenRequest } from "#core/contract";
import { CHAT_DEFAULTS, GREEDY } from "#core/contract";
import { dialectOf, thoughtsOf } from "../../../../src/front/text/dialects/table.ts";
import { createReader } from "../../../../src/front/text/reader.ts";
import { Speech } from "../../../../src/front/text/speech.ts";
import type { Vocabulary } from "../../../../src/front/text/vocabulary.ts";
import {
  type ExpectedCall,
  expectedTurn,
  FAMILIES,
  type Family,
  RECORDED,
  renderedTurn,
  TOOLS,
} from "../../../helpers/dialects.ts";

const tokenizers = new Map<Family, ReturnType<typeof makeTokenizer>>();

function tokenizerOf(family: Family) {
  const tokenizer = tokenizers.get(family) ?? makeTokenizer(family);
  tokenizers.set(family, tokenizer);
  return tokenizer;
}

/** One token per byte, then the family's own tokens, which add nothing to a text. */
function makeTokenizer(family: Family) {
  const dialect = dialectOf(family.template);
  const thoughts = thoughtsOf(dialect, family.template, (text) => family.tokens.includes(text));
  const texts = [
    ...dialect.begins,
    ...(dialect.markers ?? []),
    ...(thoughts === null ? [] : [thoughts.begin, thoughts.end]),
  ];
  const offsets = Uint32Array.from({ length: 257 + family.tokens.length }, (_, i) =>
    Math.min(i, 256),
  );
  const vocabulary: Vocabulary = {
    bytes: Uint8Array.from({ length: 256 }, (_, byte) => byte),
    offsets,
    stripsBlank: false,
    specials: new Map(),
  };
  const speech = new Speech(
    {
      dialect: dialect.name,
      thoughts: thoughts === null ? null : { ...thoughts, endIds: [] },
      markers: family.tokens.flatMap((token, i) =>
        texts.includes(token) ? [[token, 256 + i] as const] : [],
      ),
    },
    vocabulary,
  );
  const encode = (text: string): number[] => {
    const at = family.tokens
      .map((token, i) => ({ token, id: 256 + i, place: text.indexOf(token) }))
      .filter(({ place }) => place !== -1)
      .sort((a, b) => a.place - b.place || b.token.length - a.token.length)[0];
    if (at === undefined) return [...new TextEncoder().encode(text)];
    return [
      ...new TextEncoder().encode(text.slice(0, at.place)),
      at.id,
      ...encode(text.slice(at.place + at.token.length)),
    ];
  };
  return { dialect, vocabulary, speech, encode };
}

const REQUEST: ChatRequest = { ...CHAT_DEFAULTS, model: "m", messages: [], tools: TOOLS };
const prompt = (promptIds: readonly number[] = [1]): TokenRequest => ({
  id: "1",
  promptIds,
  maxTokens: 10_000,
  minTokens: 0,
  stopIds: [],
  sampling: GREEDY,
  lane: "interactive",
  topLogprobs: null,
  constraint: null,
  thinkingBudget: null,
});

interface ReadOptions {
  readonly request?: Partial<ChatRequest>;
  readonly reason?: "stop" | "length";
  readonly promptText?: string;
  /** Sizes of the token events; the last one goes on. */
  readonly cuts?: readonly number[];
}

function events(
  family: Family,
  output: string | readonly number[],
  options: ReadOptions = {},
): ChatEvent[] {
  const { vocabulary, speech, encode } = tokenizerOf(family);
  const ids = typeof output === "string" ? encode(output) : output;
  const request = { ...REQUEST, ...options.request };
  const asked = prompt(encode(options.promptText ?? " "));
  const reading = speech.reading(request, asked);
  const reader = createReader(vocabulary, request, asked, new Map(), reading);
  const out: ChatEvent[] = [];
  const cuts = [...(options.cuts ?? [])];
  for (let at = 0; at < ids.length && !reader.stopped; ) {
    const size = cuts.shift() ?? ids.length;
    out.push(...reader.read({ kind: "tokens", ids: ids.slice(at, at + size) }));
    at += size;
  }
  const usage = { promptTokens: 1, cachedTokens: 0, completionTokens: ids.length };
  if (!reader.stopped) {
    out.push(...reader.read({ kind: "finish", reason: options.reason ?? "stop", usage }));
  }
  out.push(...reader.end());
  return out;
}

interface Answer {
  readonly text: string;
  readonly reasoning: string;
  readonly calls: readonly ExpectedCall[];
  /** Raw argument texts of all calls, complete or not. */
  readonly argumentTexts: readonly string[];
  readonly reason: string;
}

/** Folds events and holds them to the contract on the way. */
function fold(list: readonly ChatEvent[]): Answer {
  let text = "";
  let reasoning = "";
  const open: { name: string; text: string; isComplete: boolean }[] = [];
  const ids = new Set<string>();
  for (const event of list) {
    const call = open.at(-1);
    switch (event.kind) {
      case "text":
        text += event.text;
        break;
      case "reasoning":
        reasoning += event.text;
        break;
      case "call":
        expect(event.index).toBe(open.length);
        expect(ids.has(event.id)).toBe(false);
        ids.add(event.id);
        open.push({ name: event.name, text: "", isComplete: false });
        break;
      case "arguments":
        expect([event.index, call?.isComplete]).toEqual([open.length - 1, false]);
        if (call !== undefined) call.text += event.text;
        break;
      case "callEnd":
        expect(event.index).toBe(open.length - 1);
        if (call !== undefined) call.isComplete = true;
        break;
    }
  }
  const end = list.at(-1);
  return {
    text,
    reasoning,
    calls: open
      .filter((call) => call.isComplete)
      .map((call) => ({ name: call.name, arguments: JSON.parse(call.text) })),
    argumentTexts: open.map((call) => call.text),
    reason: end?.kind === "end" ? end.reason : "none",
  };
}

const read = (
  family: Family,
  output: string | readonly number[],
  options: ReadOptions = {},
): Answer => fold(events(family, output, options));

function familyNamed(name: string): Family {
  const family = FAMILIES.find((one) => one.name === name);
  if (family === undefined) throw new Error(`no family "${name}"`);
  return family;
}

describe("dialectOf()", () => {
  test.each(FAMILIES)("tells the dialect of $name from its template", (family) => {
    expect(dialectOf(family.template).name).toBe(family.dialect);
  });

  test("takes the JSON form where a template knows no tools", () => {
    expect(dialectOf("{{ messages[0].content }}").name).toBe("hermes");
  });
});

describe.each(FAMILIES)("$name", (family) => {
  const { output, calls } = renderedTurn(family);

  test("reads back what its template wrote", () => {
    expect(read(family, output)).toMatchObject({
      ...expectedTurn(family),
      reason: "tool_calls",
      calls,
    });
  });

  test("reads the same at every split into two events", () => {
    const whole = read(family, output);
    const ids = tokenizerOf(family).encode(output);
    for (let cut = 1; cut < ids.length; cut++) {
      expect(Bun.deepEquals(read(family, ids, { cuts: [cut] }), whole)).toBe(true);
    }
  });

  test("reads the same token by token and at random splits", () => {
    const whole = read(family, output);
    const { encode } = tokenizerOf(family);
    expect(read(family, output, { cuts: encode(output).map(() => 1) })).toEqual(whole);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 9 }), { maxLength: 100 }), (cuts) => {
        expect(read(family, output, { cuts })).toEqual(whole);
      }),
      { numRuns: 10 },
    );
  });

  test("tells arguments as they come and presents no call as complete that was cut off", () => {
    const { encode } = tokenizerOf(family);
    const ids = encode(output);
    const whole = read(family, output);
    const told = events(family, output, { cuts: ids.map(() => 1) });
    expect(told.filter((event) => event.kind === "arguments").length).toBeGreaterThan(20);
    for (let length = 0; length < ids.length; length++) {
      const answer = read(family, ids.slice(0, length), { reason: "length" });
      // what may still have become a marker is text, if it is not a token
      const rest = answer.text.replace(/\uFFFD$/, "");
      const isPart = whole.text.startsWith(rest.trimEnd());
      const tail = rest.startsWith(whole.text) ? rest.slice(whole.text.length) : rest;
      expect(isPart || (tail.length < 60 && output.includes(tail))).toBe(true);
      expect(whole.reasoning.startsWith(answer.reasoning.replace(/\uFFFD$/, ""))).toBe(true);
      expect(answer.calls).toEqual(calls.slice(0, answer.calls.length));
      answer.argumentTexts.forEach((args, i) => {
        expect(whole.argumentTexts[i]?.startsWith(args.replace(/\uFFFD$/, ""))).toBe(true);
      });
      if (answer.calls.length < calls.length) expect(answer.reason).toBe("length");
    }
  });
});

describe("recorded outputs", () => {
  test.each(RECORDED)("$family: $name", ({ family: name, output, ...expected }) => {
    const family = familyNamed(name);
    const { encode } = tokenizerOf(family);
    const whole = read(family, output);
    expect({ text: whole.text, reasoning: whole.reasoning, calls: whole.calls }).toEqual({
      text: expected.text ?? "",
      reasoning: expected.reasoning ?? "",
      calls: expected.calls ?? [],
    });
    for (let cut = 1; cut < encode(output).length; cut++) {
      expect(read(family, output, { cuts: [cut] })).toEqual(whole);
    }
    expect(read(family, output, { cuts: encode(output).map(() => 1) })).toEqual(whole);
  });
});

describe("reading an answer", () => {
  const qwen = familyNamed("Qwen 3");
  const call = (city: string) =>
    `<tool_call>\n{"name": "get_weather", "arguments": {"city": "${city}"}}\n</tool_call>`;

  test("begins with thoughts that the prompt opened", () => {
    const answer = read(qwen, "Hm.\n</think>\n\nParis.", { promptText: "assistant\n<think>\n" });
    expect(answer).toMatchObject({ reasoning: "Hm.", text: "Paris." });
    const closed = read(qwen, "Paris.", { promptText: "assistant\n<think>\n\n</think>\n\n" });
    expect(closed).toMatchObject({ reasoning: "", text: "Paris." });
  });

  test("takes no word of a user for the beginning of thoughts", () => {
    const spelled = [..."<think>\n"].map((c) => c.charCodeAt(0));
    const { vocabulary, speech, encode } = tokenizerOf(qwen);
    const asked = prompt(spelled);
    const reading = speech.reading(REQUEST, asked);
    const reader = createReader(vocabulary, REQUEST, asked, new Map(), reading);
    const told = [...reader.read({ kind: "tokens", ids: encode("Paris.") }), ...reader.end()];
    expect(fold(told)).toMatchObject({ reasoning: "", text: "Paris." });
  });

  test("goes on with thoughts of an answer that is continued", () => {
    const messages = [
      { role: "assistant" as const, parts: [{ kind: "text" as const, text: "<think>Well" }] },
    ];
    const options = { promptText: "<think>Well, this", request: { messages } };
    expect(read(qwen, " is easy.</think>Paris.", options)).toMatchObject({
      reasoning: "is easy.",
      text: "Paris.",
    });
  });

  test("leaves out a beginning of thoughts that repeats the prompt's", () => {
    const options = { promptText: "assistant\n<think>\n" };
    expect(read(qwen, "<think>\nHm.</think>Paris.", options)).toMatchObject({
      reasoning: "Hm.",
      text: "Paris.",
    });
  });

  test("tells nothing of a call that breaks at its first argument", () => {
    const told = events(qwen, '<tool_call>{"name": "get_weather", "arguments": {city: 1}}');
    expect(told.map((event) => event.kind)).toEqual(["start", "text", "end"]);
  });

  test("leaves the end of thoughts out that were never begun", () => {
    expect(read(qwen, "Hm.</think>\n\nParis.").text).toBe("Hm.Paris.");
  });

  test("keeps thoughts that were cut off out of the text", () => {
    expect(read(qwen, "<think>\nHm, so", { reason: "length" })).toMatchObject({
      reasoning: "Hm, so",
      text: "",
      reason: "length",
    });
  });

  test("counts the tokens of thoughts", () => {
    const told = events(qwen, "<think>abc</think>de");
    expect(told.at(-1)).toMatchObject({ usage: { reasoningTokens: 5, completionTokens: 7 } });
  });

  test("ends where a call comes a second time in a row", () => {
    const answer = read(qwen, `${call("Rome")}\n${call("Rome")}\n${call("Rome")}`);
    expect(answer.argumentTexts).toHaveLength(1);
    expect(answer).toMatchObject({
      reason: "tool_calls",
      calls: [{ arguments: { city: "Rome" } }],
    });
    const others = read(qwen, call("Rome") + call("Rom") + call("Rome"));
    expect(others.calls.map((one) => one.arguments["city"])).toEqual(["Rome", "Rom", "Rome"]);
  });

  test("ends after the first call where no parallel ones are wanted", () => {
    const request = { parallelToolCalls: false };
    const told = events(qwen, `${call("Rome")}\nAnd ${call("Oslo")}`, { request });
    expect(fold(told)).toMatchObject({ text: "", reason: "tool_calls" });
    expect(fold(told).argumentTexts).toHaveLength(1);
  });

  test("leaves calls in the text where that is wanted, or no tool may be called", () => {
    const raw = `Sure. ${call("Rome")}`;
    for (const request of [
      { rawCalls: true },
      { toolChoice: { kind: "none" as const } },
      { tools: [] },
    ]) {
      expect(read(qwen, raw, { request })).toMatchObject({ text: raw, calls: [], reason: "stop" });
    }
  });

  test("looks for stop strings in the text alone", () => {
    const request = { stop: ["Rome", "END"] };
    const answer = read(qwen, `Look: ${call("Rome")}\nfine END more`, { request });
    expect(answer).toMatchObject({ text: "Look:fine ", calls: [{ name: "get_weather" }] });
  });

  test("goes on reading text after very many broken calls", () => {
    const broken = '<tool_call>{"name": 1}'.repeat(500);
    expect(read(qwen, `${broken}end`).text).toBe(`${broken}end`);
  });

  test("reads a long argument in linear time", () => {
    const content = "const x = '<a href=\"#\">' + 1;\\n".repeat(4000);
    const output = `<tool_call>{"name": "write_file", "arguments": {"path": "a", "content": ${JSON.stringify(content)}}}</tool_call>`;
    const ids = tokenizerOf(qwen).encode(output);
    const begun = performance.now();
    const answer = read(qwen, ids, { cuts: ids.map(() => 1) });
    expect(answer.calls[0]?.arguments["content"]).toBe(content);
    expect(performance.now() - begun).toBeLessThan(5000);
  });
});
