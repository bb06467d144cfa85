/** The checkpoints that other tests talk to say what their script says. */
import { expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { argmax, ForwardSession } from "../helpers/forward.ts";
import { type Script, scriptedIds, writeScriptedModel } from "../helpers/scripted-model.ts";

const EOS = 258;
/** "hi" and a line feed, byte by byte. */
const PROMPT = [104, 105, 10];

for (const kernels of ["native", "stock"] as const) {
  test(`a scripted checkpoint says its text and ends with ${kernels} kernels`, async () => {
    const script = { text: "It was the best of times, it was the worst of times. 🙂 Über alles." };
    const ids = scriptedIds(script);
    expect(await say(script, ids.length + 2, kernels)).toEqual([...ids, EOS, ids[0] ?? -1]);
  });

  test(`a looping checkpoint starts again with ${kernels} kernels`, async () => {
    const smile = new TextEncoder().encode("🙂");
    const tokens = ["Hello ", smile.slice(0, 2), smile.slice(2), "<think>", " and so on. "];
    const script = { tokens, loop: true, window: 131_072 };
    const ids = scriptedIds(script);
    expect(ids[3]).toBe(259);
    expect(await say(script, 3 * ids.length, kernels)).toEqual([...ids, ...ids, ...ids]);
  });
}

/** The most probable `count` tokens after the prompt; each is far more probable than all others together. */
async function say(script: Script, count: number, kernels: "native" | "stock"): Promise<number[]> {
  const dir = await mkdtemp(join(tmpdir(), "omlx-scripted-"));
  const session = await ForwardSession.open(await writeScriptedModel(dir, script), kernels);
  try {
    expect(session.loaded.info.contextWindow).toBe(script.window ?? 2048);
    const text = session.start();
    const said: number[] = [];
    let next = PROMPT;
    while (said.length < count) {
      const row = session.run(text, next).at(-1) ?? new Float32Array();
      const [first = 0, second = 0] = row.toSorted().reverse();
      expect(first - second).toBeGreaterThan(30);
      next = [argmax(row)];
      said.push(...next);
    }
    return said;
  } finally {
    session.dispose();
    await rm(dir, { recursive: true });
  }
}
