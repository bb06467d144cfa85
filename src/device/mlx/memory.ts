import { nativeError } from "./error.ts";
import { native } from "./library.ts";

function bytesOf(op: string, value: number): number {
  if (value < 0) throw nativeError(op);
  return value;
}

/** Bytes that arrays use now. File mappings and kernel pools are not counted. */
export function active(): number {
  return bytesOf("memory.active", native().omlx_memory(0));
}

/** Largest `active` since the last `resetPeak`. */
export function peak(): number {
  return bytesOf("memory.peak", native().omlx_memory(1));
}

/** Freed bytes that MLX keeps for reuse. */
export function cached(): number {
  return bytesOf("memory.cached", native().omlx_memory(2));
}

export function resetPeak(): void {
  if (native().omlx_reset_peak() !== 0) throw nativeError("memory.resetPeak");
}

/** Gives the freed bytes back to the system. */
export function clearCache(): void {
  if (native().omlx_clear_cache() !== 0) throw nativeError("memory.clearCache");
}

/** Most bytes that `cached` may reach. Returns the limit before. */
export function setCacheLimit(bytes: number): number {
  return bytesOf("memory.setCacheLimit", native().omlx_set_cache_limit(bytes));
}
