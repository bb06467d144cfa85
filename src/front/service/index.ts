/**
 * @module What the server can do, free of any protocol. Every chat-like route runs through streamChat().
 *
 * - A whole answer is a fold of the same events that a stream sends.
 * - A request holds a lease on its model from before encoding until its last event.
 */
export * from "./chat.ts";
export * from "./count-tokens.ts";
