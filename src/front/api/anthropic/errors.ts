import { type ApiError, toApiError } from "../error-handler.ts";
import { threadDetails } from "./threads.ts";

const PATH = /^\/v1\/messages(?:\/|$)/;
/** Paths that both vendors have; Anthropic's clients name the version of their protocol. */
const SHARED_PATH = /^(?:\/v1)?\/models(?:\/|$)/;

/** Whether a request belongs to this protocol, so that also its 401, 404 and 405 have its shape. */
export function speaksAnthropic({ url, headers }: Request): boolean {
  const { pathname } = new URL(url);
  return PATH.test(pathname) || (SHARED_PATH.test(pathname) && headers.has("anthropic-version"));
}

function typeOf(status: number): string {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    default:
      return status >= 500 ? "api_error" : "invalid_request_error";
  }
}

/** Ids of one request: clients report the first, the answer carries the second. */
export function newIds(): { readonly requestId: string; readonly messageId: string } {
  const id = crypto.randomUUID().replaceAll("-", "").slice(0, 24);
  return { requestId: `req_${id}`, messageId: `msg_${id}` };
}

/** Anthropic's error object. */
export function anthropicError({ status, message, code }: ApiError, requestId: string) {
  return {
    type: "error",
    error: { type: typeOf(status), message, ...threadDetails(code) },
    request_id: requestId,
  };
}

/** A failure that is known before any work has begun. */
export function anthropicFailure(error: unknown): Response {
  const api = toApiError(error);
  const { requestId } = newIds();
  return Response.json(anthropicError(api, requestId), {
    status: api.status,
    headers: { "request-id": requestId, ...api.headers },
  });
}
