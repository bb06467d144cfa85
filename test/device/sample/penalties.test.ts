import { describe, expect, test } from "bun:test";
import { GREEDY, type SamplingParams } from "#core/contract";
import { adjustLogits, hasAdjustments } from "../../../src/device/sample/penalties.ts";

const adjusted = (
  logits: readonly number[],
  params: Partial<SamplingParams>,
  ids: readonly number[],
  promptTokens: number,
  bannedIds: readonly number[] = [],
): number[] => {
  const row = Float32Array.from(logits);
  adjustLogits(row, { ...GREEDY, ...params }, { ids, promptTokens, bannedIds });
  return [...row];
};

describe("adjustLogits()", () => {
  test("repetition divides positive logits and multiplies negative ones, once per token", () => {
    const params = { repetitionPenalty: 2, repetitionContext: 20 };
    expect(adjusted([4, -4, 1, 0], params, [0, 1, 0, 3], 2)).toEqual([2, -8, 1, 0]);
  });

  test("repetition sees only the last tokens of its context, prompt included", () => {
    const params = { repetitionPenalty: 2, repetitionContext: 2 };
    expect(adjusted([4, 4, 4, 4], params, [0, 1, 2], 3)).toEqual([4, 2, 2, 4]);
    expect(adjusted([4, 4, 4, 4], { ...params, repetitionContext: 0 }, [0, 1], 2)).toEqual([
      4, 4, 4, 4,
    ]);
  });

  test("presence is taken once and frequency per occurrence, of generated tokens only", () => {
    const params = { presencePenalty: 0.5, frequencyPenalty: 0.25 };
    // 0 is in the prompt only, 1 was generated twice, 2 once.
    expect(adjusted([1, 1, 1, 1], params, [0, 0, 1, 2, 1], 2)).toEqual([1, 0, 0.25, 1]);
  });

  test("negative penalties favour repetition", () => {
    expect(adjusted([1, 1], { presencePenalty: -1, frequencyPenalty: -0.5 }, [1, 1], 0)).toEqual([
      1, 3,
    ]);
  });

  test("bias is added after penalties; bans win over everything", () => {
    const params: Partial<SamplingParams> = {
      repetitionPenalty: 2,
      logitBias: [
        [0, 1],
        [1, 100],
        [2, -100],
      ],
    };
    expect(adjusted([4, 4, 4, 4], params, [0], 1, [1])).toEqual([
      3,
      Number.NEGATIVE_INFINITY,
      -96,
      4,
    ]);
  });

  test("ids outside the vocabulary change nothing", () => {
    const params: Partial<SamplingParams> = {
      repetitionPenalty: 2,
      presencePenalty: 1,
      logitBias: [[99, 5]],
    };
    expect(adjusted([1, 2], params, [50, 60], 1, [70])).toEqual([1, 2]);
  });

  test("hasAdjustments() is false exactly when nothing would change", () => {
    const text = { ids: [1, 2], promptTokens: 2, bannedIds: [] };
    expect(hasAdjustments(GREEDY, text)).toBe(false);
    expect(hasAdjustments({ ...GREEDY, presencePenalty: 1 }, text)).toBe(false);
    expect(hasAdjustments({ ...GREEDY, presencePenalty: 1 }, { ...text, promptTokens: 1 })).toBe(
      true,
    );
    expect(hasAdjustments({ ...GREEDY, repetitionPenalty: 1.1 }, text)).toBe(true);
    expect(hasAdjustments({ ...GREEDY, logitBias: [[1, 1]] }, text)).toBe(true);
    expect(hasAdjustments(GREEDY, { ...text, bannedIds: [1] })).toBe(true);
  });
});
