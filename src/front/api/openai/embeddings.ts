import { Elysia } from "elysia";
import { type EmbedResult, embed } from "#front/service";
import { readJson } from "../body.ts";
import type { AppDeps, Server } from "../deps.ts";
import { routeDetail } from "../route-detail.ts";
import { validate } from "../validate.ts";
import { decodeEmbedding, encodeEmbeddings } from "./embedding-codec.ts";
import { answerEncoded } from "./encode-answer.ts";
import { embeddingAnswer, embeddingBody } from "./encode-schemas.ts";

const DETAIL = routeDetail({
  tag: "Embeddings",
  summary: "Turn texts into vectors",
  description:
    "OpenAI's embeddings. A text that is longer than the model's window is an error unless `truncate` is true. `return_sparse` and `return_colbert_vecs` add what BGE-M3 knows of single tokens.",
  body: embeddingBody,
  answer: embeddingAnswer,
});

/** POST /v1/embeddings. */
export function embeddingRoutes(deps: AppDeps) {
  return new Elysia({ name: "embeddings" }).post(
    "/v1/embeddings",
    ({ request, server }) => answer(request, server, deps),
    { parse: "none", detail: DETAIL },
  );
}

async function answer(request: Request, server: Server | null, deps: AppDeps): Promise<Response> {
  const body = await readJson(request, deps.bodyLimit);
  server?.timeout(request, 0); // only now: an unfinished body must still time out
  const decoded = decodeEmbedding(validate(embeddingBody, body));
  const model = decoded.request.model;
  return await answerEncoded<EmbedResult>(request, deps, {
    id: `embd-${crypto.randomUUID().replaceAll("-", "")}`,
    route: "embeddings",
    ignored: decoded.ignored,
    param: decoded.request.param,
    work: (signal, onRead) => embed(deps.pool, decoded.request, signal, onRead),
    write: (result, warnings) =>
      encodeEmbeddings({ ...result, model: model ?? result.model }, decoded.format, warnings),
  });
}
