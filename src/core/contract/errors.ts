/** Codes of every error that may cross a room or the process border; front/api maps them to HTTP. */
export type ErrorCode =
  | "invalid_request"
  | "authentication"
  | "model_not_found"
  | "context_length"
  | "overloaded"
  | "model_load"
  | "out_of_memory"
  | "native"
  /** The model answered with something that is no answer: NaN, infinity. */
  | "bad_output"
  | "engine_dead"
  | "cancelled"
  | "internal";

/** An error as plain data, for the wire. */
export interface ErrorData {
  readonly code: ErrorCode;
  readonly message: string;
  /** The request field at fault, as the client wrote it ("messages[2].content"). */
  readonly param?: string | undefined;
  /** Numbers that a caller shows or acts on (numTokens, maxTokens, retryAfterMs, neededBytes, freeBytes). */
  readonly data?: Readonly<Record<string, number>> | undefined;
}

/** An error whose meaning a caller knows by its code. */
export class OmlxError extends Error {
  readonly code: ErrorCode;
  readonly param: string | undefined;
  readonly data: Readonly<Record<string, number>> | undefined;

  constructor(error: ErrorData, options?: ErrorOptions) {
    super(error.message, options);
    this.name = "OmlxError";
    this.code = error.code;
    this.param = error.param;
    this.data = error.data;
  }

  toData(): ErrorData {
    return { code: this.code, message: this.message, param: this.param, data: this.data };
  }
}

/** The request cannot be served as it stands; `param` names the field. */
export function invalidRequest(message: string, param?: string): OmlxError {
  return new OmlxError({ code: "invalid_request", message, param });
}

/** Any thrown value as data: an OmlxError keeps its code, everything else is `fallback`. */
export function toErrorData(error: unknown, fallback: ErrorCode = "internal"): ErrorData {
  if (error instanceof OmlxError) return error.toData();
  return { code: fallback, message: error instanceof Error ? error.message : String(error) };
}
