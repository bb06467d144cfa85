import { beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { convertGguf } from "#core/formats";
import { ensureDefaultModel } from "../../../scripts/default-model.ts";
import { Detokenizer } from "../../../src/front/text/detokenizer.ts";
import { Tokenizer } from "../../../src/front/text/tokenizer.ts";
import { layoutVocabulary, type Vocabulary } from "../../../src/front/text/vocabulary.ts";

const FIXTURES = join(import.meta.dir, "../../fixtures/text");

interface Case {
  readonly text: string;
  readonly ids: readonly number[];
  /** With what the tokenizer puts around a text. */
  readonly raw: readonly number[];
  readonly decoded: string;
}

type TokenizerFile = Readonly<Record<string, unknown>>;

function vocabularyOf(tokenizer: Tokenizer, file: TokenizerFile): Vocabulary {
  return layoutVocabulary(file["decoder"], tokenizer.addedTokens, tokenizer.vocabSize, (id) =>
    tokenizer.tokenOf(id),
  );
}

function decode(vocabulary: Vocabulary, ids: readonly number[]): string {
  const detokenizer = new Detokenizer(vocabulary);
  return ids.map((id) => detokenizer.push(id)).join("") + detokenizer.end();
}

describe("Tokenizer of a GGUF file with a SentencePiece vocabulary", () => {
  test("gives SentencePiece's own ids, and its text", async () => {
    const fixtures = join(import.meta.dir, "../../fixtures");
    const folder = join(mkdtempSync(join(tmpdir(), "omlx-spm-")), "model");
    convertGguf(join(fixtures, "gguf", "llama-spm.gguf"), folder);
    const file = await Bun.file(join(folder, "tokenizer.json")).json();
    const config = await Bun.file(join(folder, "tokenizer_config.json")).json();
    rmSync(folder, { recursive: true });
    const tokenizer = new Tokenizer(file, config);
    const vocabulary = vocabularyOf(tokenizer, file);
    const { strings } = await Bun.file(join(fixtures, "golden/gguf/llama-spm.json")).json();
    expect(strings.length).toBeGreaterThan(5);
    for (const { text, ids, decoded } of strings as Case[]) {
      if (text === "") continue; // a blank of its own before nothing: libraries differ
      expect([text, tokenizer.encode(text)]).toEqual([text, [...ids]]);
      expect(decode(vocabulary, ids)).toBe(decoded);
    }
  });
});

describe("Tokenizer of the default model", () => {
  let tokenizer: Tokenizer;
  let vocabulary: Vocabulary;
  let cases: readonly Pick<Case, "text" | "ids">[];

  beforeAll(async () => {
    const folder = await ensureDefaultModel();
    const file = await Bun.file(join(folder, "tokenizer.json")).json();
    tokenizer = new Tokenizer(file, await Bun.file(join(folder, "tokenizer_config.json")).json());
    vocabulary = vocabularyOf(tokenizer, file);
    cases = await Bun.file(join(FIXTURES, "smollm2.json")).json();
  }, 120_000);

  test("gives the reference's ids for every text", () => {
    expect(cases.length).toBeGreaterThanOrEqual(200);
    for (const { text, ids } of cases)
      expect([text, tokenizer.encode(text)]).toEqual([text, [...ids]]);
  });

  test("prints every text back from its ids", () => {
    for (const { text } of cases) {
      const withoutControls = text.replace(
        /<\|im_(?:start|end)\|>|<\|endoftext\|>|<repo_name>|<file_sep>/g,
        "",
      );
      expect(decode(vocabulary, tokenizer.encode(text))).toBe(withoutControls);
    }
  });

  test("prints back whatever text it encodes", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", maxLength: 40 }), (text) => {
        // some bytes that begin no assigned character are not in the vocabulary
        fc.pre(/^[\P{C}\n\t]*$/u.test(text) && !text.includes("<"));
        expect(decode(vocabulary, tokenizer.encode(text))).toBe(text.toWellFormed());
      }),
      { numRuns: 300 },
    );
  });

  test("reads marked text as plain text", () => {
    const marked = tokenizer.encode("a\uFDD0<|im_end|>b<|im_end|>", "\uFDD0");
    expect(marked.filter((id) => id === 2)).toHaveLength(1);
    expect(marked.at(-1)).toBe(2);
    expect(marked).not.toContain(tokenizer.idOf("\uFDD0") ?? -1);
    const pieces = marked.slice(0, -1).map((id) => tokenizer.tokenOf(id));
    expect(pieces.join("")).toBe("a<|im_end|>b");
  });

  test("holds a character back until its last token", () => {
    const ids = tokenizer.encode("\u{1F9FF}");
    expect(ids.length).toBeGreaterThan(1);
    const detokenizer = new Detokenizer(vocabulary);
    const steps = ids.map((id) => detokenizer.push(id));
    expect(steps.slice(0, -1).every((step) => step === "")).toBe(true);
    expect(steps.at(-1)).toBe("\u{1F9FF}");
  });

  test("prints a character that never ends as U+FFFD", () => {
    const [first = 0] = tokenizer.encode("\u{1F9FF}");
    expect(decode(vocabulary, [first])).toBe("\uFFFD");
    expect(decode(vocabulary, [first, ...tokenizer.encode("a")])).toBe("\uFFFDa");
  });

  test("skips ids that do not exist", () => {
    expect(decode(vocabulary, [-1, 1e9, ...tokenizer.encode("ok")])).toBe("ok");
  });
});

const KINDS = {
  prepend: "SentencePiece's pieces with a prepended blank and byte fallback",
  metaspace: "a Metaspace that begins with a blank once",
  split: "a pattern of its own and whole words without merges",
  nfc: "composed characters",
} as const;

for (const [kind, what] of Object.entries(KINDS)) {
  describe(`Tokenizer with ${what}`, () => {
    let tokenizer: Tokenizer;
    let vocabulary: Vocabulary;
    let cases: readonly Case[];

    beforeAll(async () => {
      const fixture = await Bun.file(join(FIXTURES, `tokenizer-${kind}.json`)).json();
      tokenizer = new Tokenizer(fixture.tokenizer, { bos_token: "<s>", eos_token: "</s>" });
      vocabulary = vocabularyOf(tokenizer, fixture.tokenizer);
      cases = fixture.cases;
    });

    test("gives the reference's ids", () => {
      for (const { text, ids } of cases) {
        expect([text, tokenizer.encode(text)]).toEqual([text, [...ids]]);
      }
    });

    test("begins raw text with one BOS", () => {
      for (const { text, raw } of cases) {
        expect([text, tokenizer.encodeRaw(text)]).toEqual([text, [...raw]]);
      }
      const once = tokenizer.encodeRaw("hello");
      expect(tokenizer.encodeRaw("<s>hello").filter((id) => id === once[0])).toHaveLength(1);
    });

    test("prints text back", () => {
      const plain = cases.filter(({ text }) => !/^ |[<>]|word|\n\n|Caf/.test(text));
      expect(plain.length).toBeGreaterThan(100);
      for (const { text, ids } of plain) {
        expect(decode(vocabulary, ids)).toBe(kind === "nfc" ? text.normalize("NFC") : text);
      }
    });

    test("prints the reference's text", () => {
      // The reference loses every blank of a first Metaspace token, and an added token's letters that look like bytes.
      const plain = (text: string) =>
        (kind === "metaspace" ? text.replaceAll(" ", "") : text).replace(
          /Caf(?:\u00e9|\uFFFD)/g,
          "Cafe",
        );
      for (const { text, ids, decoded } of cases) {
        expect([text, plain(decode(vocabulary, ids))]).toEqual([text, plain(decoded)]);
      }
    });
  });
}

describe("Tokenizer", () => {
  test("names what is wrong with tokenizer.json", () => {
    expect(() => new Tokenizer({}, {})).toThrow(/Cannot read tokenizer\.json/);
    expect(() => new Tokenizer({ model: { type: "BPE" } }, {})).toThrow(
      /Cannot read tokenizer\.json/,
    );
    expect(() => new Tokenizer({ model: null }, {})).toThrow(/Cannot read tokenizer\.json/);
  });

  test("adds tokens that only tokenizer_config.json knows", async () => {
    const { tokenizer: file } = await Bun.file(join(FIXTURES, "tokenizer-split.json")).json();
    const token = { content: "<extra>", special: true, normalized: false };
    const tokenizer = new Tokenizer(file, { added_tokens_decoder: { "5000": token } });
    expect(tokenizer.encode("a<extra>")).toContain(5000);
    expect(tokenizer.vocabSize).toBe(5001);
  });
});

describe("layoutVocabulary()", () => {
  test("refuses a decoder that does not work token by token", () => {
    const layout = (decoder: unknown) => layoutVocabulary(decoder, [], 1, () => "a");
    expect(() => layout({ type: "WordPiece" })).toThrow(/decoder "WordPiece" is not known/);
    expect(() => layout({ type: "Sequence", decoders: [{ type: "CTC" }] })).toThrow(/"CTC"/);
  });
});
