/** @module Domain-free helpers that at least two rooms import. */
export * from "./async-queue.ts";
export * from "./deferred.ts";
