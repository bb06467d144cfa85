/** Begins the signature of thoughts that are not shown; the rest is the thoughts, in base64url. */
const HIDDEN = "omlx1.";
/** Begins the signature of thoughts that are shown; the rest tells one text from another. */
const SHOWN = "omlx0.";

/**
 * What a client keeps beside a thinking block and sends back with it. Thoughts that the client did not want to see travel
 * in it, so that the conversation still holds them when it comes back.
 */
export function signThoughts(thoughts: string, isHidden: boolean): string {
  if (!isHidden) return SHOWN + Bun.hash(thoughts).toString(16);
  return HIDDEN + Buffer.from(thoughts).toString("base64url");
}

/** The thoughts of a block as it came back; "": they are not known here. */
export function thoughtsOf(thinking: unknown, signature: unknown): string {
  if (typeof thinking === "string" && thinking !== "") return thinking;
  if (typeof signature !== "string" || !signature.startsWith(HIDDEN)) return "";
  return Buffer.from(signature.slice(HIDDEN.length), "base64url").toString();
}
