import type { MxArray } from "./array.ts";
import { native } from "./library.ts";
import * as scratch from "./scratch.ts";

/** Arrays made since the innermost scope began; null outside of scopes. */
let current: MxArray[] | null = null;

/** Puts a new array into the innermost scope. */
export function register(array: MxArray): void {
  if (current !== null) current.push(array);
}

/**
 * Runs fn and frees every array made inside that was not kept or handed up, also when fn throws. Scopes nest; fn must be
 * synchronous. The result is passed through untouched: an array in it must be kept or handed up to stay alive.
 */
export function scope<T>(fn: () => T): T {
  const outer = current;
  const mine: MxArray[] = [];
  current = mine;
  try {
    const result = fn();
    if (result instanceof Promise) throw new TypeError("scope: fn must be synchronous");
    return result;
  } finally {
    current = outer;
    freeList(mine);
  }
}

/** Takes an array out of every scope: the caller owns it from now on and frees it. Returns it. */
export function keep<T extends MxArray>(array: T): T {
  array.kept = true;
  return array;
}

/** Hands an array to the scope around the current one (outside of any: to the caller). Returns it. */
export function handUp<T extends MxArray>(array: T): T {
  escaping.add(array);
  return array;
}

const escaping = new Set<MxArray>();

/** Frees an array now. Freeing before evaluation is allowed: what was built from it stays valid. */
export function free(array: MxArray): void {
  const handle = array.ptr;
  if (handle === 0) return;
  array.ptr = 0;
  native().omlx_free(handle);
}

/** Native arrays that somebody still holds. */
export function liveArrays(): number {
  return native().omlx_live_arrays();
}

function freeList(arrays: readonly MxArray[]): void {
  if (arrays.length === 0) return;
  scratch.reserveHandles(arrays.length);
  const handles = scratch.handles;
  let count = 0;
  for (const array of arrays) {
    if (array.ptr === 0 || array.kept) continue;
    if (escaping.size > 0 && escaping.delete(array)) {
      register(array);
      continue;
    }
    handles[count++] = array.ptr;
    array.ptr = 0;
  }
  if (count > 0) native().omlx_free_many(scratch.handlesPtr, count);
}
