import { describe, expect, test } from "bun:test";
import type { ModelEntry } from "#core/contract";
import { findByName, modelNotFound } from "../../../src/front/pool/names.ts";

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
    "x".repeat(10_000),
  ])("finds nothing for %p", (name) => expect(find(name)).toBeUndefined());
});

test("modelNotFound() lists what can be used and cuts what was asked for", () => {
  const error = modelNotFound("x".repeat(10_000), [entry("good"), entry("bad", "broken")]);
  expect(error.code).toBe("model_not_found");
  expect(error.param).toBe("model");
  expect(error.message.length).toBeLessThan(200);
  expect(error.message).toEndWith("Available models: good");
  expect(modelNotFound("a\n", []).message).toContain('"a\\n" not found. Available models: (none)');
});
