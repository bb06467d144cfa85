/**
 * @module The nouns that cross rooms and the process border. Imports nothing.
 *
 * ChatRequest → TokenRequest → TokenEvent → ChatEvent; both floors meet in wire.ts only.
 */
export * from "./architectures.ts";
export * from "./chat.ts";
export * from "./encode.ts";
export * from "./errors.ts";
export * from "./event.ts";
export * from "./model.ts";
export * from "./sampling.ts";
export * from "./tokens.ts";
export * from "./wire.ts";
