import type { ChatEvent, Usage } from "#core/contract";
import { toErrorData } from "#core/contract";
import { log } from "#core/log";
import type { OpenRequests } from "./open-requests.ts";

export interface Observed {
  /** As in the answer, so that a client's report finds its line. */
  readonly id: string;
  readonly route: string;
  readonly model: string;
  readonly stream: boolean;
}

/** Passes events on, keeps the request among the open ones while it runs, and logs one line at its end. */
export async function* observe(
  events: AsyncIterable<ChatEvent>,
  request: Observed,
  open: OpenRequests,
): AsyncGenerator<ChatEvent> {
  using _ = open.enter();
  const start = performance.now();
  let firstAt: number | undefined;
  let end: { reason: string; usage: Usage } | undefined;
  let failure: unknown;
  try {
    for await (const event of events) {
      if (event.kind === "end") end = event;
      else if (event.kind !== "start") firstAt ??= performance.now();
      yield event;
    }
  } catch (error) {
    failure = error;
    throw error;
  } finally {
    const now = performance.now();
    const error = failure === undefined ? undefined : toErrorData(failure);
    const write = error && error.code !== "cancelled" ? log.warning : log.info;
    write(request.route, {
      id: request.id,
      model: request.model,
      stream: request.stream,
      end: end?.reason ?? error?.code ?? "cancelled",
      error: error && error.code !== "cancelled" ? error.message : undefined,
      prompt: end?.usage.promptTokens,
      cached: end?.usage.cachedTokens,
      tokens: end?.usage.completionTokens,
      ttft_ms: firstAt === undefined ? undefined : Math.round(firstAt - start),
      tok_s: end && speed(end.usage.completionTokens, firstAt, now),
      ms: Math.round(now - start),
    });
  }
}

/** Tokens per second after the first one. */
function speed(tokens: number, firstAt: number | undefined, now: number): number | undefined {
  if (firstAt === undefined || tokens < 2 || now <= firstAt) return undefined;
  return Math.round(((tokens - 1) / (now - firstAt)) * 10_000) / 10;
}
