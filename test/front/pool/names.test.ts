import { describe, expect, test } from "bun:test";
import type { ModelEntry } from "#core/contract";
import { findByName, modelNotFound, standIn } from "../../../src/front/pool/names.ts";

const entry = (id: string, problem?: string): ModelEntry => ({
  id,
  path: `/models/${id}`,
  kind: "llm",
  modelType: "llama",
  contextWindow: 1,
  weightBytes: 1,
  created: 0,
  problem,
});

const ENTRIES = ["Qwen3", "qwen3", "org/Phi", "other/Phi", "one/Solo", "a/b"].map((id) =>
  entry(id),
);
const find = (name: string) => findByName(name, ENTRIES)?.id;

describe("findByName()", () => {
  test.each([
    ["Qwen3", "Qwen3"],
    ["qwen3", "qwen3"],
    ["QWEN3", "Qwen3"],
    ["omlx/qwen3", "qwen3"],
    ["omlx/QWEN3", "Qwen3"],
    ["omlx/org/phi", "org/Phi"],
    ["ORG/PHI", "org/Phi"],
    ["solo", "one/Solo"],
    ["elsewhere/Solo", "one/Solo"],
    ["qwen3[1m]", "qwen3"],
    ["omlx/QWEN3[200K]", "Qwen3"],
    ["solo[1m]", "one/Solo"],
  ])("takes %p for %p", (name, id) => expect(find(name)).toBe(id));

  test.each([
    "",
    "/",
    "x/",
    "Phi", // two groups have it
    "a",
    "../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "/models/Qwen3",
    "Qwen3\0",
    "__proto__",
    "[1m]",
    "qwen3[1m]x",
    "qwen3[m]",
    "claude-opus-4-5",
    "x".repeat(10_000),
  ])("finds nothing for %p", (name) => expect(find(name)).toBeUndefined());
});

describe("standIn()", () => {
  const [first, second] = ENTRIES as [ModelEntry, ModelEntry];
  const of = (entry: ModelEntry, isLoaded: boolean, lastUsed = 0) => ({
    entry,
    isLoaded,
    lastUsed,
  });

  test("takes the default model when nothing is loaded, or when it is", () => {
    expect(standIn([], first)).toBe(first);
    expect(standIn([of(first, false), of(second, false)], first)).toBe(first);
    expect(standIn([of(second, true, 9), of(first, true, 1)], first)).toBe(first);
    expect(standIn([], undefined)).toBeUndefined();
  });

  test("takes the loaded model that was used last, rather than load a second one", () => {
    const third = entry("third");
    expect(standIn([of(second, true, 1), of(third, true, 2)], first)).toBe(third);
    expect(standIn([of(second, true)], undefined)).toBe(second);
  });

  test("takes no model that cannot chat", () => {
    const embedder: ModelEntry = { ...entry("embedder"), kind: "embedding" };
    expect(standIn([of(embedder, true, 5)], first)).toBe(first);
  });
});

test("modelNotFound() lists what can be used and cuts what was asked for", () => {
  const error = modelNotFound("x".repeat(10_000), [entry("good"), entry("bad", "broken")]);
  expect(error.code).toBe("model_not_found");
  expect(error.param).toBe("model");
  expect(error.message.length).toBeLessThan(200);
  expect(error.message).toEndWith("Available models: good");
  expect(modelNotFound("a\n", []).message).toContain('"a\\n" not found. Available models: (none)');
});
