import { type ErrorCode, OmlxError } from "#core/contract";
import { log } from "#core/log";

/** An error as a client sees it. */
export interface ApiError {
  readonly status: number;
  readonly type: string;
  readonly message: string;
  readonly param: string | null;
  readonly code: string | null;
  readonly headers: Readonly<Record<string, string>>;
}

/** An error that only HTTP knows: routes, methods, body sizes and encodings. */
export class HttpError extends Error {
  readonly status: number;
  readonly code: string | null;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    status: number,
    message: string,
    code: string | null = null,
    headers: Readonly<Record<string, string>> = {},
  ) {
    super(message);
    this.name = "HttpError";
    this.status = status;
    this.code = code;
    this.headers = headers;
  }
}

/** The status that a client library reads as "the caller closed the request"; nobody is left to see it. */
const CLIENT_CLOSED = 499;

interface Row {
  readonly status: number;
  readonly code: string | null;
  /** Set where the cause is ours: what the client reads instead of it. */
  readonly message?: string;
}

const TABLE: Readonly<Record<ErrorCode, Row>> = {
  invalid_request: { status: 400, code: null },
  authentication: { status: 401, code: "invalid_api_key" },
  model_not_found: { status: 404, code: "model_not_found" },
  context_length: { status: 400, code: "context_length_exceeded" },
  overloaded: { status: 503, code: "overloaded" },
  model_load: { status: 503, code: "model_load_failed" },
  out_of_memory: { status: 503, code: "out_of_memory" },
  engine_dead: { status: 503, code: "engine_dead" },
  cancelled: { status: CLIENT_CLOSED, code: "cancelled" },
  bad_output: { status: 500, code: "bad_output" },
  native: { status: 500, code: "native", message: "The engine could not finish this request" },
  internal: { status: 500, code: "internal", message: "Internal server error" },
};

const typeOf = (status: number): string => {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    default:
      return status >= 500 ? "server_error" : "invalid_request_error";
  }
};

/** Where files lie on this machine is nobody's business: "/a/b/model.safetensors" becomes "model.safetensors". */
const hidePaths = (message: string): string =>
  message.replace(/(^|[\s"'`(=:,[])(?:\/[^\s"'`():,\][/]+)*\/(?=[^\s"'`():,\]/])/g, "$1");

/** What a client may know about a thrown value. Causes of our own making are logged, not told. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof HttpError) {
    const { status, message, code, headers } = error;
    return { status, type: typeOf(status), message, param: null, code, headers };
  }
  const known = error instanceof OmlxError ? error : undefined;
  const code = known?.code ?? "internal";
  const row = TABLE[code];
  if (row.message !== undefined) log.error("request failed", { code, error: describe(error) });
  const isTheClients = code === "invalid_request" || code === "model_not_found";
  const told = row.message ?? known?.message ?? "";
  const headers: Record<string, string> = {};
  if (code === "authentication") headers["www-authenticate"] = "Bearer";
  const retryAfterMs = known?.data?.["retryAfterMs"] ?? (code === "overloaded" ? 1000 : undefined);
  if (retryAfterMs !== undefined) {
    headers["retry-after"] = String(Math.max(1, Math.ceil(retryAfterMs / 1000)));
  }
  return {
    status: row.status,
    type: typeOf(row.status),
    message: isTheClients ? told : hidePaths(told),
    param: known?.param ?? null,
    code: row.code,
    headers,
  };
}

/** The stack of a failure that should not be, for the log only. */
const describe = (error: unknown): string =>
  error instanceof Error ? (error.stack ?? error.message) : String(error);

/** OpenAI's error object. */
export function openaiError(error: ApiError) {
  const { message, type, param, code } = error;
  return { error: { message, type, param, code } };
}

export function errorResponse(error: unknown, headers: Readonly<Record<string, string>> = {}) {
  const api = toApiError(error);
  return Response.json(openaiError(api), {
    status: api.status,
    headers: { ...headers, ...api.headers },
  });
}

/** A client's own words in one of our messages: short and on one line. */
export function quote(text: string, limit = 100): string {
  return JSON.stringify(text.length > limit ? `${text.slice(0, limit)}…` : text);
}
