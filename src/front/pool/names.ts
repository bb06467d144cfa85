import { type ModelEntry, OmlxError } from "#core/contract";

/** Agents mark a name with the window they hope for: "sonnet[1m]". */
const WINDOW_MARK = /\[\d+[km]\]$/i;

/** A name as a client wrote it, then without what clients put around it. */
function spellingsOf(name: string): readonly string[] {
  const bare = name.replace(WINDOW_MARK, "");
  const spellings = [name, bare].flatMap((spelling) => {
    const slash = spelling.indexOf("/");
    return slash < 0 ? [spelling] : [spelling, spelling.slice(slash + 1)];
  });
  return [...new Set(spellings)];
}

/**
 * The entry that a client's name means: the exact id, the id in another case, the same without the text before the first
 * "/" ("omlx/qwen3") and without a window mark ("qwen3[1m]"), and last the folder's own name where only one group has it.
 *
 * Compares strings and does nothing else.
 */
export function findByName(name: string, entries: readonly ModelEntry[]): ModelEntry | undefined {
  const spellings = spellingsOf(name);
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

/** A model that could answer for another one. */
export interface StandIn {
  readonly entry: ModelEntry;
  readonly isLoaded: boolean;
  /** Of its last use; the clock does not matter. */
  readonly lastUsed: number;
}

/**
 * The model that answers where a name means none: the default model, but another one rather than a second load while that
 * is in memory already.
 */
export function standIn(
  candidates: readonly StandIn[],
  defaultEntry: ModelEntry | undefined,
): ModelEntry | undefined {
  const loaded = candidates
    .filter(({ entry, isLoaded }) => isLoaded && /^(?:llm|vlm)$/.test(entry.kind))
    .sort((a, b) => b.lastUsed - a.lastUsed)
    .map(({ entry }) => entry);
  if (defaultEntry !== undefined && loaded.includes(defaultEntry)) return defaultEntry;
  return loaded[0] ?? defaultEntry;
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
