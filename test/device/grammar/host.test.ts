/** Grammars over tokenizers of every kind, without an engine: tokens are drawn from the masks by a seeded die. */
import { beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { GrammarSpec, GrammarVocabulary } from "#core/contract";
import { GrammarHost } from "../../../src/device/grammar/host.ts";
import { maskWords, SHARED, STATE } from "../../../src/device/grammar/messages.ts";
import { Tokens } from "../../../src/device/grammar/tokens.ts";
import { Tokenizer } from "../../../src/front/text/tokenizer.ts";
import { layoutVocabulary } from "../../../src/front/text/vocabulary.ts";

const FIXTURES = join(import.meta.dir, "../../fixtures");

async function vocabularyOf(path: string) {
  const json = await Bun.file(join(FIXTURES, path)).json();
  const file = json.tokenizer ?? json;
  const tokenizer = new Tokenizer(file, {});
  const { addedTokens, vocabSize } = tokenizer;
  const layout = layoutVocabulary(file.decoder, addedTokens, vocabSize, (id) =>
    tokenizer.tokenOf(id),
  );
  const addedIds = addedTokens.filter((token) => !token.isSpecial).map((token) => token.id);
  const vocabulary: GrammarVocabulary = { bytes: layout.bytes, offsets: layout.offsets, addedIds };
  return { vocabulary, vocabSize, tokenizer };
}

/** A text of the grammar, drawn by a seed; ends where it can. */
async function write(
  host: GrammarHost,
  vocabulary: GrammarVocabulary,
  spec: GrammarSpec,
  seed: number,
) {
  const vocabSize = vocabulary.offsets.length - 1;
  await host.compile("grammar", spec, true);
  const shared = new SharedArrayBuffer(4 * (SHARED.mask + maskWords(vocabSize)));
  const view = new Int32Array(shared);
  const ids: number[] = [];
  let random = seed;
  await host.open(1, "grammar", [], shared);
  for (let i = 0; i < 1000; i++) {
    ids.push(...view.subarray(SHARED.forced, SHARED.forced + (view[SHARED.numForced] ?? 0)));
    if (view[SHARED.state] !== STATE.going) break;
    const allowed: number[] = [];
    for (let id = 0; id < vocabSize; id++)
      if (((view[SHARED.mask + (id >> 5)] ?? 0) >>> (id & 31)) & 1) allowed.push(id);
    random = (Math.imul(random, 1103515245) + 12345) & 0x7fffffff;
    const id = allowed[random % allowed.length] as number;
    ids.push(id);
    await host.accept(1, id);
  }
  host.close(1);
  expect(view[SHARED.state]).toBe(STATE.ended);
  const { bytes, offsets } = vocabulary;
  const parts = ids.map((id) => bytes.subarray(offsets[id], offsets[id + 1]));
  return { ids, text: new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(parts)) };
}

const VOCABULARIES = {
  "byte-level": "models/llama-f32/tokenizer.json",
  "byte fallback with Metaspace": "text/tokenizer-metaspace.json",
  "byte fallback with Prepend": "text/tokenizer-prepend.json",
  "byte-level after NFC": "text/tokenizer-nfc.json",
  "byte-level after Split": "text/tokenizer-split.json",
};

for (const [kind, path] of Object.entries(VOCABULARIES)) {
  describe(`a vocabulary that is ${kind}`, () => {
    let vocabulary: GrammarVocabulary;
    let host: GrammarHost;

    beforeAll(async () => {
      const found = await vocabularyOf(path);
      vocabulary = found.vocabulary;
      host = await GrammarHost.create(vocabulary, found.vocabSize);
    });

    test("writes valid texts of any script", async () => {
      const schema = {
        type: "object",
        properties: {
          "né 名": { type: "string", maxLength: 30 },
          n: { type: "integer", minimum: 0 },
        },
        required: ["né 名", "n"],
      };
      const patterns = [
        "[α-ω]{3,5} 漢字",
        "\\p{Script=Cyrillic}{2}",
        "[😀-😂]{1,3}",
        "a\tb\nc {2}d",
      ];
      for (let seed = 1; seed <= 3; seed++) {
        const { text } = await write(
          host,
          vocabulary,
          { kind: "schema", schema: JSON.stringify(schema) },
          seed,
        );
        const value = JSON.parse(text);
        expect(Object.keys(value)).toEqual(["né 名", "n"]);
        expect([...value["né 名"]].length).toBeLessThanOrEqual(30);
        for (const pattern of patterns)
          expect((await write(host, vocabulary, { kind: "regex", pattern }, seed)).text).toMatch(
            new RegExp(`^(?:${pattern})$`, "u"),
          );
      }
    });

    test("spells forced text as the tokenizer does, but for its end", async () => {
      const { tokenizer } = await vocabularyOf(path);
      const tokens = new Tokens(vocabulary);
      for (const text of [
        '"name": ',
        ', "the other name": [',
        "hello world, it is",
        "<tool_call>",
      ]) {
        const own = tokens.encode(text);
        const { bytes, offsets } = vocabulary;
        const back = Buffer.concat(
          own.map((id) => bytes.subarray(offsets[id], offsets[id + 1])),
        ).toString();
        expect(back).toBe(text);
        // Behind other text, so that no blank is put before it.
        const whole = tokenizer.encode(`\n${text}`);
        const shared = own.filter((id) => whole.includes(id)).length;
        expect(shared / own.length).toBeGreaterThan(0.6);
      }
    });
  });
}

test("special tokens and ids without a token are never let through", async () => {
  const { vocabulary } = await vocabularyOf("models/llama-f32/tokenizer.json");
  const padded = 384;
  const host = await GrammarHost.create(vocabulary, padded);
  await host.compile("any", { kind: "regex", pattern: "[\\s\\S]*" }, true);
  const shared = new SharedArrayBuffer(4 * (SHARED.mask + maskWords(padded)));
  await host.open(1, "any", [383], shared);
  const view = new Int32Array(shared);
  const isAllowed = (id: number) =>
    (((view[SHARED.mask + (id >> 5)] ?? 0) >>> (id & 31)) & 1) === 1;
  const { offsets } = vocabulary;
  for (let id = 0; id < padded; id++) {
    const hasText = (offsets[id + 1] ?? 0) > (offsets[id] ?? 0);
    if (!hasText) expect([id, isAllowed(id)]).toEqual([id, id === 383]);
  }
  expect(isAllowed(40)).toBe(true);
});
