import { invalidRequest } from "#core/contract";
import { formatBytes } from "#front/pool";
import type { CliContext } from "./commands.ts";
import { type OwnFlag, openPool, takeFlags } from "./open.ts";

export const LIST_FLAGS: readonly OwnFlag[] = [
  { flag: "--json", value: "", doc: "Print JSON: a list of objects." },
];

/** `omlx list`: what is on disk, one line each; what cannot be served with its reason. */
export async function list(args: readonly string[], context: CliContext): Promise<number> {
  const { taken, rest } = takeFlags(args, LIST_FLAGS);
  const { pool, settings, words } = await openPool(rest, context, "warning");
  if (words.length > 0) {
    throw invalidRequest(`Unknown argument ${JSON.stringify(words[0])}: list takes flags only`);
  }
  const entries = pool.list();
  const { defaultModel } = pool.status();
  if (taken.has("--json")) {
    const models = entries.map((entry) => ({
      id: entry.id,
      kind: entry.kind,
      model_type: entry.modelType,
      weight_bytes: entry.weightBytes,
      context_window: entry.contextWindow,
      path: entry.path,
      is_default: entry.id === defaultModel,
      problem: entry.problem ?? null,
    }));
    process.stdout.write(`${JSON.stringify(models, null, 2)}\n`);
    return 0;
  }
  if (entries.length === 0) {
    process.stdout.write(`No models: put one into ${settings.modelDir.join(" or ")}\n`);
    return 0;
  }
  const rows = entries.map((entry) => [
    entry.id === defaultModel ? `${entry.id} *` : entry.id,
    entry.kind,
    entry.modelType || "-",
    entry.weightBytes > 0 ? formatBytes(entry.weightBytes) : "-",
    entry.contextWindow > 0 ? String(entry.contextWindow) : "-",
    entry.problem === undefined ? "" : `cannot be served: ${entry.problem}`,
  ]);
  process.stdout.write(table([["MODEL", "KIND", "TYPE", "SIZE", "CONTEXT", ""], ...rows]));
  return 0;
}

function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, c) => Math.max(...rows.map((row) => row[c]?.length ?? 0)));
  return rows
    .map((row) => row.map((cell, c) => cell.padEnd(widths[c] ?? 0)).join("  "))
    .map((line) => `${line.trimEnd()}\n`)
    .join("");
}
