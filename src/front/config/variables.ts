import { invalidRequest } from "#core/contract";
import type { Env } from "./paths.ts";

const VARIABLE = /\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}/g;

/**
 * Replaces `${NAME}`, `${env:NAME}` and `${NAME:-default}` by variables of the environment.
 *
 * @throws {OmlxError} invalid_request naming a variable that is not set and has no default
 */
export function expandVariables(text: string, env: Env = process.env): string {
  return text.replace(VARIABLE, (_, name: string, fallback: string | undefined) => {
    const value = env[name];
    if (value !== undefined && (value !== "" || fallback === undefined)) return value;
    if (fallback !== undefined) return fallback;
    throw invalidRequest(`environment variable ${name} is not set`);
  });
}
