import type { AppDeps } from "../deps.ts";

/** What all parts of one answer share. */
export interface AnswerHead {
  readonly id: string;
  /** Seconds since 1970. */
  readonly created: number;
  /** As the client wrote it. */
  readonly model: string;
  readonly fingerprint: string;
}

/** The head of a new answer; where the client named no model, the one that answers by default. */
export function newHead(
  prefix: "chatcmpl" | "cmpl",
  model: string,
  { pool, version }: Pick<AppDeps, "pool" | "version">,
): AnswerHead {
  return {
    id: `${prefix}-${crypto.randomUUID().replaceAll("-", "")}`,
    created: Math.floor(Date.now() / 1000),
    model: model || (pool.status().defaultModel ?? ""),
    fingerprint: `fp_${Bun.hash(version).toString(16).slice(0, 12)}`,
  };
}
