import type { ChatEvent, Usage } from "#core/contract";
import { toErrorData } from "#core/contract";
import { log } from "#core/log";
import { totalUsage } from "#front/service";
import type { OpenRequests } from "./open-requests.ts";

export interface Observed {
  /** As in the answer, so that a client's report finds its line. */
  readonly id: string;
  readonly route: string;
  readonly model: string;
  readonly stream: boolean;
  /** Choices that share a prompt, which is counted once; 1 if not given. */
  readonly perPrompt?: number;
}

/** Passes events on, keeps the request among the open ones while it runs, and logs one line at its end. */
export async function* observe<E extends ChatEvent & { readonly choice?: number }>(
  events: AsyncIterable<E>,
  request: Observed,
  open: OpenRequests,
): AsyncGenerator<E> {
  using _ = open.enter();
  const start = performance.now();
  let firstAt: number | undefined;
  let reason: string | undefined;
  const usages: Usage[] = [];
  let failure: unknown;
  try {
    for await (const event of events) {
      if (event.kind === "end") {
        reason = event.reason;
        usages[event.choice ?? 0] = event.usage;
      } else if (event.kind !== "start") firstAt ??= performance.now();
      yield event;
    }
  } catch (error) {
    failure = error;
    throw error;
  } finally {
    const now = performance.now();
    const error = failure === undefined ? undefined : toErrorData(failure);
    const usage =
      reason === undefined ? undefined : totalUsage(Object.values(usages), request.perPrompt ?? 1);
    const write = error && error.code !== "cancelled" ? log.warning : log.info;
    write(request.route, {
      id: request.id,
      model: request.model,
      stream: request.stream,
      choices: usages.length > 1 ? usages.length : undefined,
      end: error?.code ?? reason ?? "cancelled",
      error: error && error.code !== "cancelled" ? error.message : undefined,
      prompt: usage?.promptTokens,
      cached: usage?.cachedTokens,
      tokens: usage?.completionTokens,
      ttft_ms: firstAt === undefined ? undefined : Math.round(firstAt - start),
      tok_s: usage && speed(usage.completionTokens, firstAt, now),
      ms: Math.round(now - start),
    });
  }
}

/** Tokens per second after the first one. */
function speed(tokens: number, firstAt: number | undefined, now: number): number | undefined {
  if (firstAt === undefined || tokens < 2 || now <= firstAt) return undefined;
  return Math.round(((tokens - 1) / (now - firstAt)) * 10_000) / 10;
}
