import { describe, expect, test } from "bun:test";
import { TurnMemory } from "../../../src/front/text/turn-memory.ts";

describe("TurnMemory.find()", () => {
  test("gives the ids of the longest prompt and answer that a text begins with", () => {
    const memory = new TurnMemory();
    memory.begin(1, "ab", [1]);
    memory.finish(1, "cd", [2, 3]);
    memory.begin(2, "abcdef", [1, 2, 3, 4]);
    memory.finish(2, "gh", [5]);
    expect(memory.find("abcdxx")).toEqual({ length: 4, ids: [1, 2, 3] });
    expect(memory.find("abcdefghi")).toEqual({ length: 8, ids: [1, 2, 3, 4, 5] });
    expect(memory.find("abxd")).toBeUndefined();
  });

  test("knows nothing of prompts without an answer", () => {
    const memory = new TurnMemory();
    memory.begin(1, "ab", [1]);
    memory.finish(2, "cd", [2]);
    memory.finish(1, "", []);
    expect(memory.find("abcd")).toBeUndefined();
  });

  test("forgets what was not used for long", () => {
    const memory = new TurnMemory();
    for (let i = 0; i < 1000; i++) {
      memory.begin(i, `${i}:`, [i]);
      memory.finish(i, "x", [0]);
      memory.find("0:x");
    }
    expect(memory.find("0:xy")?.ids).toEqual([0, 0]);
    expect(memory.find("500:xy")).toBeUndefined();
    expect(memory.find("999:xy")).toBeDefined();
  });

  test("keeps no more than its bound of characters", () => {
    const memory = new TurnMemory();
    for (let i = 0; i < 40; i++) {
      memory.begin(i, `${i}:`, [i]);
      memory.finish(i, "x".repeat(1_000_000), [0]);
    }
    const kept = Array.from({ length: 40 }, (_, i) => memory.find(`${i}:${"x".repeat(1_000_000)}`));
    expect(kept.filter((turn) => turn !== undefined).length).toBeLessThan(17);
    expect(kept.at(-1)).toBeDefined();
  });
});
