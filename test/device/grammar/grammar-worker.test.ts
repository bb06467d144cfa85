import { expect, test } from "bun:test";
import type { GrammarVocabulary } from "#core/contract";
import { GrammarWorker } from "../../../src/device/grammar/grammar-worker.ts";
import { Matcher } from "../../../src/device/grammar/matcher.ts";

/** One token per letter. */
const VOCABULARY: GrammarVocabulary = {
  bytes: Uint8Array.from(Buffer.from("abc")),
  offsets: Uint32Array.from([0, 1, 2, 3]),
  addedIds: [],
};

test("a Worker that breaks is seen to be dead, and who waits for it gets an error", async () => {
  const worker = new GrammarWorker(VOCABULARY, 3);
  const spec = { kind: "regex", pattern: "ab?" } as const;
  const outcome = await worker.compile("known", spec, true, 60_000);
  expect(outcome?.kind).toBe("compiled");
  const options = { vocabSize: 3, stopIds: [], worker, onClose: () => {} };
  const good = new Matcher({ ...options, id: 1, key: "known" });
  expect(good.next().forced).toEqual([]);
  expect(Array.from(good.next().mask.subarray(0, 1))).toEqual([1]);
  expect(worker.numOpen).toBe(1);

  const lost = new Matcher({ ...options, id: 2, key: "never compiled" });
  while (!worker.isDead) await Bun.sleep(5);
  expect(() => lost.next()).toThrow(/gone/);
  good.accept(0);
  expect(() => good.next()).toThrow(/gone/);
  await expect(worker.compile("late", spec, true, 60_000)).rejects.toThrow(/Worker/);
  good.close();
  lost.close();
  expect(worker.numOpen).toBe(0);
});
