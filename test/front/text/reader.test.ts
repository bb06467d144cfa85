import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  type ChatEvent,
  type ChatRequest,
  GREEDY,
  type TokenEvent,
  type TokenLogprob,
  type TokenRequest,
} from "#core/contract";
import { Detokenizer } from "../../../src/front/text/detokenizer.ts";
import { createReader, type Reader } from "../../../src/front/text/reader.ts";
import { StopFilter } from "../../../src/front/text/stop-filter.ts";
import type { Vocabulary } from "../../../src/front/text/vocabulary.ts";

/** One token per byte, then the given pieces. */
function vocabularyOf(pieces: readonly string[], stripsBlank = false): Vocabulary {
  const encoder = new TextEncoder();
  const parts = [
    ...Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)),
    ...pieces.map((piece) => encoder.encode(piece)),
  ];
  const offsets = new Uint32Array(parts.length + 1);
  parts.forEach((part, id) => {
    offsets[id + 1] = (offsets[id] ?? 0) + part.length;
  });
  const bytes = new Uint8Array(offsets.at(-1) ?? 0);
  parts.forEach((part, id) => {
    bytes.set(part, offsets[id]);
  });
  return { bytes, offsets, specials: new Map(), stripsBlank };
}

const BYTES = vocabularyOf([]);
const bytesOf = (text: string) => [...new TextEncoder().encode(text)];

function requestOf(stop: readonly string[] = []): ChatRequest {
  return {
    model: "m",
    messages: [],
    tools: [],
    templateKwargs: {},
    sampling: {},
    maxTokens: undefined,
    minTokens: 0,
    ignoreEos: false,
    stop,
    topLogprobs: null,
    lane: "interactive",
    toolChoice: { kind: "auto" },
    parallelToolCalls: true,
    format: null,
    thinking: {},
  };
}

const PROMPT: TokenRequest = {
  id: "1",
  promptIds: [1, 2, 3],
  maxTokens: 100,
  minTokens: 0,
  stopIds: [],
  sampling: GREEDY,
  lane: "interactive",
  topLogprobs: null,
  constraint: null,
  thinkingBudget: null,
};

const readerOf = (
  stop: readonly string[] = [],
  vocabulary = BYTES,
  stopTexts = new Map(),
): Reader => createReader(vocabulary, requestOf(stop), PROMPT, stopTexts);

/** What the spine does with one answer. */
function run(reader: Reader, events: readonly TokenEvent[]): ChatEvent[] {
  const out: ChatEvent[] = [];
  for (const event of events) {
    out.push(...reader.read(event));
    if (reader.stopped) break;
  }
  out.push(...reader.end());
  return out;
}

const tokens = (ids: readonly number[]): TokenEvent => ({ kind: "tokens", ids });
const finish = (completionTokens: number, reason: "stop" | "length" = "stop"): TokenEvent => ({
  kind: "finish",
  reason,
  stopId: reason === "stop" ? 7 : undefined,
  usage: { promptTokens: 3, cachedTokens: 2, completionTokens },
});

const textOf = (events: readonly ChatEvent[]) =>
  events.map((event) => (event.kind === "text" ? event.text : "")).join("");
const endOf = (events: readonly ChatEvent[]) => {
  const last = events.at(-1);
  if (last?.kind !== "end") throw new Error("the last event is not the end");
  return last;
};

/** Cuts a list at the given places. */
function cutAt<T>(list: readonly T[], places: readonly number[]): T[][] {
  const at = [...new Set(places.map((place) => place % (list.length + 1)))].sort((a, b) => a - b);
  return [0, ...at].map((begin, i) => list.slice(begin, at[i] ?? list.length));
}

describe("Reader.read()", () => {
  test("tells the start once, then text, then one end with the engine's usage", () => {
    const events = run(readerOf(), [
      { kind: "prefill", done: 1, total: 3 },
      { kind: "prefill", done: 3, total: 3 },
      tokens(bytesOf("Hi")),
      tokens(bytesOf("!")),
      finish(3),
    ]);
    expect(events).toEqual([
      { kind: "start", promptTokens: 3, cachedTokens: 0, warnings: [] },
      { kind: "text", text: "Hi" },
      { kind: "text", text: "!" },
      {
        kind: "end",
        reason: "stop",
        stop: undefined,
        usage: { promptTokens: 3, cachedTokens: 2, completionTokens: 3, reasoningTokens: 0 },
      },
    ]);
  });

  test("tells the start also when nothing was generated", () => {
    expect(run(readerOf(), [finish(0, "length")]).map((e) => e.kind)).toEqual(["start", "end"]);
  });

  test("ends before a stop string that lies over several tokens, and counts no token behind it", () => {
    const events = run(readerOf(["END"]), [
      { kind: "prefill", done: 3, total: 3, cached: 2 },
      tokens(bytesOf("some text E")),
      tokens(bytesOf("N")),
      tokens(bytesOf("D and more")),
      finish(99),
    ]);
    expect(textOf(events)).toBe("some text ");
    expect(endOf(events)).toEqual({
      kind: "end",
      reason: "stop",
      stop: "END",
      usage: { promptTokens: 3, cachedTokens: 2, completionTokens: 13, reasoningTokens: 0 },
    });
  });

  test("gives back what only looked like a stop string", () => {
    const events = run(readerOf(["END"]), [tokens(bytesOf("the EN")), finish(6, "length")]);
    expect(textOf(events)).toBe("the EN");
    expect(endOf(events)).toMatchObject({ reason: "length", stop: undefined });
  });

  test("holds back no more than a stop string needs", () => {
    const reader = readerOf(["\n\n"]);
    expect(textOf([...reader.read(tokens(bytesOf("line\n")))])).toBe("line");
    expect(textOf([...reader.read(tokens(bytesOf("next")))])).toBe("\nnext");
  });

  test("flushes a broken character before the end", () => {
    const events = run(readerOf(), [tokens([...bytesOf("a"), 0xf0, 0x9f]), finish(3, "length")]);
    expect(textOf(events)).toBe("a\uFFFD");
    expect(endOf(events).reason).toBe("length");
  });

  test("log-probabilities come with the text that their tokens made, those of a stop string never", () => {
    const vocabulary = { ...vocabularyOf(["lo wo"]), specials: new Map([[300, "<|sep|>"]]) };
    const logprob = (id: number, value: number): TokenLogprob => ({
      id,
      logprob: value,
      top: [[65, -0.5]],
    });
    const ids = [...bytesOf("hel"), 256, ...bytesOf("é"), 300, ...bytesOf("xEN"), ...bytesOf("Dy")];
    const event: TokenEvent = {
      kind: "tokens",
      ids,
      logprobs: ids.map((id, i) => logprob(id, -i)),
    };
    const told = (events: readonly ChatEvent[]) =>
      events.flatMap((e) => (e.kind === "text" ? (e.logprobs ?? []) : []));
    const stopped = told(run(readerOf(["END"], vocabulary), [event, finish(99)]));
    expect(stopped.map((entry) => entry.logprob)).toEqual([-0, -1, -2, -3, -4, -5, -6, -7]);
    expect(stopped[3]).toEqual({
      id: 256,
      text: "lo wo",
      bytes: bytesOf("lo wo"),
      offset: 3,
      logprob: -3,
      top: [{ id: 65, text: "A", bytes: [65], logprob: -0.5 }],
    });
    expect(stopped.slice(4, 7).map((entry) => [entry.text, ...entry.bytes])).toEqual([
      ["\uFFFD", 0xc3],
      ["\uFFFD", 0xa9],
      ["<|sep|>", ...bytesOf("<|sep|>")],
    ]);
    const one = (i: number): TokenEvent => ({
      kind: "tokens",
      ids: [ids[i] as number],
      logprobs: [logprob(ids[i] as number, -i)],
    });
    const single = ids.map((_, i) => one(i));
    expect(told(run(readerOf(["END"], vocabulary), [...single, finish(99)]))).toEqual(stopped);
    const all = run(readerOf([], vocabulary), [...single, one(6), finish(99, "length")]);
    expect(told(all)).toHaveLength(ids.length + 1);
    expect(textOf(all)).toBe("hello woéxENDy");
  });

  test("names a stop string that is a control token by its id", () => {
    const reader = readerOf(["<|end|>"], BYTES, new Map([[7, "<|end|>"]]));
    expect(endOf(run(reader, [tokens(bytesOf("x")), finish(1)])).stop).toBe("<|end|>");
    const other = readerOf(["<|end|>"], BYTES, new Map([[8, "<|end|>"]]));
    expect(endOf(run(other, [tokens(bytesOf("x")), finish(1)])).stop).toBeUndefined();
  });

  test("gives the same text and end at every split into events", () => {
    const alphabet = fc.constantFrom("a", "b", "ab", "\n", "é", "🙂", "👍", "c");
    const text = fc.array(alphabet, { maxLength: 30 }).map((list) => list.join(""));
    const stops = fc.array(
      fc.array(alphabet, { minLength: 1, maxLength: 4 }).map((list) => list.join("")),
      { maxLength: 3 },
    );
    const junk = fc.array(fc.nat(255), { maxLength: 3 });
    fc.assert(
      fc.property(text, junk, stops, fc.array(fc.nat(200)), (plain, tail, stop, places) => {
        const ids = [...bytesOf(plain), ...tail];
        const whole = run(readerOf(stop), [tokens(ids), finish(ids.length)]);
        const parts = run(readerOf(stop), [...cutAt(ids, places).map(tokens), finish(ids.length)]);
        expect(textOf(parts)).toBe(textOf(whole));
        const [a, b] = [endOf(parts), endOf(whole)];
        expect([a.reason, a.stop, a.usage.completionTokens]).toEqual([
          b.reason,
          b.stop,
          b.usage.completionTokens,
        ]);
        expect(parts.filter((event) => event.kind === "end")).toHaveLength(1);
      }),
      { numRuns: 500 },
    );
  });
});

describe("Detokenizer.push()", () => {
  test("gives the text of all bytes, wherever they are cut", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
        const detokenizer = new Detokenizer(BYTES);
        const text = [...bytes].map((byte) => detokenizer.push(byte)).join("") + detokenizer.end();
        expect(text).toBe(new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes));
      }),
      { numRuns: 1000 },
    );
  });

  test("never tells half a character", () => {
    const detokenizer = new Detokenizer(BYTES);
    const steps = bytesOf("a🙂é").map((byte) => detokenizer.push(byte));
    expect(steps).toEqual(["a", "", "", "", "🙂", "", "é"]);
  });

  test("drops one blank at the beginning where the tokenizer adds one", () => {
    const detokenizer = new Detokenizer(vocabularyOf([" a", " b"], true));
    expect([256, 257].map((id) => detokenizer.push(id))).toEqual(["a", " b"]);
  });
});

describe("StopFilter.push()", () => {
  /** The same by search in the whole text: the stop string that is complete first, the longest of these. */
  function cutNaively(text: string, stops: readonly string[]): [string, string | undefined] {
    for (let end = 1; end <= text.length; end++) {
      const hits = stops.filter((stop) => stop !== "" && text.slice(0, end).endsWith(stop));
      const longest = hits.sort((a, b) => b.length - a.length)[0];
      if (longest !== undefined) return [text.slice(0, end - longest.length), longest];
    }
    return [text, undefined];
  }

  test("cuts like a search in the whole text, wherever the text is cut", () => {
    const small = fc.string({ unit: fc.constantFrom("a", "b", "c"), maxLength: 40 });
    const stops = fc.array(fc.string({ unit: fc.constantFrom("a", "b", "c"), maxLength: 5 }), {
      maxLength: 4,
    });
    fc.assert(
      fc.property(small, stops, fc.array(fc.nat(40)), (text, list, places) => {
        const filter = new StopFilter(list);
        const pieces = cutAt([...text], places).map((part) => part.join(""));
        const out = pieces.map((piece) => filter.push(piece)).join("") + filter.end();
        expect([out, filter.found]).toEqual(cutNaively(text, list));
      }),
      { numRuns: 2000 },
    );
  });

  test("takes long stop strings in linear time", () => {
    const stop = `${"a".repeat(60_000)}b`;
    const filter = new StopFilter([stop]);
    const begun = performance.now();
    let out = "";
    for (let i = 0; i < 200; i++) out += filter.push("a".repeat(1000));
    out += filter.end();
    expect(out.length).toBe(200_000);
    expect(performance.now() - begun).toBeLessThan(2000);
  });
});
