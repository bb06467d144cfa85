import { totalmem } from "node:os";
import type { ModelEntry } from "#core/contract";

/** Weights as they lie on disk, and what a forward pass needs beside them. */
const WEIGHT_FACTOR = 1.2;
/** Left to everything else on the machine. */
const MACHINE_SHARE = 0.8;
/** Less makes even one conversation fail. */
const MIN_CACHE_BYTES = 256 * 2 ** 20;

/** Bytes that a loaded model takes without its keys and values. */
export function modelBytes(entry: ModelEntry): number {
  return Math.ceil(entry.weightBytes * WEIGHT_FACTOR);
}

/** Bytes that all models may use together; also a container's limit counts. */
export function memoryLimit(configured: number): number {
  if (configured > 0) return configured;
  const constrained = process.constrainedMemory();
  const total = constrained > 0 ? Math.min(totalmem(), constrained) : totalmem();
  return Math.floor(total * MACHINE_SHARE);
}

/**
 * Bytes for the keys and values of one more engine: half of what is left, so that the next one finds room too.
 *
 * @param configured 0: decide here
 * @param freeBytes  of the limit, without all weights and the caches given out before
 */
export function cacheShare(configured: number, freeBytes: number): number {
  return configured > 0 ? configured : Math.max(MIN_CACHE_BYTES, Math.floor(freeBytes / 2));
}

/** "1.5 GB". */
export function formatBytes(bytes: number): string {
  const units = ["B", "KB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  const value = bytes / 2 ** (10 * power);
  return `${value.toFixed(value < 10 && power > 0 ? 1 : 0)} ${units[power]}`;
}
