/** GGUF models of every storage type against transformers with the dequantized weights. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { convertGguf, inspectGguf, readTensors } from "#core/formats";
import { argmax, ForwardSession } from "../helpers/forward.ts";

const FIXTURES = join(import.meta.dir, "..", "fixtures");
const root = mkdtempSync(join(tmpdir(), "omlx-gguf-parity-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** Without loss: largest accepted difference of a logit, as between any two orders of summation in float32. */
const EXACT = 1e-4;
/** The same on native kernels, whose activations, keys and values are integers. */
const NATIVE = 0.02;
/** Else: of the root mean square of the logits, what the difference's may be. */
const ROUNDED_SCALES = 0.004;
const EIGHT_BITS = 0.03;

const MODELS: Readonly<Record<string, readonly [tolerance: number, change?: RegExp]>> = {
  "llama-F32": [EXACT],
  "llama-F16": [EXACT],
  "llama-BF16": [EXACT],
  "llama-Q4_0": [EXACT],
  "llama-Q4_1": [EXACT],
  "llama-Q5_0": [EXACT],
  "llama-Q5_1": [EXACT],
  "llama-Q8_0": [EXACT],
  "llama-factors": [EXACT],
  "llama-biases": [EXACT],
  "llama-spm": [EXACT],
  "llama-parts-00001-of-00003": [EXACT],
  "qwen2-Q8_0": [EXACT],
  "qwen3-Q4_0": [EXACT],
  "llama-Q4_K": [ROUNDED_SCALES, /^8 matrices of type Q4_K with scales rounded to float16$/],
  "llama-Q5_K": [ROUNDED_SCALES, /^8 matrices of type Q5_K with scales rounded to float16$/],
  "llama-Q6_K": [EIGHT_BITS, /^8 matrices of type Q6_K requantized to 8 bits$/],
  "llama-Q3_K": [EIGHT_BITS, /^8 matrices of type Q3_K requantized to 8 bits$/],
  "llama-Q2_K": [EIGHT_BITS, /^8 matrices of type Q2_K requantized to 8 bits$/],
};

interface Golden {
  readonly ids: readonly number[];
  readonly vocabulary: number;
}

function golden(name: string): Golden & { rows: readonly Float32Array[] } {
  const stem = join(FIXTURES, "golden", "gguf", name.replace(/-\d+-of-\d+$/, ""));
  const facts = JSON.parse(readFileSync(`${stem}.json`, "utf8")) as Golden;
  const bytes = readFileSync(`${stem}.bin`);
  const values = new Float32Array(new Uint8Array(bytes).buffer);
  const rows = facts.ids.map((_, i) =>
    values.subarray(i * facts.vocabulary, (i + 1) * facts.vocabulary),
  );
  return { ...facts, rows };
}

for (const [name, [tolerance, change]] of Object.entries(MODELS)) {
  describe(name, () => {
    const source = join(FIXTURES, "gguf", `${name}.gguf`);
    const folder = join(root, name);

    test("is converted as its header promised", () => {
      const summary = inspectGguf(source);
      expect(convertGguf(source, folder)).toEqual(summary.changes);
      expect(summary.changes).toEqual(change ? [expect.stringMatching(change)] : []);
      const bytes = [...readTensors(folder).values()].reduce((n, t) => n + t.byteLength, 0);
      expect(summary.weightBytes).toBe(bytes);
      expect(summary.modelType).toBe(name.split("-")[0] ?? "");
      expect(summary.maxPositions).toBe(2048);
    });

    for (const kernels of ["native", "stock"] as const) {
      test(`gives the logits of its dequantized weights with ${kernels} kernels`, async () => {
        const { ids, rows } = golden(name);
        const session = await ForwardSession.open(folder, kernels);
        try {
          const got = session.run(session.start(), ids);
          expect(got).toHaveLength(rows.length);
          const difference = new Difference();
          for (const [i, row] of rows.entries()) {
            const own = got[i] ?? new Float32Array();
            expect(own).toHaveLength(row.length);
            expect(argmax(own)).toBe(argmax(row));
            difference.add(own, row);
          }
          if (change) expect(difference.share).toBeLessThan(tolerance);
          else expect(difference.worst).toBeLessThan(kernels === "native" ? NATIVE : tolerance);
          // a tolerance that every converter would keep could not fail
          if (change) expect(difference.share).toBeGreaterThan(tolerance / 20);
        } finally {
          session.dispose();
        }
      });
    }
  });
}

class Difference {
  worst = 0;
  #squares = 0;
  #reference = 0;

  add(own: Float32Array, reference: Float32Array): void {
    for (const [i, value] of reference.entries()) {
      const difference = Math.abs((own[i] ?? Number.NaN) - value);
      this.worst = Math.max(this.worst, difference); // NaN stays NaN
      this.#squares += difference ** 2;
      this.#reference += value ** 2;
    }
  }

  /** Root mean square of the differences, as a share of the reference's. */
  get share(): number {
    return Math.sqrt(this.#squares / this.#reference);
  }
}
