import { describe, expect, test } from "bun:test";
import { GREEDY, type TokenRequest } from "#core/contract";
import { fingerprintOf, Suspects } from "../../../src/front/engine/suspects.ts";

describe("Suspects", () => {
  test("quarantines after three deaths alone, and not for deaths in company", () => {
    const suspects = new Suspects();
    for (let i = 0; i < 5; i++) suspects.accuse("x", false, 0, 0);
    expect(suspects.isSuspect("x", 0)).toBe(true);
    expect(suspects.isQuarantined("x", 0)).toBe(false);
    suspects.accuse("x", true, 0, 0);
    suspects.accuse("x", true, 0, 0);
    expect(suspects.isQuarantined("x", 0)).toBe(false);
    suspects.accuse("x", true, 0, 0);
    expect(suspects.isQuarantined("x", 0)).toBe(true);
    expect(suspects.isQuarantined("y", 0)).toBe(false);
  });

  test("forgets what ended well, and everything after some minutes", () => {
    const suspects = new Suspects();
    suspects.accuse("x", true, 0, 0);
    suspects.acquit("x");
    expect(suspects.isSuspect("x", 0)).toBe(false);
    for (let i = 0; i < 3; i++) suspects.accuse("y", true, 0, 1000);
    expect(suspects.isQuarantined("y", 1000 + 599_999)).toBe(true);
    expect(suspects.isQuarantined("y", 1000 + 600_000)).toBe(false);
    expect(suspects.isEmpty).toBe(true);
  });

  test("trusts a retry that got clearly further than before", () => {
    const suspects = new Suspects();
    suspects.accuse("x", true, 100, 0);
    expect(suspects.isPast("x", 116)).toBe(false);
    expect(suspects.isPast("x", 117)).toBe(true);
  });

  test("keeps a bounded number of records, the newest", () => {
    const suspects = new Suspects();
    for (let i = 0; i < 2000; i++) suspects.accuse(`r${i}`, true, 0, 0);
    expect(suspects.isSuspect("r1999", 0)).toBe(true);
    expect(suspects.isSuspect("r0", 0)).toBe(false);
  });
});

test("fingerprintOf() depends on what is asked for, not on id, lane and seed", () => {
  const request: TokenRequest = {
    id: "1",
    promptIds: [1, 2, 3],
    maxTokens: 10,
    minTokens: 0,
    stopIds: [0],
    sampling: GREEDY,
    lane: "interactive",
    topLogprobs: null,
    constraint: null,
    thinkingBudget: null,
  };
  const print = fingerprintOf(request);
  const seeded = { ...GREEDY, seed: 5 };
  expect(fingerprintOf({ ...request, id: "2", lane: "background", sampling: seeded })).toBe(print);
  expect(fingerprintOf({ ...request, promptIds: [1, 2, 4] })).not.toBe(print);
  expect(fingerprintOf({ ...request, maxTokens: 11 })).not.toBe(print);
  expect(fingerprintOf({ ...request, sampling: { ...GREEDY, topK: 3 } })).not.toBe(print);
});
