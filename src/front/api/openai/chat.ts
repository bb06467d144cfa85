import { Elysia } from "elysia";
import {
  type ChoiceEvent,
  type ChoicesResult,
  collectChoices,
  streamChoices,
} from "#front/service";
import { readJson } from "../body.ts";
import type { AppDeps, Server } from "../deps.ts";
import { endingOf } from "../disconnect.ts";
import { openaiError } from "../error-handler.ts";
import { observe } from "../request-log.ts";
import { type Protocol, respond } from "../respond.ts";
import { routeDetail } from "../route-detail.ts";
import { SSE_DONE, SSE_KEEP_ALIVE, sseFrame } from "../sse.ts";
import { validate } from "../validate.ts";
import { Warnings } from "../warnings.ts";
import { chatCompletion, chatCompletionChunk } from "./answers.ts";
import { ChunkEncoder, type ChunkOptions, decodeChat, encodeCompletion } from "./chat-codec.ts";
import { type AnswerHead, newHead } from "./head.ts";
import { chatBody } from "./schemas.ts";

const DETAIL = routeDetail({
  tag: "Chat",
  summary: "Answer a conversation",
  description:
    "OpenAI's chat completions. With `stream: true` the answer is a `text/event-stream` of chunks, ended by `data: [DONE]`.",
  body: chatBody,
  answer: chatCompletion,
  stream: chatCompletionChunk,
});

/** POST /v1/chat/completions. */
export function chatRoutes(deps: AppDeps) {
  return new Elysia({ name: "chat" }).post(
    "/v1/chat/completions",
    ({ request, server }) => answer(request, server, deps),
    { parse: "none", detail: DETAIL },
  );
}

async function answer(request: Request, server: Server | null, deps: AppDeps): Promise<Response> {
  const body = await readJson(request, deps.bodyLimit);
  server?.timeout(request, 0); // only now: an unfinished body must still time out
  const decoded = decodeChat(validate(chatBody, body), deps.mcp?.manager.tools);
  const { request: chat, n, stream, includeUsage, isLegacy } = decoded;
  const head = newHead("chatcmpl", chat.model, deps);
  const warnings = new Warnings(decoded.ignored);
  const { signal, abort } = endingOf(request, deps.shutdown);
  const events = observe(
    warnings.watch(streamChoices(deps.pool, deps.mcp, chat, n, signal)),
    { id: head.id, route: "chat", model: head.model, stream, perPrompt: n },
    deps.requests,
  );
  return respond(events, chatProtocol(head, { includeUsage, n, isLegacy }), {
    stream,
    keepAliveMs: deps.keepAliveMs,
    headers: () => ({ "x-request-id": head.id, ...warnings.headers() }),
    signal,
    abort,
  });
}

function chatProtocol(
  head: AnswerHead,
  options: ChunkOptions,
): Protocol<ChoiceEvent, ChoicesResult> {
  const encoder = new ChunkEncoder(head, options);
  return {
    head: encoder.start().map(sseFrame).join(""),
    frames: (event) => {
      let frames = "";
      for (const chunk of encoder.encode(event)) frames += sseFrame(chunk);
      return frames;
    },
    errorFrame: (error) => sseFrame(JSON.stringify(openaiError(error))),
    tail: SSE_DONE,
    keepAlive: SSE_KEEP_ALIVE,
    collect: (events) => collectChoices(events, options.n),
    whole: (result) => encodeCompletion(head, result, options.isLegacy),
    errorBody: openaiError,
  };
}
