import { Elysia } from "elysia";
import {
  type ChoiceEvent,
  type ChoicesResult,
  collectChoices,
  streamCompletions,
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
import { textCompletion } from "./answers.ts";
import {
  decodeCompletion,
  encodeTextCompletion,
  PieceEncoder,
  type PieceOptions,
} from "./completions-codec.ts";
import { type AnswerHead, newHead } from "./head.ts";
import { completionBody } from "./schemas.ts";

const DETAIL = routeDetail({
  tag: "Text",
  summary: "Continue a text",
  description:
    "OpenAI's completions: raw prompts, no chat template. With `stream: true` the answer is a `text/event-stream` of the same objects, ended by `data: [DONE]`.",
  body: completionBody,
  answer: textCompletion,
  stream: textCompletion,
});

/** POST /v1/completions. */
export function completionRoutes(deps: AppDeps) {
  return new Elysia({ name: "completions" }).post(
    "/v1/completions",
    ({ request, server }) => answer(request, server, deps),
    { parse: "none", detail: DETAIL },
  );
}

async function answer(request: Request, server: Server | null, deps: AppDeps): Promise<Response> {
  const body = await readJson(request, deps.bodyLimit);
  server?.timeout(request, 0); // only now: an unfinished body must still time out
  const decoded = decodeCompletion(validate(completionBody, body));
  const { request: completion, stream, includeUsage } = decoded;
  const head = newHead("cmpl", completion.model, deps);
  const warnings = new Warnings(decoded.ignored);
  const { signal, abort } = endingOf(request, deps.shutdown);
  const perPrompt = completion.n;
  const events = observe(
    warnings.watch(streamCompletions(deps.pool, completion, signal)),
    { id: head.id, route: "completions", model: head.model, stream, perPrompt },
    deps.requests,
  );
  const numChoices = completion.prompts.length * perPrompt;
  return respond(events, completionProtocol(head, { includeUsage, numChoices, perPrompt }), {
    stream,
    keepAliveMs: deps.keepAliveMs,
    headers: () => ({ "x-request-id": head.id, ...warnings.headers() }),
    signal,
    abort,
  });
}

function completionProtocol(
  head: AnswerHead,
  options: PieceOptions,
): Protocol<ChoiceEvent, ChoicesResult> {
  const encoder = new PieceEncoder(head, options);
  return {
    head: SSE_KEEP_ALIVE, // no event can be told before there is text
    frames: (event) => [...encoder.encode(event)].map(sseFrame).join(""),
    errorFrame: (error) => sseFrame(JSON.stringify(openaiError(error))),
    tail: SSE_DONE,
    keepAlive: SSE_KEEP_ALIVE,
    collect: (events) => collectChoices(events, options.perPrompt),
    whole: (result) => encodeTextCompletion(head, result),
    errorBody: openaiError,
  };
}
