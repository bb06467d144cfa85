/**
 * @module Holds generated texts to grammars, over XGrammar: JSON schemas, patterns, GBNF and structural tags.
 *
 * - A grammar is read into our own form (ir.ts), written for XGrammar, and compiled in a Worker.
 * - Counts and lengths that are dear for XGrammar are left out of its form; a counter over the bytes holds them.
 * - The Worker that owns a grammar follows the texts in it and writes masks of allowed tokens into shared memory, while
 *   the engine's thread computes the next logits.
 * - What cannot be enforced is an error or told; no text is silently free.
 */
export { setGrammarWorkerUrl } from "./grammar-worker.ts";
export { Grammars } from "./grammars.ts";
export type { Allowed, Matcher } from "./matcher.ts";
