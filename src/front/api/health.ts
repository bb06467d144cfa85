import { Elysia } from "elysia";
import type { AppDeps } from "./deps.ts";

type HealthDeps = Pick<AppDeps, "pool" | "apiKey" | "version" | "requests">;

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
    .get("/health", health)
    .get("/health/live", () => Response.json({ status: "alive" }))
    .get("/health/ready", ready);
}
