/** Every grammar that a request for calls and formats may lead to is one that can be enforced. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { CHAT_DEFAULTS, type ChatRequest } from "#core/contract";
import { GrammarHost } from "../../../src/device/grammar/host.ts";
import { SHARED, STATE } from "../../../src/device/grammar/messages.ts";
import { dialectNamed } from "../../../src/front/text/dialects/table.ts";
import { ModelText } from "../../../src/front/text/model-text.ts";
import { shapeOf } from "../../../src/front/text/shape.ts";
import { FAMILIES } from "../../helpers/dialects.ts";

const { vocabulary, addedIds } = new ModelText(
  "tiny",
  join(import.meta.dir, "../../fixtures/models/qwen3-f32"),
).loaded;
const host = await GrammarHost.create({ ...vocabulary, addedIds }, vocabulary.offsets.length - 1);

const parameters = { type: "object", properties: { a: { type: "boolean" } }, required: ["a"] };
const REQUEST: ChatRequest = {
  ...CHAT_DEFAULTS,
  model: "m",
  messages: [],
  tools: [{ name: "f", parameters, strict: true }, { name: "g" }],
};

const ASKED: Readonly<Record<string, Partial<ChatRequest>>> = {
  "strict tools": {},
  "strict tools, one call": { parallelToolCalls: false },
  "any call": { toolChoice: { kind: "required" } },
  "one call": { toolChoice: { kind: "required" }, parallelToolCalls: false },
  "the named call": { toolChoice: { kind: "named", name: "g" } },
  "JSON or a call": { format: { kind: "json" } },
  "a pattern or a call": { format: { kind: "regex", pattern: "a+" } },
  "a grammar or a call": { format: { kind: "ebnf", grammar: 'root ::= "x"' } },
  JSON: { tools: [], format: { kind: "json" } },
  "a choice": { tools: [], format: { kind: "choice", options: ["a", "b"] } },
};

describe.each(FAMILIES)("$name", ({ dialect }) => {
  test.each(Object.entries(ASKED))("can be held to %s", async (what, more) => {
    const { grammar } = shapeOf({ ...REQUEST, ...more }, dialectNamed(dialect));
    if (grammar === null) expect(what).toStartWith("strict tools");
    else expect(await host.compile(`${dialect} ${what}`, grammar, true)).toEqual([]);
  });
});

test("free text before a call goes on for ever, whole characters at a time", async () => {
  const { grammar } = shapeOf(REQUEST, dialectNamed("hermes"));
  if (grammar === null) throw new Error("no grammar");
  await host.compile("free", grammar, true);
  const { bytes, offsets } = vocabulary;
  let seed = 1;
  const random = (n: number) => {
    seed = (seed * 48271) % 2147483647; // Park, Miller: Random number generators
    return seed % n;
  };
  for (let run = 0; run < 4; run++) {
    const buffer = new SharedArrayBuffer(65_536);
    const shared = new Int32Array(buffer);
    await host.open(run, "free", [], buffer);
    const parts: Uint8Array[] = [];
    for (let i = 0; i < 200 && shared[SHARED.state] === STATE.going; i++) {
      const allowed = Array.from({ length: offsets.length - 1 }, (_, id) => id).filter(
        (id) => (((shared[SHARED.mask + (id >> 5)] ?? 0) >>> (id & 31)) & 1) === 1,
      );
      const id = allowed[random(allowed.length)] ?? 0;
      parts.push(bytes.subarray(offsets[id], offsets[id + 1]));
      await host.accept(run, id);
    }
    expect(shared[SHARED.state]).not.toBe(STATE.failed);
    const text = Buffer.concat(parts)
      .toString()
      .replace(/\uFFFD$/, ""); // the last one may be cut
    expect(text).not.toContain("\uFFFD");
    host.close(run);
  }
});
