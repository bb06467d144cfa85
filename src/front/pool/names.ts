import { type ModelEntry, OmlxError } from "#core/contract";

/**
 * The entry that a client's name means: the exact id, the id in another case, the same without the text before the first
 * "/" ("omlx/qwen3"), and last the folder's own name where only one group has it.
 *
 * Compares strings and does nothing else.
 */
export function findByName(name: string, entries: readonly ModelEntry[]): ModelEntry | undefined {
  const slash = name.indexOf("/");
  const spellings = slash < 0 ? [name] : [name, name.slice(slash + 1)];
  for (const spelling of spellings) {
    const lower = spelling.toLowerCase();
    const found =
      entries.find((entry) => entry.id === spelling) ??
      entries.find((entry) => entry.id.toLowerCase() === lower);
    if (found) return found;
  }
  for (const spelling of spellings) {
    const lower = `/${spelling.toLowerCase()}`;
    const found = entries.filter((entry) => entry.id.toLowerCase().endsWith(lower));
    if (spelling !== "" && found.length === 1) return found[0];
  }
  return undefined;
}

/** Names what was asked for, cut to a sane length, and what there is. */
export function modelNotFound(name: string, entries: readonly ModelEntry[]): OmlxError {
  const shown = name.length > 100 ? `${name.slice(0, 100)}…` : name;
  const known = entries.filter((entry) => entry.problem === undefined).map((entry) => entry.id);
  return new OmlxError({
    code: "model_not_found",
    message: `Model ${JSON.stringify(shown)} not found. Available models: ${known.join(", ") || "(none)"}`,
    param: "model",
  });
}
