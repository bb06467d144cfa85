/**
 * @module Settings of the server: what there is to set, where values come from, where files live.
 *
 * - The only room that reads `process.env`.
 * - One value per setting, from the first place that names it: command line, environment, settings file, default.
 * - Nothing is printed and nothing is written here; a bad value is one OmlxError "invalid_request" that names its place.
 */
export * from "./load.ts";
export * from "./paths.ts";
export * from "./schema.ts";
export * from "./variables.ts";
