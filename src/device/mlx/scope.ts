import type { MxArray } from "./array.ts";
import { native } from "./library.ts";
import * as scratch from "./scratch.ts";

/** Arrays that are freed together. */
export interface Scope {
  readonly outer: Scope | null;
  readonly arrays: MxArray[];
}

/** The innermost scope. All of them are entered and left on one thread, synchronously. */
let current: Scope | null = null;

/** Puts a new array into the innermost scope. */
export function register(array: MxArray): void {
  if (current === null) return;
  array.home = current;
  current.arrays.push(array);
}

/**
 * Runs fn and frees every array made inside that was not kept or handed up, also when fn throws. Scopes nest; fn must
 * be synchronous. The result is passed through untouched: an array in it must be kept or handed up to stay alive.
 */
export function scope<T>(fn: () => T): T {
  const mine: Scope = { outer: current, arrays: [] };
  current = mine;
  try {
    const result = fn();
    if (result instanceof Promise) throw new TypeError("scope: fn must be synchronous");
    return result;
  } finally {
    current = mine.outer;
    freeScope(mine);
  }
}

/** Takes an array out of its scope: the caller owns it from now on and frees it. Returns it. */
export function keep<T extends MxArray>(array: T): T {
  array.home = null;
  return array;
}

/** Moves an array to the scope around its own (outside of any: to the caller, as `keep`). Returns it. */
export function handUp<T extends MxArray>(array: T): T {
  const outer = array.home?.outer ?? null;
  array.home = outer;
  outer?.arrays.push(array);
  return array;
}

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

function freeScope(mine: Scope): void {
  scratch.reserveHandles(mine.arrays.length);
  const handles = scratch.handles;
  let count = 0;
  for (const array of mine.arrays) {
    if (array.home !== mine || array.ptr === 0) continue;
    handles[count++] = array.ptr;
    array.ptr = 0;
  }
  if (count > 0) native().omlx_free_many(scratch.handlesPtr, count);
}
