import { type MxArray, wrap } from "./array.ts";
import { type Dtype, dtypeCode } from "./dtype.ts";
import { nativeError } from "./error.ts";
import { native } from "./library.ts";
import { intsPtr, putInts } from "./scratch.ts";

/** A whole file in memory, read-only. Arrays over it keep it mapped after `closeMapping`. */
export class Mapping {
  /** Address of the native mapping; 0 after `closeMapping`. */
  ptr: number;
  /** Size of the file. */
  readonly bytes: number;

  constructor(ptr: number, bytes: number) {
    this.ptr = ptr;
    this.bytes = bytes;
  }
}

/**
 * Maps a file. Nothing is read until it is used.
 *
 * @param isInMemory  reads all of it at once into memory of its own, with huge pages: faster to walk through than a
 *   mapped file, but not shared with other processes and never given back while it lives
 * @throws {OmlxError} native: the file cannot be opened or read, is empty or no regular file
 */
export function openMapping(path: string, isInMemory = false): Mapping {
  const handle = native().omlx_mapping_open(Buffer.from(`${path}\0`), isInMemory ? 1 : 0);
  if (handle === null) throw nativeError("openMapping");
  return new Mapping(handle, native().omlx_mapping_bytes(handle));
}

/** Takes a mapped file's pages out of this process's memory; reading them again brings them back. Nothing where it was read into memory. */
export function releasePages(mapping: Mapping): void {
  if (mapping.ptr !== 0) native().omlx_mapping_release_pages(mapping.ptr);
}

/** No arrays can be made any more; the pages go when the last array over them is freed. */
export function closeMapping(mapping: Mapping): void {
  const handle = mapping.ptr;
  mapping.ptr = 0;
  if (handle !== 0) native().omlx_mapping_close(handle);
}

/**
 * An array over bytes of the file, without a copy; only one that begins at no multiple of its element size is copied.
 *
 * @throws {OmlxError} native: the array reaches beyond the file
 */
export function mappedArray(
  mapping: Mapping,
  byteOffset: number,
  shape: readonly number[],
  dtype: Dtype,
): MxArray {
  if (mapping.ptr === 0) throw new Error("mappedArray: the mapping is closed");
  const count = putInts(shape);
  const handle = native().omlx_mapping_array(
    mapping.ptr,
    byteOffset,
    intsPtr,
    count,
    dtypeCode(dtype),
  );
  return wrap("mappedArray", handle, shape, dtype);
}

/** Mappings that are not yet unmapped. */
export function liveMappings(): number {
  return native().omlx_live_mappings();
}
