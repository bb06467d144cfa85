import { Elysia } from "elysia";
import { z } from "zod";
import type { AppDeps } from "./deps.ts";
import { routeDetail } from "./route-detail.ts";

type HealthDeps = Pick<AppDeps, "pool" | "apiKey" | "version" | "requests">;

const count = z.int().min(0);

const healthBody = z.object({
  status: z.enum(["healthy", "unhealthy"]),
  version: z.string(),
  auth: z.enum(["none", "key"]),
  default_model: z.string().nullable(),
  active_requests: count,
  engine_pool: z.object({
    model_count: count,
    loaded_count: count,
    final_ceiling: count.describe("Bytes that all models may use together"),
    current_model_memory: count.describe("Bytes of the loaded ones"),
  }),
  mcp: z.null(),
});
const readyBody = z.object({ status: z.enum(["ready", "not ready"]) });

const health503 = { description: "An engine stands still or starts again" };
const HEALTH_DETAIL = routeDetail({
  tag: "Health",
  summary: "Tell how the server is, with numbers",
  answer: healthBody,
  others: { 503: { ...health503, answer: healthBody } },
  isOpen: true,
});
const LIVE_DETAIL = routeDetail({
  tag: "Health",
  summary: "Tell that this process answers",
  answer: z.object({ status: z.literal("alive") }),
  isOpen: true,
});
const READY_DETAIL = routeDetail({
  tag: "Health",
  summary: "Tell whether requests can be served now",
  answer: readyBody,
  others: { 503: { ...health503, answer: readyBody } },
  isOpen: true,
});

/**
 * /health/live: this process answers. /health/ready: 503 while an engine starts again after it died or stood still, or is
 * given up. /health: the same with numbers; also open without a key, so it tells no more than that.
 */
export function healthRoutes({ pool, apiKey, version, requests }: HealthDeps) {
  const health = () => {
    const { isReady, defaultModel, models, usedBytes, limitBytes } = pool.status();
    const body = {
      status: isReady ? "healthy" : "unhealthy",
      version,
      auth: apiKey === "" ? "none" : "key",
      default_model: defaultModel,
      active_requests: requests.size,
      engine_pool: {
        model_count: models.length,
        loaded_count: models.filter(({ pid }) => pid > 0).length,
        final_ceiling: limitBytes,
        current_model_memory: usedBytes,
      },
      mcp: null,
    };
    return Response.json(body, { status: isReady ? 200 : 503 });
  };
  const ready = () => {
    const { isReady } = pool.status();
    const status = isReady ? "ready" : "not ready";
    return Response.json({ status }, { status: isReady ? 200 : 503 });
  };
  return new Elysia({ name: "health" })
    .get("/health", health, { detail: HEALTH_DETAIL })
    .get("/health/live", () => Response.json({ status: "alive" }), { detail: LIVE_DETAIL })
    .get("/health/ready", ready, { detail: READY_DETAIL });
}
