const MAX_NAMES = 20;

/** Names what of a request was ignored, so that a typing error does not stay silent. */
export function warningHeader(ignored: readonly string[]): Record<string, string> {
  if (ignored.length === 0) return {};
  const names = ignored.slice(0, MAX_NAMES).map(headerSafe);
  const rest = ignored.length - names.length;
  const more = rest > 0 ? ` and ${rest} more` : "";
  return { "x-omlx-warnings": `ignored: ${names.join(", ")}${more}` };
}

/** A client's own name for a field may hold anything; a header may not. */
const headerSafe = (name: string): string =>
  name.slice(0, 80).replace(/[^\x21-\x2b\x2d-\x7e]/g, "?");
