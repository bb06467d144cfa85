import { Elysia } from "elysia";
import { anthropicFailure, speaksAnthropic } from "./anthropic/errors.ts";
import { messageRoutes } from "./anthropic/messages.ts";
import { authenticate, needsKey } from "./auth.ts";
import type { AppDeps } from "./deps.ts";
import { docsRoutes } from "./docs.ts";
import { errorResponse, HttpError, quote } from "./error-handler.ts";
import { healthRoutes } from "./health.ts";
import { mcpRoutes } from "./mcp/routes.ts";
import { mcpServerRoutes } from "./mcp/server.ts";
import { chatRoutes } from "./openai/chat.ts";
import { completionRoutes } from "./openai/completions.ts";
import { embeddingRoutes } from "./openai/embeddings.ts";
import { modelRoutes } from "./openai/models.ts";
import { rerankRoutes } from "./openai/rerank.ts";
import { responsesRoutes } from "./openai/responses/routes.ts";

/** The whole HTTP surface; the one place that joins routes, keys and errors. */
export function createApp(deps: AppDeps) {
  const app = new Elysia({ name: "omlx", handler: { standardHostname: false } })
    .onRequest(({ request }) => {
      try {
        admit(request, deps.apiKey);
      } catch (error) {
        return failure(error, request);
      }
      return undefined;
    })
    .onError({ as: "global" }, ({ code, error, request }) =>
      code === "NOT_FOUND" ? noRoute(request, app.routes) : failure(error, request),
    )
    .use(healthRoutes(deps))
    .use(modelRoutes(deps))
    .use(chatRoutes(deps))
    .use(responsesRoutes(deps))
    .use(messageRoutes(deps))
    .use(completionRoutes(deps))
    .use(mcpRoutes(deps))
    .use(mcpServerRoutes(deps))
    .use(embeddingRoutes(deps))
    .use(rerankRoutes(deps))
    .use(docsRoutes(deps.version));
  return app;
}

const pathOf = (request: Request): string => new URL(request.url).pathname;

/** An error in the shape that the clients of its path understand. */
const failure = (error: unknown, request: Request): Response =>
  speaksAnthropic(request) ? anthropicFailure(error) : errorResponse(error);

/** @throws {Error} if the request may not enter */
function admit(request: Request, apiKey: string): void {
  if (apiKey !== "" && needsKey(request.method, pathOf(request))) {
    authenticate(request.headers, apiKey);
  }
  refuseForeignForms(request);
}

/** A page of another site may post forms and plain text anywhere without asking; nothing of ours needs that. */
function refuseForeignForms({ method, headers }: Request): void {
  const origin = headers.get("origin");
  if (origin === null || method !== "POST") return;
  if ((headers.get("content-type") ?? "").includes("json")) return;
  if (URL.parse(origin)?.host === headers.get("host")) return;
  throw new HttpError(403, "Requests of another site must send JSON as application/json");
}

interface Route {
  readonly method: string;
  readonly path: string;
}

/** 405 if the path has other methods, else 404; OPTIONS is answered for every known path. */
function noRoute(request: Request, routes: readonly Route[]): Response {
  const path = pathOf(request);
  const allowed = methodsOf(path, routes);
  if (allowed.length > 0) {
    const headers = { allow: allowed.join(", ") };
    if (request.method === "OPTIONS") return new Response(null, { status: 204, headers });
    return failure(
      new HttpError(405, `${path} takes ${allowed.join(", ")} only`, "method_not_allowed", headers),
      request,
    );
  }
  const hint = methodsOf(`/v1${path}`, routes).length > 0 ? `; did you mean "/v1${path}"?` : "";
  const message = `No such route: ${request.method.slice(0, 20)} ${quote(path)}${hint}`;
  return failure(new HttpError(404, message, "route_not_found"), request);
}

function methodsOf(path: string, routes: readonly Route[]): string[] {
  const methods = new Set<string>();
  for (const route of routes) {
    const isMatch = route.path.endsWith("/*")
      ? path.startsWith(route.path.slice(0, -1)) && path.length >= route.path.length
      : isSamePath(route.path, path.replace(/\/$/, ""));
    if (!isMatch) continue;
    methods.add(route.method);
    if (route.method === "GET") methods.add("HEAD");
  }
  return methods.size > 0 ? [...methods, "OPTIONS"] : [];
}

/** Segments that begin with ":" stand for anything. */
function isSamePath(pattern: string, path: string): boolean {
  const wanted = pattern.split("/");
  const given = path.split("/");
  return (
    wanted.length === given.length &&
    wanted.every((segment, i) => segment === given[i] || segment.startsWith(":"))
  );
}
