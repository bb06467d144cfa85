import type { Pool } from "#front/pool";
import { encodeRows } from "./encode.ts";

export interface RerankRequest {
  /** null: the first reranker. */
  readonly model: string | null;
  readonly query: string;
  /** Not empty. */
  readonly documents: readonly string[];
  /** The request field that holds them. */
  readonly param: string;
  /** Tokens of query and document together after which documents are cut; 0: at the model's window; null: never. */
  readonly truncateAt: number | null;
  /** For models that take one; null: the model's own. */
  readonly instruction: string | null;
}

export interface RerankResult {
  readonly model: string;
  /** For each document, in the order of the request: 0 to 1. */
  readonly scores: readonly number[];
  readonly promptTokens: number;
}

/**
 * Tells how well documents answer a query.
 *
 * @param onRead called with the documents that were cut, before the model sees them
 * @throws {OmlxError} model_not_found, invalid_request, context_length, bad_output, overloaded, model_load, engine_dead, cancelled …
 */
export async function rerank(
  pool: Pool,
  request: RerankRequest,
  signal: AbortSignal,
  onRead?: (cut: readonly number[]) => void,
): Promise<RerankResult> {
  using lease = await pool.lease(request.model ?? undefined, signal, "rerank");
  const { query, documents, param, truncateAt, instruction } = request;
  const { contextWindow } = lease.engine.info;
  const { cut, ...pairs } = await lease.text.encodeTexts({
    kind: "pairs",
    query,
    documents,
    instruction,
    maxTokens: truncateAt ? Math.min(truncateAt, contextWindow) : contextWindow,
    mayCut: truncateAt !== null,
    param,
  });
  onRead?.([...cut]);
  const texts = { ...pairs, tokenOutputs: [] };
  const { rows } = await encodeRows(lease, texts, param, signal);
  return {
    model: lease.entry.id,
    scores: rows.map(([score]) => score as number),
    promptTokens: pairs.ids.length,
  };
}
