import { describe, expect, spyOn, test } from "bun:test";
import { type ErrorCode, OmlxError } from "#core/contract";
import { errorResponse, HttpError, toApiError } from "../../../src/front/api/error-handler.ts";

const of = (code: ErrorCode, message = "text", more = {}) =>
  toApiError(new OmlxError({ code, message, ...more }));

describe("toApiError()", () => {
  const cases: [ErrorCode, number, string, string | null][] = [
    ["invalid_request", 400, "invalid_request_error", null],
    ["authentication", 401, "authentication_error", "invalid_api_key"],
    ["model_not_found", 404, "not_found_error", "model_not_found"],
    ["context_length", 400, "invalid_request_error", "context_length_exceeded"],
    ["overloaded", 503, "server_error", "overloaded"],
    ["model_load", 503, "server_error", "model_load_failed"],
    ["out_of_memory", 503, "server_error", "out_of_memory"],
    ["engine_dead", 503, "server_error", "engine_dead"],
    ["native", 500, "server_error", "native"],
    ["internal", 500, "server_error", "internal"],
  ];
  for (const [code, status, type, wireCode] of cases) {
    test(`toApiError() answers ${code} with ${status}`, () => {
      using _ = spyOn(process.stderr, "write").mockReturnValue(true);
      const error = of(code);
      expect([error.status, error.type, error.code]).toEqual([status, type, wireCode]);
    });
  }

  test("toApiError() tells nothing about failures of our own, the log does", () => {
    using write = spyOn(process.stderr, "write").mockReturnValue(true);
    expect(toApiError(new Error("ENOENT /home/me/secret")).message).toBe("Internal server error");
    expect(toApiError("text").message).toBe("Internal server error");
    expect(of("native", "matmul: /opt/lib").message).not.toContain("matmul");
    const logged = write.mock.calls.join("");
    expect(logged).toContain("ENOENT /home/me/secret");
    expect(logged).toContain("matmul: /opt/lib");
  });

  test("toApiError() takes folders out of paths and leaves the rest", () => {
    const message = 'Cannot load "/home/me/models/x/model.safetensors": a/b and 1/2 stay (/tmp/y)';
    expect(of("model_load", message).message).toBe(
      'Cannot load "model.safetensors": a/b and 1/2 stay (y)',
    );
  });

  test("toApiError() keeps the client's own words", () => {
    expect(of("invalid_request", 'Unknown "/v1/x/y"').message).toBe('Unknown "/v1/x/y"');
  });

  test("toApiError() says when to come back, in whole seconds", () => {
    expect(of("overloaded").headers["retry-after"]).toBe("1");
    expect(of("overloaded", "", { data: { retryAfterMs: 2100 } }).headers["retry-after"]).toBe("3");
    expect(of("invalid_request").headers["retry-after"]).toBeUndefined();
  });

  test("errorResponse() has OpenAI's shape with all four fields", async () => {
    const error = new OmlxError({ code: "invalid_request", message: "No", param: "messages[2]" });
    const response = errorResponse(error, { "x-request-id": "1" });
    expect(response.status).toBe(400);
    expect(response.headers.get("x-request-id")).toBe("1");
    expect(await response.json()).toEqual({
      error: { message: "No", type: "invalid_request_error", param: "messages[2]", code: null },
    });
  });

  test("errorResponse() keeps status, code and headers of an HttpError", async () => {
    const response = errorResponse(
      new HttpError(405, "No", "method_not_allowed", { allow: "GET" }),
    );
    expect(response.status).toBe(405);
    expect(response.headers.get("allow")).toBe("GET");
    const body = (await response.json()) as { error: { code: string } };
    expect(body.error.code).toBe("method_not_allowed");
  });
});
