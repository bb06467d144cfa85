import { Elysia } from "elysia";
import { z } from "zod";
import { type ModelEntry, OmlxError } from "#core/contract";
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
  description: "What cannot be served is listed with its `problem`.",
  answer: modelList,
});

/** Of GET /v1/models/{id}. */
export const MODEL_DETAIL = routeDetail({
  tag: "Models",
  summary: "Look one model up",
  path: { id: z.string().describe('As in the list; may hold a slash ("group/name")') },
  answer: model,
});

/** GET /v1/models and /v1/models/{id}; an id may hold slashes, escaped or not. */
export function modelRoutes({ pool }: Pick<AppDeps, "pool">) {
  const list = ({ request }: { request: Request }) => {
    const entries = pool.list();
    const served = entries.filter(({ kind, problem }) => kind === "llm" && problem === undefined);
    return Response.json({
      object: "list",
      data: entries.map(encodeModel),
      // strict clients take no field that OpenAI's list does not have
      ...(isCodex(request) ? { models: served.map(encodeForCodex) } : {}),
    });
  };
  const one = ({ params }: { params: { "*": string } }) => {
    const id = decodeId(params["*"]);
    const entry = id === undefined ? undefined : pool.find(id);
    if (!entry) throw unknownModel(id ?? params["*"], pool.list());
    return Response.json(encodeModel(entry));
  };
  return new Elysia({ name: "models" })
    .get("/v1/models", list, { detail: LIST_DETAIL })
    .get("/v1/models/*", one)
    .get("/models", list, { detail: { hide: true } });
}

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
