/** Prompts of a wanted length that no cache has seen. */

/** Each is one token with a blank before it in the vocabularies that are measured. */
const WORDS =
  `time people year way day man thing woman life child world school state family student group country
problem hand part place case week company system program question work government number night point home water room
mother area money story fact month lot right study book eye job word business issue side kind head house service friend
father power hour game line end member law car city community name president team minute idea body information back
parent face others level office door health person art war history party result change morning reason research girl guy
moment air teacher force education`
    .split(/\s+/)
    .filter(Boolean);

/** Tokens that the chat template and the system message add to the user's words. */
const FRAME = 22;
const SYSTEM_WORDS = 8;

export interface Message {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

/**
 * A conversation of about `numTokens` tokens with the template. The system message differs too, so that not even the
 * template's beginning is found in a cache. The same seed gives the same conversation.
 */
export function conversation(seed: string, numTokens: number): Message[] {
  const next = generator(seed);
  return [
    { role: "system", content: words(next, SYSTEM_WORDS) },
    { role: "user", content: words(next, Math.max(1, numTokens - FRAME)) },
  ];
}

export function words(next: () => number, count: number): string {
  return Array.from({ length: count }, () => WORDS[next() % WORDS.length] ?? "").join(" ");
}

/** Numbers below 2^32; splitmix32 (a Weyl sequence through a mixing function). */
export function generator(seed: string): () => number {
  let state = Number(BigInt.asUintN(32, BigInt(Bun.hash(seed))));
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let mixed = state;
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return (mixed ^ (mixed >>> 15)) >>> 0;
  };
}
