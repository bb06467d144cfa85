import type { ChatRequest } from "#core/contract";
import type { Pool } from "#front/pool";

/**
 * How many tokens the prompt of a conversation has: the same number that an answer to it then counts, whether or not the
 * window has room for it.
 *
 * @throws {OmlxError} model_not_found, invalid_request, model_load, cancelled …
 */
export async function countTokens(
  pool: Pool,
  request: ChatRequest,
  signal: AbortSignal,
): Promise<number> {
  using lease = await pool.lease(request.model, signal);
  return await lease.text.countTokens(request);
}
