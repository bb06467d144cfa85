import { z } from "zod";
import type { McpWishes } from "#core/contract";
import { integer } from "../fields.ts";

/** The `mcp` field of every route that answers conversations. */
export const mcpField = z
  .looseObject({
    expose: z.boolean().nullish(),
    auto_execute: z.boolean().nullish(),
    servers: z.array(z.string()).nullish(),
    max_rounds: integer(1).nullish(),
  })
  .nullish();

/** undefined: the request says nothing. Whoever asks for calls to be run wants the tools, too. */
export function decodeWishes(field: z.output<typeof mcpField>): McpWishes | undefined {
  if (field == null) return undefined;
  return {
    expose: field.expose ?? (field.auto_execute ? true : undefined),
    autoExecute: field.auto_execute ?? undefined,
    servers: field.servers ?? undefined,
    maxRounds: field.max_rounds ?? undefined,
  };
}
