/**
 * @module Words ⇄ token ids for one model: chat template and tokenizer on the way down, detokenizer, stop strings and
 * events on the way up. Knows no protocol and no tensor.
 *
 * - Rendering and tokenizing run in a Worker per model; one request may hold it for 10 s, then it is replaced.
 * - Detokenizing and reading run where they are called, in constant time per token.
 * - Only the chat template writes control tokens: what spells one in a client's text is encoded as text.
 * - The template writes BOS itself; none is added to its text.
 */
export { openText, setWorkerUrl, type TextModel } from "./open-text.ts";
