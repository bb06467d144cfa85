import { CString, type Pointer } from "bun:ffi";
import { OmlxError } from "#core/contract";
import { native } from "./library.ts";

/** Text behind a C string; "" for NULL. */
export function textAt(pointer: number | null): string {
  return pointer === null || pointer === 0 ? "" : new CString(pointer as Pointer).toString();
}

/** What the last failing call of this thread said, as an error of `op`. */
export function nativeError(op: string): OmlxError {
  return new OmlxError({
    code: "native",
    message: `${op}: ${textAt(native().omlx_last_error())}`,
  });
}
