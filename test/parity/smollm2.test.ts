/** The default model against transformers on torch, which read the same GGUF file in float32. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { KernelMode } from "#core/contract";
import { ensureDefaultModel } from "../../scripts/default-model.ts";
import { argmax, ForwardSession } from "../helpers/forward.ts";
import { type Passage, readChats, readPassages } from "../helpers/golden.ts";

const CHUNK = 128;
/** Below this the reference's own rounding decides which token is first. */
const CLEAR_MARGIN = 1e-3;
/** Native kernels round keys, values and softmax weights to 13 and 14 bits. */
const MAX_MEAN_KL = { native: 1e-5, stock: 1e-6 } as const;
/** Stock MLX needs a second for a dozen tokens on a CPU. */
const STOCK_POSITIONS = 48;

let modelPath = "";
beforeAll(async () => {
  modelPath = await ensureDefaultModel();
});

describe("SmolLM2-135M with native kernels", () => {
  let session: ForwardSession;
  beforeAll(async () => {
    session = await ForwardSession.open(modelPath, "native");
  });
  afterAll(() => session.dispose());

  for (const name of ["story", "science", "code", "languages"]) {
    test(`continues every position of "${name}" as the reference does`, async () => {
      const passage = await passageOf(name);
      expectReference(passage, session, passage.ids.length);
    });
  }

  test("answers two simple questions, token for token", async () => {
    const [france, sky] = await readChats();
    expect(france?.answer).toBe("The capital of France is Paris.");
    expect(sky?.answer).toContain("blue");
    for (const chat of [france, sky]) {
      if (!chat) throw new Error("the fixture has no such chat");
      const eos = chat.greedy.indexOf(2);
      const expected = chat.greedy.slice(0, eos + 1);
      const text = session.start();
      const tokens: number[] = [];
      let next = chat.ids;
      while (tokens.length < expected.length) {
        const [row] = session.step([{ text, ids: next, logits: "last" }])[0] ?? [];
        next = [argmax(row ?? new Float32Array())];
        tokens.push(...next);
      }
      session.close(text);
      expect(tokens).toEqual(expected);
    }
  });
});

test("SmolLM2-135M with stock kernels continues a text as the reference does", async () => {
  const session = await ForwardSession.open(modelPath, "stock" satisfies KernelMode);
  try {
    expectReference(await passageOf("science"), session, STOCK_POSITIONS);
  } finally {
    session.dispose();
  }
}, 60_000);

async function passageOf(name: string): Promise<Passage> {
  const passage = (await readPassages()).find((p) => p.name === name);
  if (!passage) throw new Error(`the fixture has no passage "${name}"`);
  return passage;
}

/** Teacher-forced over the first `positions` tokens: mean KL divergence, and the most probable token where it is clear. */
function expectReference(passage: Passage, session: ForwardSession, positions: number): void {
  const text = session.start();
  let sum = 0;
  const wrong: number[] = [];
  for (let begin = 0; begin < positions; begin += CHUNK) {
    const ids = passage.ids.slice(begin, Math.min(begin + CHUNK, positions));
    const rows = session.step([{ text, ids }])[0] ?? [];
    expect(rows.length).toBe(ids.length);
    for (const [i, row] of rows.entries()) {
      const expected = passage.top[begin + i];
      if (!expected) throw new Error(`the fixture has no position ${begin + i}`);
      sum += divergence(expected, row);
      if (expected.margin >= CLEAR_MARGIN && argmax(row) !== expected.ids[0]) wrong.push(begin + i);
    }
  }
  session.close(text);
  expect(wrong).toEqual([]);
  expect(sum / positions).toBeLessThanOrEqual(MAX_MEAN_KL[session.loaded.info.kernels]);
}

/** KL(reference || row) over the reference's tokens and one cell for all others. */
function divergence(expected: Passage["top"][number], row: Float32Array): number {
  let max = Number.NEGATIVE_INFINITY;
  for (const value of row) max = Math.max(max, value);
  let total = 0;
  for (const value of row) total += Math.exp(value - max);
  const logTotal = max + Math.log(total);
  let inside = 0;
  let kl = 0;
  for (const [i, id] of expected.ids.entries()) {
    const logprob = (row[id] ?? Number.NaN) - logTotal;
    const reference = expected.logprobs[i] ?? Number.NaN;
    inside += Math.exp(logprob);
    kl += Math.exp(reference) * (reference - logprob);
  }
  return kl + Math.exp(expected.rest) * (expected.rest - Math.log(1 - inside));
}
