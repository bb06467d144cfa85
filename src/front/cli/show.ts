import { invalidRequest } from "#core/contract";
import { describeModel, formatBytes, modelNotFound } from "#front/pool";
import type { CliContext } from "./commands.ts";
import { openPool } from "./open.ts";

/** `omlx show MODEL`: what is known of a model without loading it. Exit code 1 if it cannot be served. */
export async function show(args: readonly string[], context: CliContext): Promise<number> {
  const { pool, words } = await openPool(args, context, "warning");
  const [name, extra] = words;
  if (name === undefined) throw invalidRequest("Which model? omlx show MODEL");
  if (extra !== undefined) throw invalidRequest(`Unknown argument ${JSON.stringify(extra)}`);
  const entry = pool.find(name);
  if (entry === undefined) throw modelNotFound(name, pool.list());
  const rows: (readonly [string, string])[] = [
    ["model", entry.id],
    ["path", entry.path],
    ["kind", entry.kind],
  ];
  if (entry.modelType !== "") rows.push(["type", entry.modelType]);
  if (entry.contextWindow > 0) rows.push(["context", `${entry.contextWindow} tokens`]);
  if (entry.weightBytes > 0) rows.push(["weights", formatBytes(entry.weightBytes)]);
  if (entry.problem === undefined) rows.push(...describeModel(entry));
  else rows.push(["problem", entry.problem]);
  const width = Math.max(...rows.map(([label]) => label.length));
  for (const [label, text] of rows) process.stdout.write(`${label.padEnd(width)}  ${text}\n`);
  return entry.problem === undefined ? 0 : 1;
}
