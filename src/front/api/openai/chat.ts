import { Elysia } from "elysia";
import { type ChatEvent, OmlxError } from "#core/contract";
import { collect, streamChat } from "#front/service";
import { readJson } from "../body.ts";
import type { AppDeps } from "../deps.ts";
import { endingOf } from "../disconnect.ts";
import { errorResponse, openaiError, toApiError } from "../error-handler.ts";
import { observe } from "../request-log.ts";
import { SSE_DONE, SSE_HEADERS, SSE_KEEP_ALIVE, settlesWithin, sseFrame, trickle } from "../sse.ts";
import { validate } from "../validate.ts";
import { warningHeader } from "../warnings.ts";
import { type AnswerHead, ChunkEncoder, decodeChat, encodeCompletion } from "./chat-codec.ts";
import { chatBody } from "./schemas.ts";

/** A failure so early still gets its own status; later ones are told inside the stream. */
const STREAM_GRACE_MS = 250;

/** What a route needs of Bun's server. */
interface Server {
  timeout(request: Request, seconds: number): void;
}

/** POST /v1/chat/completions. */
export function chatRoutes(deps: AppDeps) {
  return new Elysia({ name: "chat" }).post(
    "/v1/chat/completions",
    ({ request, server }) => answer(request, server, deps),
    { parse: "none" },
  );
}

async function answer(request: Request, server: Server | null, deps: AppDeps): Promise<Response> {
  const body = await readJson(request, deps.bodyLimit);
  server?.timeout(request, 0); // only now: an unfinished body must still time out
  const decoded = decodeChat(validate(chatBody, body));
  const { request: chat, stream } = decoded;
  const head: AnswerHead = {
    id: `chatcmpl-${crypto.randomUUID().replaceAll("-", "")}`,
    created: Math.floor(Date.now() / 1000),
    model: chat.model || (deps.pool.status().defaultModel ?? ""),
    fingerprint: `fp_${Bun.hash(deps.version).toString(16).slice(0, 12)}`,
  };
  const headers = { "x-request-id": head.id, ...warningHeader(decoded.ignored) };
  const { signal, abort } = endingOf(request, deps.shutdown);
  const events = observe(
    streamChat(deps.pool, chat, signal),
    { id: head.id, route: "chat", model: head.model, stream },
    deps.requests,
  );
  // Whatever state the answer is in, its lease comes back.
  signal.addEventListener("abort", () => void events.return(undefined).catch(() => {}));
  const cause = (error: unknown) => (signal.reason instanceof OmlxError ? signal.reason : error);
  const errorJson = (error: unknown) => JSON.stringify(openaiError(toApiError(cause(error))));

  try {
    if (stream) {
      const encoder = new ChunkEncoder(head, decoded.includeUsage);
      const first = events.next();
      await settlesWithin(first, STREAM_GRACE_MS);
      return trickle(frames(first, events, encoder, errorJson), {
        head: sseFrame(encoder.start()),
        keepAlive: SSE_KEEP_ALIVE,
        keepAliveMs: deps.keepAliveMs,
        headers: { ...SSE_HEADERS, ...headers },
        onLeave: abort,
      });
    }
    const json = collect(events).then((whole) => JSON.stringify(encodeCompletion(head, whole)));
    const jsonHeaders = { "content-type": "application/json", ...headers };
    if (await settlesWithin(json, deps.keepAliveMs)) {
      return new Response(await json, { headers: jsonHeaders });
    }
    return trickle(lateJson(json, errorJson), {
      head: " ", // blanks before a JSON text mean nothing
      keepAlive: " ",
      keepAliveMs: deps.keepAliveMs,
      headers: jsonHeaders,
      onLeave: abort,
    });
  } catch (error) {
    return errorResponse(cause(error), headers);
  }
}

/** The status is sent long ago, so a failure can only be told in the body. */
async function* lateJson(
  json: Promise<string>,
  errorJson: (error: unknown) => string,
): AsyncGenerator<string> {
  yield await json.catch(errorJson);
}

/** The frames after the first one; an error is a frame too, and the stream still ends in order. */
async function* frames(
  first: Promise<IteratorResult<ChatEvent>>,
  events: AsyncGenerator<ChatEvent>,
  encoder: ChunkEncoder,
  errorJson: (error: unknown) => string,
): AsyncGenerator<string> {
  try {
    for (let next = await first; !next.done; next = await events.next()) {
      for (const json of encoder.encode(next.value)) yield sseFrame(json);
    }
  } catch (error) {
    yield sseFrame(errorJson(error));
  }
  yield SSE_DONE;
}
