/**
 * What a row computes does not depend on its neighbours, on chunk borders or on where its prefix came from: logits
 * are compared bit for bit on 32 conversations of 128 generated tokens.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { ensureDefaultModel } from "../../scripts/default-model.ts";
import { argmax, type Feed, ForwardSession, type Text } from "../helpers/forward.ts";
import { type ChatGolden, readChats, readTiny } from "../helpers/golden.ts";

/** A conversation as computed alone: one step for the prompt, then one token a step. */
interface Solo {
  readonly chat: ChatGolden;
  readonly tokens: readonly number[];
  /** Hash of the logits that gave tokens[i]. */
  readonly hashes: readonly bigint[];
}

/** Of logits: integer activations, keys and values change them by some thousandths. */
const CLEAR_MARGIN = 0.05;
/** Generous: other work may share the machine. */
const LONG_MS = 600_000;

describe("forward() of SmolLM2-135M with native kernels", () => {
  let session: ForwardSession;
  let solos: Solo[] = [];
  beforeAll(async () => {
    session = await ForwardSession.open(await ensureDefaultModel(), "native", {
      cacheTokens: 16_384,
    });
    solos = (await readChats()).map((chat) => alone(session, chat));
  }, LONG_MS);
  afterAll(() => session.dispose());

  test("continues 32 conversations with the reference's tokens, as far as its choice is clear", () => {
    let compared = 0;
    for (const { chat, tokens } of solos) {
      const close = chat.margins.findIndex((margin) => margin < CLEAR_MARGIN);
      const clear = close < 0 ? chat.greedy.length : close;
      expect(tokens.slice(0, clear)).toEqual(chat.greedy.slice(0, clear));
      compared += clear;
    }
    expect(solos.length).toBeGreaterThanOrEqual(32);
    expect(compared).toBeGreaterThan(0.2 * 128 * solos.length);
  });

  test(
    "gives the same logits in a batch as alone, also while a neighbour prefills",
    () => {
      const running = new Map<Solo, { text: Text; done: number; seen: bigint[] }>();
      const waiting = [...solos];
      const finished: Solo[] = [];
      let steps = 0;
      while (waiting.length > 0 || running.size > 0) {
        // Every fourth step another one joins, with 16 prompt tokens a step.
        const next = steps++ % 4 === 0 ? waiting.shift() : undefined;
        if (next) running.set(next, { text: session.start(), done: 0, seen: [] });
        const rows: { solo: Solo; feed: Feed }[] = [];
        for (const [solo, state] of running) {
          const promptEnd = solo.chat.ids.length;
          const begin = state.done;
          state.done = begin < promptEnd ? Math.min(begin + 16, promptEnd) : begin + 1;
          const ids = textOf(solo).slice(begin, state.done);
          const logits = state.done >= promptEnd ? "last" : "none";
          rows.push({ solo, feed: { text: state.text, ids, logits } });
        }
        const logits = session.step(rows.map(({ feed }) => feed));
        for (const [i, { solo }] of rows.entries()) {
          const state = running.get(solo);
          state?.seen.push(...(logits[i] ?? []).map(hash));
          if (!state || state.seen.length < solo.hashes.length) continue;
          session.close(state.text);
          running.delete(solo);
          expect(state.seen).toEqual([...solo.hashes]);
          finished.push(solo);
        }
      }
      expect(finished.length).toBe(solos.length);
    },
    LONG_MS,
  );

  test(
    "gives the same logits for any chunks, and for generated tokens when they are read as a prompt",
    () => {
      for (const [i, solo] of solos.entries()) {
        const ids = textOf(solo);
        const text = session.start();
        const rows = session.run(text, ids, [ids.length, 7, 64, 33][i % 4]);
        session.close(text);
        expect(rows.slice(solo.chat.ids.length - 1).map(hash)).toEqual([...solo.hashes]);
      }
    },
    LONG_MS,
  );

  test(
    "gives the same logits after a reused prompt as after a cold one",
    () => {
      let reused = 0;
      let compared = 0;
      for (const solo of solos) {
        const ids = textOf(solo);
        const first = session.start();
        const prefix = ids.slice(0, solo.chat.ids.length + 40);
        session.step([{ text: first, ids: prefix, logits: "none" }]);
        const held = session.seal(first);
        session.close(first, held);
        const second = session.start(held);
        reused += second.numTokens;
        const begin = second.numTokens;
        const rows = session.run(second, ids.slice(begin));
        session.close(second);
        // rows[0] stands at position `begin`, hashes[0] at the prompt's last one
        const behind = begin - (solo.chat.ids.length - 1);
        const expected = solo.hashes.slice(Math.max(behind, 0));
        expect(rows.slice(Math.max(-behind, 0)).map(hash)).toEqual([...expected]);
        compared += expected.length;
      }
      expect(reused).toBeGreaterThanOrEqual(32 * session.blockTokens);
      expect(compared).toBeGreaterThan(64 * solos.length);
    },
    LONG_MS,
  );
});

test("forward() with native kernels gives the same logits on one thread as on all", async () => {
  const [chat] = await readChats();
  if (!chat) throw new Error("the fixture has no chats");
  const path = await ensureDefaultModel();
  const runs = [];
  for (const threads of [1, 0]) {
    const session = await ForwardSession.open(path, "native", { threads });
    runs.push(
      session.run(session.start(), [...chat.ids, ...chat.greedy.slice(0, 20)], 19).map(hash),
    );
    session.dispose();
  }
  expect(runs[0]?.length).toBe(chat.ids.length + 20);
  expect(runs[0]).toEqual(runs[1] ?? []);
});

test("forward() with stock kernels goes on from sealed blocks as from a cold prompt", async () => {
  const golden = await readTiny("qwen3-4bit");
  const session = await ForwardSession.open(golden.path, "stock");
  try {
    for (const { ids, greedy } of golden.prompts) {
      const whole = [...ids, ...greedy];
      const cold = session.start();
      const expected = session.run(cold, whole);
      const held = session.seal(cold);
      session.close(cold, held);
      const warm = session.start(held);
      const rows = session.run(warm, whole.slice(warm.numTokens));
      expect(rows.length).toBe(whole.length - held.length * session.blockTokens);
      for (const [i, row] of rows.entries()) {
        expect(argmax(row)).toBe(argmax(expected[expected.length - rows.length + i] ?? row));
      }
      session.close(warm);
    }
  } finally {
    session.dispose();
  }
});

/** Prompt in one step, then the most probable token again and again, going on after EOS. */
function alone(session: ForwardSession, chat: ChatGolden): Solo {
  const text = session.start();
  const tokens: number[] = [];
  const hashes: bigint[] = [];
  let next = chat.ids;
  while (tokens.length < chat.greedy.length) {
    const [row] = session.step([{ text, ids: next, logits: "last" }])[0] ?? [];
    if (!row) throw new Error("a step gave no logits");
    hashes.push(hash(row));
    next = [argmax(row)];
    tokens.push(...next);
  }
  session.close(text);
  return { chat, tokens, hashes };
}

/** Prompt and generated tokens; the last one was never fed. */
function textOf({ chat, tokens }: Solo): number[] {
  return [...chat.ids, ...tokens.slice(0, -1)];
}

/** Of the row's bits. */
function hash(row: Float32Array): bigint {
  return BigInt(Bun.hash(new Uint8Array(row.buffer, row.byteOffset, row.byteLength)));
}
