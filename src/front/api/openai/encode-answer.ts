import { toErrorData } from "#core/contract";
import { log } from "#core/log";
import type { AppDeps } from "../deps.ts";
import { endingOf } from "../disconnect.ts";
import { openaiError } from "../error-handler.ts";
import { respondWhole } from "../respond.ts";
import { Warnings } from "../warnings.ts";

interface EncodeResult {
  readonly model: string;
  readonly promptTokens: number;
}

interface EncodeTask<R extends EncodeResult> {
  readonly id: string;
  readonly route: string;
  /** Fields that changed nothing. */
  readonly ignored: readonly string[];
  /** The request field that holds the texts. */
  readonly param: string;
  /** Calls `onRead` with the texts that it cut, as soon as it knows them. */
  readonly work: (signal: AbortSignal, onRead: (cut: readonly number[]) => void) => Promise<R>;
  /** The answer's JSON text, with warnings that its headers may have left too early for. */
  readonly write: (result: R, warnings: readonly string[]) => string | Promise<string>;
}

/** Answers a request that an encoder serves: whole, with signs of life, and a line in the log. */
export async function answerEncoded<R extends EncodeResult>(
  request: Request,
  deps: AppDeps,
  task: EncodeTask<R>,
): Promise<Response> {
  const { signal, abort } = endingOf(request, deps.shutdown);
  let result: R | undefined;
  let cut: readonly number[] = [];
  const json = (async () => {
    using _ = deps.requests.enter();
    const begun = performance.now();
    let failure: unknown;
    try {
      result = await task.work(signal, (indices) => {
        cut = indices;
      });
      return await task.write(result, cutWarning(task.param, cut));
    } catch (error) {
      failure = error;
      throw error;
    } finally {
      const error = failure === undefined ? undefined : toErrorData(failure);
      const write = error && error.code !== "cancelled" ? log.warning : log.info;
      write(task.route, {
        id: task.id,
        model: result?.model,
        end: error?.code ?? "done",
        error: error && error.code !== "cancelled" ? error.message : undefined,
        prompt: result?.promptTokens,
        ms: Math.round(performance.now() - begun),
      });
    }
  })();
  return respondWhole(json, openaiError, {
    keepAliveMs: deps.keepAliveMs,
    signal,
    abort,
    headers: () => ({
      "x-request-id": task.id,
      ...new Warnings(task.ignored, cutWarning(task.param, cut)).headers(),
    }),
  });
}

/** Names texts that were cut, so that it does not happen silently. */
function cutWarning(param: string, cut: readonly number[]): string[] {
  if (cut.length === 0) return [];
  const names = cut.slice(0, 10).map((index) => `${param}[${index}]`);
  const more = cut.length > names.length ? ` and ${cut.length - names.length} more` : "";
  return [`truncated: ${names.join(", ")}${more}`];
}
