/**
 * @module MLX for TypeScript: arrays, operations, scopes, weight files, and the CPU kernels.
 *
 * - `import * as mx from "#device/mlx"`; operations keep MLX's names in camelCase.
 * - Arrays are lazy; `evaluate` and the readers compute.
 * - An array belongs to the scope it was made in, or to the caller when it was kept or made outside of scopes.
 * - Shapes and dtypes are computed here; MLX is never asked for them.
 * - A failing call throws OmlxError "native" with MLX's text; the process goes on.
 * - All calls of a process are made on one thread.
 */
import { cpus } from "node:os";
import { nativeError, textAt } from "./error.ts";
import { currentDevice, native as symbols } from "./library.ts";

export {
  arange,
  array,
  full,
  MxArray,
  scalar,
  zeros,
} from "./array.ts";
export type { Dtype } from "./dtype.ts";
export {
  asyncEval,
  dataPointer,
  evaluate,
  itemFloat,
  itemInt,
  readFloat32,
  synchronize,
  toBytes,
  toFloat32,
  toInt32,
} from "./eval.ts";
export * as fast from "./fast.ts";
export { type DeviceName, init, libraryDir, setLibraryDir } from "./library.ts";
export {
  closeMapping,
  liveMappings,
  Mapping,
  mappedArray,
  openMapping,
  releasePages,
} from "./mapping.ts";
export * as memory from "./memory.ts";
export * as native from "./native.ts";
export * from "./ops/index.ts";
export { free, handUp, keep, liveArrays, scope } from "./scope.ts";

/** Version of the MLX library. */
export function version(): string {
  return textAt(symbols().omlx_version());
}

/** The device that computes, for people to read. */
export function deviceName(): string {
  symbols();
  return currentDevice() === "gpu" ? "GPU" : (cpus()[0]?.model.trim() ?? "CPU");
}

/**
 * From now on the system kills this process when its parent ends, however that happens.
 *
 * @throws {OmlxError} native: the system cannot do that
 */
export function dieWithParent(): void {
  if (symbols().omlx_die_with_parent() !== 0) throw nativeError("dieWithParent");
}
