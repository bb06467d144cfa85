/** @module Log lines for people or machines, written to standard error. */
export * from "./log.ts";
