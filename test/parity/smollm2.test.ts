/** The default model against transformers on torch, which read the same GGUF file in float32. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { KernelMode } from "#core/contract";
import { ensureDefaultModel } from "../../scripts/default-model.ts";
import { argmax, ForwardSession } from "../helpers/forward.ts";
import { type Passage, readChats, readPassages } from "../helpers/golden.ts";

const CHUNK = 128;
/** Below this the reference's own rounding decides which token is first. */
const CLEAR_MARGIN = 1e-3;
/** Attention on native and exact kernels rounds keys, values and softmax weights to 13 and 14 bits. */
const MAX_MEAN_KL = { exact: 1e-5, stock: 1e-6 };
/** Of the default arithmetic, over all passages. */
const MAX_DEFAULT_KL = 4e-4;
const MIN_DEFAULT_AGREEMENT = 0.99;
const PASSAGES = ["story", "science", "code", "languages"];
/** Stock MLX, the float32 path of any device, needs a second for a dozen tokens on a CPU. */
const STOCK_POSITIONS = process.env["OMLX_LONG"] === "1" ? 512 : 48;

let modelPath = "";
beforeAll(async () => {
  modelPath = await ensureDefaultModel();
});

describe("SmolLM2-135M with exact kernels", () => {
  let session: ForwardSession;
  beforeAll(async () => {
    session = await ForwardSession.open(modelPath, "exact");
  });
  afterAll(() => session.dispose());

  for (const name of PASSAGES) {
    test(`continues every position of "${name}" as the reference does`, async () => {
      const passage = await passageOf(name);
      expectReference(passage, session, passage.ids.length, MAX_MEAN_KL.exact);
    });
  }
});

describe("SmolLM2-135M with native kernels", () => {
  let session: ForwardSession;
  beforeAll(async () => {
    session = await ForwardSession.open(modelPath, "native");
  });
  afterAll(() => session.dispose());

  test("stays within its promised distance of the reference over all passages", async () => {
    const all = { positions: 0, divergence: 0, equal: 0 };
    for (const name of PASSAGES) {
      const passage = await passageOf(name);
      const found = compare(passage, session, passage.ids.length);
      all.positions += passage.ids.length;
      all.divergence += found.divergence;
      all.equal += found.equal;
    }
    expect(all.positions).toBeGreaterThanOrEqual(2000);
    expect(all.divergence / all.positions).toBeLessThanOrEqual(MAX_DEFAULT_KL);
    expect(all.equal / all.positions).toBeGreaterThanOrEqual(MIN_DEFAULT_AGREEMENT);
  });

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
    expectReference(await passageOf("science"), session, STOCK_POSITIONS, MAX_MEAN_KL.stock);
  } finally {
    session.dispose();
  }
}, 600_000);

async function passageOf(name: string): Promise<Passage> {
  const passage = (await readPassages()).find((p) => p.name === name);
  if (!passage) throw new Error(`the fixture has no passage "${name}"`);
  return passage;
}

/** Over the first `positions` tokens: the mean divergence is small, and no clear choice is another. */
function expectReference(
  passage: Passage,
  session: ForwardSession,
  positions: number,
  maxMeanKl: number,
): void {
  const found = compare(passage, session, positions);
  expect(found.wrong).toEqual([]);
  expect(found.divergence / positions).toBeLessThanOrEqual(maxMeanKl);
}

interface Comparison {
  /** Summed over positions. */
  divergence: number;
  /** Positions with the reference's most probable token. */
  equal: number;
  /** Positions without it although it is clear. */
  readonly wrong: number[];
}

/** Teacher-forced over the first `positions` tokens. */
function compare(passage: Passage, session: ForwardSession, positions: number): Comparison {
  const text = session.start();
  const found: Comparison = { divergence: 0, equal: 0, wrong: [] };
  for (let begin = 0; begin < positions; begin += CHUNK) {
    const ids = passage.ids.slice(begin, Math.min(begin + CHUNK, positions));
    const rows = session.step([{ text, ids }])[0] ?? [];
    expect(rows.length).toBe(ids.length);
    for (const [i, row] of rows.entries()) {
      const expected = passage.top[begin + i];
      if (!expected) throw new Error(`the fixture has no position ${begin + i}`);
      found.divergence += divergence(expected, row);
      if (argmax(row) === expected.ids[0]) found.equal++;
      else if (expected.margin >= CLEAR_MARGIN) found.wrong.push(begin + i);
    }
  }
  session.close(text);
  return found;
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
