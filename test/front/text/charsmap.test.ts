/** SentencePiece's compiled character rules against the tokenizers library, with the table of XLM-RoBERTa's kind. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { Charsmap } from "../../../src/front/text/charsmap.ts";
import { ENCODER_MODELS, GOLDEN_ENCODERS } from "../../helpers/encoders.ts";

const tokenizer = await Bun.file(join(ENCODER_MODELS, "xlm-roberta", "tokenizer.json")).json();
const table: string = tokenizer.normalizer.normalizers[0].precompiled_charsmap;
const map = new Charsmap(table);

describe("Charsmap", () => {
  test("rewrites odd texts as the reference does", async () => {
    const { texts, normalized } = await Bun.file(join(GOLDEN_ENCODERS, "charsmap.json")).json();
    expect(texts.length).toBeGreaterThan(100);
    // the reference's next step joins blanks
    const got = texts.map((text: string) => map.normalize(text).replace(/ {2,}/g, " "));
    expect(got).toEqual(normalized);
  });

  test("leaves ASCII as it is, and takes the same way with it inside other text", () => {
    const ascii = String.fromCharCode(...Array.from({ length: 95 }, (_, i) => 32 + i));
    expect(map.normalize(ascii)).toBe(ascii);
    expect(map.normalize(`ﬁ${ascii}ﬁ`)).toBe(`fi${ascii}fi`);
    expect(map.normalize("e\u0301e\u0301xe\u0301")).toBe("ééxé");
  });

  test("takes long texts of any script without much ado", () => {
    for (const unit of ["word ", "слово ", "言葉です", "👩‍👧 "]) {
      const begun = performance.now();
      map.normalize(unit.repeat(Math.ceil(300_000 / unit.length)));
      expect(performance.now() - begun).toBeLessThan(3000);
    }
  });

  test("a table that is cut off is refused", () => {
    expect(() => new Charsmap(table.slice(0, 400))).toThrow("cut off");
  });
});
