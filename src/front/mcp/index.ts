/**
 * @module Tools of MCP servers: connects to the servers of a configuration file and keeps them connected.
 *
 * - Servers start side by side and never delay or end this program; what is wrong with one is told in its status.
 * - Calls take bounded time and give bounded results; a tool's failure is a result, not an exception.
 * - The configuration is read from disk only: it names commands to run.
 */
export * from "./config.ts";
export * from "./manager.ts";
export { type McpResult, textOfResult } from "./result.ts";
