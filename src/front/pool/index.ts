/**
 * @module Which models there are, and which are loaded: leases on engines, made on demand and given back when idle.
 *
 * - A client's model name is only ever looked up among what was found on disk; no path is made from it.
 * - A leased model is never unloaded. Several models are loaded side by side as far as memory allows; for a new one the
 *   idle ones that were used longest ago go first.
 * - One load per model at a time; a load that failed is not tried again for some seconds, unless its folder changes.
 */
export { describeModel } from "./details.ts";
export { formatBytes } from "./memory.ts";
export { modelNotFound } from "./names.ts";
export type { Lease, Pool } from "./pool.ts";
export { createPool } from "./pool.ts";
