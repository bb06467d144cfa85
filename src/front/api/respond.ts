import { OmlxError } from "#core/contract";
import { type ApiError, toApiError } from "./error-handler.ts";
import { SSE_HEADERS, settlesWithin, type TrickleOptions, trickle } from "./sse.ts";

/** A failure so early still gets its own status; later ones are told inside the stream. */
const STREAM_GRACE_MS = 250;

/** How a protocol writes one answer: E its events, R their fold. */
export interface Protocol<E, R> {
  /** Sent with the headers of a stream, before anything is known of the answer; may be empty. */
  readonly head: string;
  /** The SSE text of one event; may be empty. */
  frames(event: E): string;
  /** The SSE text of an error after the headers. */
  errorFrame(error: ApiError): string;
  /** Ends a stream, also after an error. */
  readonly tail: string;
  /** SSE text that means nothing. */
  readonly keepAlive: string | (() => string);
  /** Folds all events into the whole answer. */
  collect(events: AsyncIterable<E>): Promise<R>;
  /** The body of a whole answer, a JSON value. */
  whole(result: R): unknown;
  errorBody(error: ApiError): unknown;
}

export interface RespondOptions {
  readonly stream: boolean;
  readonly keepAliveMs: number;
  /** Asked for as late as possible, so that it may tell what the first events taught. */
  readonly headers: () => Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** Ends the work of this request. Called at the end of every answer, too. */
  readonly abort: () => void;
}

/**
 * The response of one request, streamed or whole: both are the same events. Waiting clients get signs of life; a client
 * that leaves ends the work.
 */
export async function respond<E, R>(
  events: AsyncGenerator<E>,
  protocol: Protocol<E, R>,
  options: RespondOptions,
): Promise<Response> {
  const { signal, abort, keepAliveMs, headers } = options;
  // Whatever state the answer is in, its lease comes back.
  signal.addEventListener("abort", () => void events.return(undefined).catch(() => {}));
  const causeOf = (error: unknown): ApiError =>
    toApiError(signal.reason instanceof OmlxError ? signal.reason : error);

  try {
    if (options.stream) {
      const first = events.next();
      const isEarly = await settlesWithin(first, STREAM_GRACE_MS);
      return trickle(streamFrames(first, events, protocol, { causeOf, onEnd: abort }), {
        // Headers leave with the first bytes, so a late answer begins with a sign of life.
        head: protocol.head || (isEarly ? "" : keepAliveOf(protocol)),
        keepAlive: protocol.keepAlive,
        keepAliveMs,
        headers: { ...SSE_HEADERS, ...headers() },
        onLeave: abort,
      });
    }
    const json = protocol.collect(events).then((all) => JSON.stringify(protocol.whole(all)));
    return await respondWhole(json, (error) => protocol.errorBody(error), options);
  } catch (error) {
    const api = causeOf(error);
    abort();
    return Response.json(protocol.errorBody(api), {
      status: api.status,
      headers: { ...headers(), ...api.headers },
    });
  }
}

/** The response of a JSON text that takes its time: blanks before it are the signs of life. */
export async function respondWhole(
  json: Promise<string>,
  errorBody: (error: ApiError) => unknown,
  { signal, abort, keepAliveMs, headers }: Omit<RespondOptions, "stream">,
): Promise<Response> {
  const causeOf = (error: unknown): ApiError =>
    toApiError(signal.reason instanceof OmlxError ? signal.reason : error);
  json.then(abort, abort);
  try {
    const isEarly = await settlesWithin(json, keepAliveMs);
    const jsonHeaders = { "content-type": "application/json", ...headers() };
    if (isEarly) return new Response(await json, { headers: jsonHeaders });
    return trickle(
      lateJson(json, (error) => errorBody(causeOf(error))),
      {
        head: " ", // blanks before a JSON text mean nothing
        keepAlive: " ",
        keepAliveMs,
        headers: jsonHeaders,
        onLeave: abort,
      },
    );
  } catch (error) {
    const api = causeOf(error);
    return Response.json(errorBody(api), {
      status: api.status,
      headers: { ...headers(), ...api.headers },
    });
  }
}

const keepAliveOf = ({ keepAlive }: Pick<TrickleOptions, "keepAlive">): string =>
  typeof keepAlive === "function" ? keepAlive() : keepAlive;

/** The status is sent long ago, so a failure can only be told in the body. */
async function* lateJson(
  json: Promise<string>,
  errorBody: (error: unknown) => unknown,
): AsyncGenerator<string> {
  yield await json.catch((error: unknown) => JSON.stringify(errorBody(error)));
}

/** The frames after the head; an error is a frame too, and the stream still ends in order. */
async function* streamFrames<E, R>(
  first: Promise<IteratorResult<E>>,
  events: AsyncGenerator<E>,
  protocol: Protocol<E, R>,
  { causeOf, onEnd }: { causeOf: (error: unknown) => ApiError; onEnd: () => void },
): AsyncGenerator<string> {
  try {
    for (let next = await first; !next.done; next = await events.next()) {
      const frames = protocol.frames(next.value);
      if (frames !== "") yield frames;
    }
  } catch (error) {
    yield protocol.errorFrame(causeOf(error));
  }
  onEnd();
  if (protocol.tail !== "") yield protocol.tail;
}
