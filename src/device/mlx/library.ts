import { CString, dlopen, type Pointer } from "bun:ffi";
import { existsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { OmlxError } from "#core/contract";
import {
  CORE_SIGNATURES,
  CORE_SYMBOLS,
  type CoreSymbols,
  KERNEL_SIGNATURES,
  KERNEL_SYMBOLS,
  type KernelSymbols,
} from "./symbols.gen.ts";

const FILE = process.platform === "darwin" ? "libomlxc.dylib" : "libomlxc.so";
const DEVICES = ["cpu", "gpu"] as const;

export type DeviceName = (typeof DEVICES)[number];

interface Loaded {
  readonly path: string;
  readonly core: CoreSymbols;
  /** null: the library was built without the CPU kernels. */
  readonly kernels: KernelSymbols | null;
}

let handedDown: string | null = null;
let loaded: Loaded | null = null;
let core: CoreSymbols | null = null;
let device: DeviceName = "cpu";

/** Tells where main unpacked the libraries that the binary embeds. Has an effect before the first use only. */
export function setLibraryDir(dir: string): void {
  handedDown = dir;
}

/**
 * Opens the native library and prepares this thread for a device. Called by the first operation with "cpu" when nobody
 * called it before.
 *
 * @throws {OmlxError} native: the library is missing, cannot be opened, is of another version, or has no such device
 */
export function init(options: { device?: DeviceName } = {}): void {
  loaded ??= open();
  const wanted = options.device ?? "cpu";
  if (loaded.core.omlx_init(DEVICES.indexOf(wanted)) !== 0) {
    const text = stringAt(loaded.core.omlx_last_error());
    throw new OmlxError({
      code: "native",
      message: `Cannot start MLX from ${loaded.path}: ${text}`,
    });
  }
  device = wanted;
  core = loaded.core;
}

/** The C functions; opens the library when nothing has yet. */
export function native(): CoreSymbols {
  if (core === null) init();
  return core as CoreSymbols;
}

/** The C functions of the CPU kernels, or null when the library has none. */
export function kernelSymbols(): KernelSymbols | null {
  if (core === null) init();
  return loaded?.kernels ?? null;
}

/** The device of the last init. */
export function currentDevice(): DeviceName {
  return device;
}

/** Folder of the open library. */
export function libraryDir(): string {
  if (core === null) init();
  return dirname((loaded as Loaded).path);
}

/** Places a library may lie in, first match wins: [folder, why]. */
function places(): [dir: string, why: string][] {
  const forced = process.env["OMLX_LIB_DIR"];
  if (forced) return [[resolve(forced), "OMLX_LIB_DIR"]];
  const found: [string, string][] = [[dirname(process.execPath), "beside the executable"]];
  if (handedDown) found.push([handedDown, "unpacked from the executable"]);
  // in a compiled binary this folder is a virtual one
  if (!import.meta.dir.startsWith("/$bunfs")) {
    found.push([resolve(import.meta.dir, "../../../build/lib"), "development build"]);
  }
  return found;
}

function open(): Loaded {
  const tried = places();
  const path = tried.map(([dir]) => join(dir, FILE)).find((file) => existsSync(file));
  if (!path) {
    const list = tried.map(([dir, why]) => `${join(dir, FILE)} (${why})`).join(", ");
    throw new OmlxError({
      code: "native",
      message: `Cannot find the native library. Looked for ${list}.`,
    });
  }
  try {
    const symbols = dlopen(path, CORE_SYMBOLS).symbols as unknown as CoreSymbols;
    check(path, "omlxc.h", stringAt(symbols.omlx_signatures(0)), CORE_SIGNATURES);
    return { path, core: symbols, kernels: openKernels(path, symbols) };
  } catch (cause) {
    if (cause instanceof OmlxError) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new OmlxError(
      { code: "native", message: `Cannot open the native library ${path}: ${reason}` },
      { cause },
    );
  }
}

function openKernels(path: string, symbols: CoreSymbols): KernelSymbols | null {
  if (symbols.omlx_has_kernels() === 0 || Object.keys(KERNEL_SYMBOLS).length === 0) return null;
  check(path, "omlxc_kernels.h", stringAt(symbols.omlx_signatures(1)), KERNEL_SIGNATURES);
  return dlopen(path, KERNEL_SYMBOLS).symbols as unknown as KernelSymbols;
}

/** A library built from other declarations would be called with wrong arguments. */
function check(path: string, header: string, found: string, expected: string): void {
  // a library built by hand does not carry the digest
  if (found === "" || found === expected) return;
  throw new OmlxError({
    code: "native",
    message: `The native library ${path} was built from another ${header} (${found}) than this program (${expected}); build both again.`,
  });
}

function stringAt(pointer: number | null): string {
  return pointer === null ? "" : new CString(pointer as Pointer).toString();
}
