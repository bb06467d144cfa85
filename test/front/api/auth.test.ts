import { describe, expect, test } from "bun:test";
import { OmlxError } from "#core/contract";
import { authenticate, needsKey } from "../../../src/front/api/auth.ts";

const KEY = "sk-right-key";

function outcome(headers: Record<string, string>): string {
  try {
    authenticate(new Headers(headers), KEY);
    return "in";
  } catch (error) {
    if (!(error instanceof OmlxError)) throw error;
    expect(error.code).toBe("authentication");
    expect(error.message).not.toContain("sk-");
    return error.message;
  }
}

describe("authenticate()", () => {
  const invalid = "Invalid API key";
  const required = "API key required";
  const cases: [string, Record<string, string>, string][] = [
    ["takes a bearer token", { authorization: `Bearer ${KEY}` }, "in"],
    ["takes any case of the scheme", { authorization: `bearer ${KEY}` }, "in"],
    ["takes x-api-key", { "x-api-key": KEY }, "in"],
    ["takes both when they agree", { authorization: `Bearer ${KEY}`, "x-api-key": KEY }, "in"],
    ["ignores other schemes beside a key", { authorization: "Basic eA==", "x-api-key": KEY }, "in"],
    ["refuses no key", {}, required],
    ["refuses another scheme alone", { authorization: `Basic ${KEY}` }, required],
    ["refuses a bare key", { authorization: KEY }, required],
    ["refuses Bearer without a value", { authorization: "Bearer" }, invalid],
    ["refuses Bearer with blanks", { authorization: "Bearer   " }, invalid],
    ["refuses a wrong key", { authorization: "Bearer sk-wrong" }, invalid],
    ["refuses a prefix", { authorization: `Bearer ${KEY.slice(0, -1)}` }, invalid],
    ["refuses a longer key", { authorization: `Bearer ${KEY}x` }, invalid],
    ["refuses an empty x-api-key", { "x-api-key": "" }, invalid],
    ["refuses a very long key", { "x-api-key": KEY.repeat(5000) }, invalid],
    ["refuses a wrong x-api-key", { authorization: `Bearer ${KEY}`, "x-api-key": "no" }, invalid],
    ["refuses a wrong bearer", { authorization: "Bearer no", "x-api-key": KEY }, invalid],
  ];
  for (const [name, headers, expected] of cases) {
    test(`authenticate() ${name}`, () => expect(outcome(headers)).toBe(expected));
  }
});

describe("needsKey()", () => {
  test("needsKey() leaves health and OPTIONS open and nothing else", () => {
    expect(needsKey("GET", "/health")).toBe(false);
    expect(needsKey("GET", "/health/ready")).toBe(false);
    expect(needsKey("GET", "/health/live")).toBe(false);
    expect(needsKey("OPTIONS", "/v1/models")).toBe(false);
    expect(needsKey("GET", "/v1/models")).toBe(true);
    expect(needsKey("GET", "//health")).toBe(true);
    expect(needsKey("GET", "/health/../v1/models")).toBe(true);
    expect(needsKey("GET", "/")).toBe(true);
  });
});
