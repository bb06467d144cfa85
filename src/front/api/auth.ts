import { createHash, timingSafeEqual } from "node:crypto";
import { OmlxError } from "#core/contract";

/** Open without a key, for supervisors and for people with a browser: they tell nothing that needs one. */
const OPEN_PATHS: ReadonlySet<string> = new Set([
  "/health",
  "/health/live",
  "/health/ready",
  "/openapi.json",
  "/docs",
  "/docs/swagger-ui.js",
  "/docs/swagger-ui.css",
]);

export const needsKey = (method: string, path: string): boolean =>
  method !== "OPTIONS" && !OPEN_PATHS.has(path);

const digest = (text: string): Buffer => createHash("sha256").update(text).digest();

/**
 * Checks the key of a request: `Authorization: Bearer` or `x-api-key`, and if both are given they must agree. The
 * comparison takes the same time for every wrong key.
 *
 * @throws {OmlxError} authentication; the given key is in no message
 */
export function authenticate(headers: Headers, apiKey: string): void {
  const authorization = headers.get("authorization");
  const bearer =
    authorization === null ? undefined : /^bearer(?:\s+(.*))?$/is.exec(authorization.trim());
  const given = [bearer ? (bearer[1] ?? "") : null, headers.get("x-api-key")].filter(
    (key) => key !== null,
  );
  if (given.length === 0) fail("API key required");
  const wanted = digest(apiKey);
  let isRight = true;
  for (const key of given) isRight = timingSafeEqual(digest(key), wanted) && isRight;
  if (!isRight) fail("Invalid API key");
}

function fail(message: string): never {
  throw new OmlxError({ code: "authentication", message });
}
