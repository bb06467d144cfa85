import { Elysia } from "elysia";
import { invalidRequest } from "#core/contract";
import { type RerankResult, rerank } from "#front/service";
import { readJson } from "../body.ts";
import type { AppDeps, Server } from "../deps.ts";
import { routeDetail } from "../route-detail.ts";
import { validate } from "../validate.ts";
import { answerEncoded } from "./encode-answer.ts";
import { rerankAnswer, rerankBody, scoreAnswer, scoreBody } from "./encode-schemas.ts";
import { decodeRerank, encodeRerank } from "./rerank-codec.ts";

const RERANK = routeDetail({
  tag: "Embeddings",
  summary: "Order documents by how well they answer a query",
  description:
    "Jina's and Cohere's rerank in one. Documents that are too long are cut, and named in `meta.warnings`; `truncate: false` refuses them.",
  body: rerankBody,
  answer: rerankAnswer,
});

const SCORE = routeDetail({
  tag: "Embeddings",
  summary: "Score texts against one text",
  description: "vLLM's score: as rerank, in the order of the request.",
  body: scoreBody,
  answer: scoreAnswer,
});

/** POST /v1/rerank (Jina, Cohere v1), /v2/rerank (Cohere v2), /v1/score (vLLM). */
export function rerankRoutes(deps: AppDeps) {
  type Context = { request: Request; server: Server | null };
  // Cohere's second version gives no documents back, Jina does
  const ranked =
    (version: string, returnsDocuments: boolean) =>
    ({ request, server }: Context) =>
      answerRerank(request, server, deps, version, returnsDocuments);
  return new Elysia({ name: "rerank" })
    .post("/v1/rerank", ranked("1", true), { parse: "none", detail: RERANK })
    .post("/v2/rerank", ranked("2", false), { parse: "none", detail: RERANK })
    .post("/v1/score", ({ request, server }) => answerScore(request, server, deps), {
      parse: "none",
      detail: SCORE,
    });
}

async function read(request: Request, server: Server | null, deps: AppDeps): Promise<unknown> {
  const body = await readJson(request, deps.bodyLimit);
  server?.timeout(request, 0); // only now: an unfinished body must still time out
  return body;
}

async function answerRerank(
  request: Request,
  server: Server | null,
  deps: AppDeps,
  version: string,
  returnsDocuments: boolean,
): Promise<Response> {
  const body = validate(rerankBody, await read(request, server, deps));
  const decoded = decodeRerank(body, returnsDocuments);
  const id = `rerank-${crypto.randomUUID()}`;
  const { model } = decoded.request;
  return await answerEncoded<RerankResult>(request, deps, {
    id,
    route: "rerank",
    ignored: decoded.ignored,
    param: "documents",
    work: (signal, onRead) => rerank(deps.pool, decoded.request, signal, onRead),
    write: (result, warnings) =>
      JSON.stringify(
        encodeRerank(id, version, decoded, { ...result, model: model ?? result.model }, warnings),
      ),
  });
}

async function answerScore(
  request: Request,
  server: Server | null,
  deps: AppDeps,
): Promise<Response> {
  const body = validate(scoreBody, await read(request, server, deps));
  const [query] = [body.text_1].flat();
  if (query === undefined) throw invalidRequest("must not be empty", "text_1");
  const id = `score-${crypto.randomUUID()}`;
  const limit = body.truncate_prompt_tokens ?? null;
  const write = (
    { model, scores, promptTokens }: RerankResult,
    warnings: readonly string[],
  ): string =>
    JSON.stringify({
      id,
      object: "list",
      created: Math.floor(Date.now() / 1000),
      model: body.model || model,
      data: scores.map((score, index) => ({ index, object: "score", score })),
      usage: { prompt_tokens: promptTokens, total_tokens: promptTokens },
      ...(warnings.length > 0 ? { warnings } : {}),
    });
  return await answerEncoded<RerankResult>(request, deps, {
    id,
    route: "score",
    ignored: Object.keys(body).filter((name) => !Object.hasOwn(scoreBody.shape, name)),
    param: "text_2",
    work: (signal, onRead) =>
      rerank(
        deps.pool,
        {
          model: body.model || null,
          query,
          documents: [body.text_2].flat(),
          param: "text_2",
          truncateAt: limit === null ? null : Math.max(0, limit),
          instruction: null,
        },
        signal,
        onRead,
      ),
    write,
  });
}
