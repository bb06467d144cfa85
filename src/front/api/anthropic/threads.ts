import { HttpError } from "../error-handler.ts";
import type { CountBody } from "./schemas.ts";

/** Codes by which Anthropic's SDKs know that they must send the whole conversation. */
const CODES = { create: "thread_unsupported_request", continue: "thread_not_found" } as const;

/**
 * Refuses to hold a conversation between requests: a request that continues one brings only its newest messages. The SDKs'
 * tool runners send everything once they are told.
 *
 * @throws {HttpError} 400
 */
export function refuseThread({ thread }: CountBody): void {
  if (thread == null) return;
  const code = thread.type === "continue" ? CODES.continue : CODES.create;
  const message =
    'No conversation is held between requests here: send all messages, without "thread"';
  throw new HttpError(400, message, code);
}

/** What an error about threads tells SDKs besides its words. */
export function threadDetails(code: string | null) {
  if (code === CODES.create) return { details: { error_code: code, unsupported: ["thread"] } };
  return code === CODES.continue ? { details: { error_code: code } } : {};
}
