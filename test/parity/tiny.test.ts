/** Tiny checkpoints of every family and number format against mlx-lm in float32. */
import { describe, expect, test } from "bun:test";
import { argmax, ForwardSession } from "../helpers/forward.ts";
import { readTiny, type TinyGolden, tinyNames } from "../helpers/golden.ts";

const CHUNKS = [1, 5, 16];
/**
 * Largest accepted difference of a logit, for every number format of the weights. Stock kernels compute in float32 as
 * the reference does, and another order of summation changes logits of this size by up to 4e-5. Native and exact
 * kernels keep keys, values and softmax weights in 13 and 14 bits.
 */
const TOLERANCES = { exact: 0.05, native: 0.05, stock: 1e-4 } as const;

for (const kernels of ["exact", "native", "stock"] as const) {
  const tolerance = TOLERANCES[kernels];
  describe(`forward() with ${kernels} kernels`, () => {
    for (const name of tinyNames()) {
      test(`gives mlx-lm's logits and greedy tokens for ${name}`, async () => {
        const golden = await readTiny(name);
        const session = await ForwardSession.open(golden.path, kernels);
        try {
          expect(session.loaded.info).toMatchObject({ contextWindow: 2048, eosIds: [383, 381] });
          expect(worst(inOneStep(session, golden), golden.last)).toBeLessThan(tolerance);
          for (const chunk of [golden.full.length, ...CHUNKS]) {
            const text = session.start();
            const rows = session.run(text, golden.prompts[golden.fullPrompt]?.ids ?? [], chunk);
            session.close(text);
            expect(worst(rows, golden.full)).toBeLessThan(tolerance);
          }
          expect(greedy(session, golden)).toEqual(golden.prompts.map((prompt) => prompt.greedy));
        } finally {
          session.dispose();
        }
      });
    }
  });
}

/** All prompts in one ragged step; the logits at the end of each. */
function inOneStep(session: ForwardSession, golden: TinyGolden): Float32Array[] {
  const feeds = golden.prompts.map(({ ids }) => ({
    text: session.start(),
    ids,
    logits: "last" as const,
  }));
  const rows = session.step(feeds).flat();
  for (const { text } of feeds) session.close(text);
  return rows;
}

/** The continuations, side by side. */
function greedy(session: ForwardSession, golden: TinyGolden): number[][] {
  const texts = golden.prompts.map(() => session.start());
  const out: number[][] = golden.prompts.map(() => []);
  let next = golden.prompts.map(({ ids }) => ids);
  for (let i = 0; i < (golden.prompts[0]?.greedy.length ?? 0); i++) {
    const rows = session.step(
      texts.map((text, t) => ({ text, ids: next[t] ?? [], logits: "last" })),
    );
    next = rows.map(([row]) => [argmax(row ?? new Float32Array())]);
    for (const [t, ids] of next.entries()) out[t]?.push(...ids);
  }
  for (const text of texts) session.close(text);
  return out;
}

/** Largest absolute difference; a missing row or a NaN counts as infinite. */
function worst(actual: readonly Float32Array[], expected: readonly Float32Array[]): number {
  if (actual.length !== expected.length || expected.length === 0) return Number.POSITIVE_INFINITY;
  let max = 0;
  for (const [i, row] of expected.entries()) {
    for (const [j, value] of row.entries()) {
      const difference = Math.abs((actual[i]?.[j] ?? Number.NaN) - value);
      if (!(difference <= max))
        max = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference;
    }
  }
  return max;
}
