/**
 * @module What the server can do, free of any protocol. Every answer runs through continuePrompt().
 *
 * - A whole answer is a fold of the same events that a stream sends.
 * - A request holds a lease on its model from before encoding until its last event.
 */
export * from "./chat.ts";
export {
  type ChoiceEvent,
  type ChoicesResult,
  collectChoices,
  streamChoices,
  totalUsage,
} from "./choices.ts";
export * from "./complete.ts";
export * from "./count-tokens.ts";
export * from "./embed.ts";
export * from "./rerank.ts";
export * from "./tool-loop.ts";
