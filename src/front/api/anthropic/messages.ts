import { Elysia } from "elysia";
import { type ChatEvent, OmlxError } from "#core/contract";
import { countTokens, streamWithTools, withMcpTools } from "#front/service";
import { readJson } from "../body.ts";
import type { AppDeps, Server } from "../deps.ts";
import { endingOf } from "../disconnect.ts";
import { observe } from "../request-log.ts";
import { type Protocol, respond } from "../respond.ts";
import { routeDetail } from "../route-detail.ts";
import { sseEvent } from "../sse.ts";
import { validate } from "../validate.ts";
import { Warnings } from "../warnings.ts";
import { type AnswerHead, MessageEncoder, MessageFold } from "./answer-codec.ts";
import { errorBody, type MessageEvent, message, messageEvent, tokenCount } from "./answers.ts";
import { anthropicError, newIds } from "./errors.ts";
import { decodeMessages, decodePrompt } from "./messages-codec.ts";
import { countBody, messagesBody } from "./schemas.ts";
import { refuseThread } from "./threads.ts";

const ANSWER_DETAIL = routeDetail({
  tag: "Chat",
  summary: "Answer a conversation (Anthropic)",
  description:
    "Anthropic's Messages. With `stream: true` the answer is a `text/event-stream` of named events, ended by `message_stop`.",
  body: messagesBody,
  answer: message,
  stream: messageEvent,
  errors: errorBody,
});

const COUNT_DETAIL = routeDetail({
  tag: "Chat",
  summary: "Count the tokens of a prompt (Anthropic)",
  description: "The number of prompt tokens that `POST /v1/messages` uses for the same body.",
  body: countBody,
  answer: tokenCount,
  errors: errorBody,
});

/** POST /v1/messages and /v1/messages/count_tokens. */
export function messageRoutes(deps: AppDeps) {
  return new Elysia({ name: "messages" })
    .post("/v1/messages", ({ request, server }) => answer(request, server, deps), {
      parse: "none",
      detail: ANSWER_DETAIL,
    })
    .post("/v1/messages/count_tokens", ({ request, server }) => count(request, server, deps), {
      parse: "none",
      detail: COUNT_DETAIL,
    });
}

async function answer(request: Request, server: Server | null, deps: AppDeps): Promise<Response> {
  const body = await readJson(request, deps.bodyLimit);
  server?.timeout(request, 0); // only now: an unfinished body must still time out
  const isBackground = request.headers.get("x-app") === "cli-bg";
  const valid = validate(messagesBody, body);
  refuseThread(valid);
  const decoded = decodeMessages(valid, isBackground, deps.mcp?.manager.tools);
  const { request: chat, stream, marksCache, hidesThoughts } = decoded;
  const { requestId, messageId } = newIds();
  const model = chat.model || (deps.pool.status().defaultModel ?? "");
  const warnings = new Warnings(decoded.ignored, decoded.notes);
  const { signal, abort } = endingOf(request, deps.shutdown);
  const events = observe(
    warnings.watch(streamWithTools(deps.pool, deps.mcp, chat, signal)),
    { id: messageId, route: "messages", model, stream },
    deps.requests,
  );
  return respond(
    events,
    messageProtocol({ id: messageId, model, marksCache, hidesThoughts }, requestId),
    {
      stream,
      keepAliveMs: deps.keepAliveMs,
      headers: () => ({ "request-id": requestId, ...warnings.headers() }),
      signal,
      abort,
    },
  );
}

const frame = (event: { readonly type: string }): string =>
  sseEvent(event.type, JSON.stringify(event));

function messageProtocol(head: AnswerHead, requestId: string): Protocol<ChatEvent, MessageFold> {
  const encoder = new MessageEncoder(head);
  const encode = (event: ChatEvent): MessageEvent[] => [...encoder.encode(event)];
  return {
    head: "",
    frames: (event) => encode(event).map(frame).join(""),
    errorFrame: (error) => frame(anthropicError(error, requestId)),
    tail: "",
    keepAlive: frame({ type: "ping" }),
    collect: async (events) => {
      const fold = new MessageFold();
      for await (const event of events) for (const item of encode(event)) fold.add(item);
      return fold;
    },
    whole: (fold) => fold.message,
    errorBody: (error) => anthropicError(error, requestId),
  };
}

async function count(request: Request, server: Server | null, deps: AppDeps): Promise<Response> {
  const body = await readJson(request, deps.bodyLimit);
  server?.timeout(request, 0);
  const valid = validate(countBody, body);
  refuseThread(valid);
  const { request: chat, ignored, notes } = decodePrompt(valid, deps.mcp?.manager.tools);
  const { signal } = endingOf(request, deps.shutdown);
  using _ = deps.requests.enter();
  try {
    return Response.json(
      { input_tokens: await countTokens(deps.pool, withMcpTools(deps.mcp, chat), signal) },
      { headers: { "request-id": newIds().requestId, ...new Warnings(ignored, notes).headers() } },
    );
  } catch (error) {
    throw signal.reason instanceof OmlxError ? signal.reason : error;
  }
}
