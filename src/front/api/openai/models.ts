import { Elysia } from "elysia";
import { z } from "zod";
import { type ModelEntry, OmlxError } from "#core/contract";
import { modelInfo, modelPage } from "../anthropic/answers.ts";
import { newIds, speaksAnthropic } from "../anthropic/errors.ts";
import { canAnswer, encodeModelInfo, encodeModelPage } from "../anthropic/models-codec.ts";
import type { AppDeps } from "../deps.ts";
import { quote } from "../error-handler.ts";
import { routeDetail } from "../route-detail.ts";
import { model, modelList } from "./answers.ts";
import { encodeForCodex, isCodex } from "./codex-catalog.ts";

/** OpenAI's model object, plus what a client needs to plan its prompts. */
const encodeModel = (entry: ModelEntry) => ({
  id: entry.id,
  object: "model" as const,
  created: Math.floor(entry.created),
  owned_by: "omlx",
  kind: entry.kind,
  max_model_len: entry.contextWindow > 0 ? entry.contextWindow : null,
  ...(entry.problem === undefined ? {} : { problem: entry.problem }),
});

const LIST_DETAIL = routeDetail({
  tag: "Models",
  summary: "List the models on disk",
  description:
    "What cannot be served is listed with its `problem`. Clients that send `anthropic-version` get Anthropic's pages of the models that can answer.",
  query: {
    limit: z.int().min(1).max(1000).optional().describe("Anthropic's pages only"),
    after_id: z.string().optional().describe("Anthropic's pages only"),
    before_id: z.string().optional().describe("Anthropic's pages only"),
  },
  answer: z.union([modelList, modelPage]),
});

/** Of GET /v1/models/{id}. */
export const MODEL_DETAIL = routeDetail({
  tag: "Models",
  summary: "Look one model up",
  path: { id: z.string().describe('As in the list; may hold a slash ("group/name")') },
  answer: z.union([model, modelInfo]),
});

/** GET /v1/models and /v1/models/{id}, in the shape of the client's vendor; an id may hold slashes, escaped or not. */
export function modelRoutes({ pool }: Pick<AppDeps, "pool">) {
  const list = ({ request }: { request: Request }) => {
    const entries = pool.list();
    if (speaksAnthropic(request)) {
      return answerAnthropic(encodeModelPage(entries, new URL(request.url).searchParams));
    }
    const served = entries.filter(({ kind, problem }) => kind === "llm" && problem === undefined);
    return Response.json({
      object: "list",
      data: entries.map(encodeModel),
      // strict clients take no field that OpenAI's list does not have
      ...(isCodex(request) ? { models: served.map(encodeForCodex) } : {}),
    });
  };
  const one = ({ params, request }: { params: { "*": string }; request: Request }) => {
    const id = decodeId(params["*"]);
    const entry = id === undefined ? undefined : pool.find(id);
    const isAnthropic = speaksAnthropic(request);
    if (!entry || (isAnthropic && !canAnswer(entry))) {
      throw unknownModel(id ?? params["*"], pool.list());
    }
    return isAnthropic
      ? answerAnthropic(encodeModelInfo(entry))
      : Response.json(encodeModel(entry));
  };
  return new Elysia({ name: "models" })
    .get("/v1/models", list, { detail: LIST_DETAIL })
    .get("/v1/models/*", one)
    .get("/models", list, { detail: { hide: true } });
}

const answerAnthropic = (body: unknown): Response =>
  Response.json(body, { headers: { "request-id": newIds().requestId } });

function decodeId(text: string): string | undefined {
  try {
    return decodeURIComponent(text).replace(/\/$/, "");
  } catch {
    return undefined;
  }
}

function unknownModel(id: string, entries: readonly ModelEntry[]): OmlxError {
  const names = entries.map((entry) => entry.id).join(", ") || "(none)";
  return new OmlxError({
    code: "model_not_found",
    message: `Model ${quote(id)} not found. Available models: ${names}`,
    param: "model",
  });
}
