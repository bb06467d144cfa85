import { closeSync, fstatSync, openSync, readdirSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { OmlxError } from "#core/contract";
import { isObject, loadError, parseJsonObject } from "./fields.ts";
import { isErrno, readAt, readJsonFile, reasonOf } from "./folder.ts";

/** Element types by MLX's names; the float8 kinds have no arithmetic of their own. */
export type TensorDtype =
  | "bool"
  | "uint8"
  | "uint16"
  | "uint32"
  | "uint64"
  | "int8"
  | "int16"
  | "int32"
  | "int64"
  | "float8_e4m3"
  | "float8_e5m2"
  | "float8_e8m0"
  | "float16"
  | "bfloat16"
  | "float32"
  | "float64"
  | "complex64";

/** The format's names → ours and bytes per element. */
const DTYPES: ReadonlyMap<unknown, readonly [dtype: TensorDtype, itemBytes: number]> = new Map([
  ["BOOL", ["bool", 1]],
  ["U8", ["uint8", 1]],
  ["U16", ["uint16", 2]],
  ["U32", ["uint32", 4]],
  ["U64", ["uint64", 8]],
  ["I8", ["int8", 1]],
  ["I16", ["int16", 2]],
  ["I32", ["int32", 4]],
  ["I64", ["int64", 8]],
  ["F8_E4M3", ["float8_e4m3", 1]],
  ["F8_E5M2", ["float8_e5m2", 1]],
  ["F8_E8M0", ["float8_e8m0", 1]],
  ["F16", ["float16", 2]],
  ["BF16", ["bfloat16", 2]],
  ["F32", ["float32", 4]],
  ["F64", ["float64", 8]],
  ["C64", ["complex64", 8]],
] as const);

/** Where one tensor lies. Row-major, little-endian. */
export interface TensorInfo {
  readonly name: string;
  readonly dtype: TensorDtype;
  readonly shape: readonly number[];
  /** Absolute or as given: the path that was opened. */
  readonly file: string;
  /** From the start of the file. */
  readonly byteOffset: number;
  readonly byteLength: number;
}

export interface SafetensorsHeader {
  readonly tensors: readonly TensorInfo[];
  readonly metadata: Readonly<Record<string, string>>;
}

/** The format's own cap. */
const MAX_HEADER_BYTES = 100_000_000;
const MAX_RANK = 32;

/**
 * Reads the header of one safetensors file: every tensor lies inside the file, none overlaps another, and each has
 * exactly the bytes of its shape. Gaps between tensors are allowed.
 *
 * @param start     the file's first bytes, at least the 8-byte length and the header
 * @param fileBytes size of the whole file
 * @param file      goes into the result and, as its base name, into errors
 * @throws {OmlxError} model_load
 * @see the format's description in the safetensors README
 */
export function parseSafetensorsHeader(
  start: Uint8Array,
  fileBytes: number,
  file: string,
): SafetensorsHeader {
  const name = basename(file);
  const headerBytes = safetensorsHeaderBytes(start, fileBytes, file);
  const dataStart = 8 + headerBytes;
  if (start.byteLength < dataStart) throw loadError(`Cannot read ${name}: its header is cut off`);
  const text = new TextDecoder().decode(start.subarray(8, dataStart));
  const header = parseJsonObject(text, `the header of ${name}`);
  const tensors: TensorInfo[] = [];
  let metadata: Readonly<Record<string, string>> = {};
  for (const [key, entry] of Object.entries(header)) {
    if (key === "__metadata__") {
      metadata = stringsOf(entry);
      continue;
    }
    tensors.push(parseEntry(key, entry, { file, name, dataStart, fileBytes }));
  }
  checkOverlap(tensors, name);
  return { tensors, metadata };
}

/** Length of the JSON part, checked against the file's size. */
function safetensorsHeaderBytes(start: Uint8Array, fileBytes: number, file: string): number {
  const name = basename(file);
  if (start.byteLength < 8) {
    throw loadError(`Cannot read ${name}: ${fileBytes} bytes are too few for a safetensors file`);
  }
  const view = new DataView(start.buffer, start.byteOffset, start.byteLength);
  const length = view.getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER_BYTES) || length + 8n > BigInt(fileBytes)) {
    throw loadError(
      `Cannot read ${name}: it states a header of ${length} bytes, the file has ${fileBytes} (cut off, or no safetensors file)`,
    );
  }
  return Number(length);
}

function parseEntry(
  key: string,
  entry: unknown,
  at: { file: string; name: string; dataStart: number; fileBytes: number },
): TensorInfo {
  const bad = (what: string) => loadError(`Cannot read ${at.name}: tensor "${key}" ${what}`);
  if (!isObject(entry)) throw bad("has no description");
  const known = DTYPES.get(entry["dtype"]);
  if (known === undefined) throw bad(`has an unknown dtype ${JSON.stringify(entry["dtype"])}`);
  const [dtype, itemBytes] = known;
  const shape = entry["shape"];
  if (!Array.isArray(shape) || shape.length > MAX_RANK || !shape.every(isSize)) {
    throw bad(`has an invalid shape ${JSON.stringify(shape)?.slice(0, 80)}`);
  }
  const byteLength = shape.reduce((bytes: number, dim: number) => bytes * dim, itemBytes);
  if (!Number.isSafeInteger(byteLength)) throw bad(`is too large: shape [${shape}]`);
  const offsets = entry["data_offsets"];
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    throw bad(`has invalid offsets ${JSON.stringify(offsets)?.slice(0, 80)}`);
  }
  const [begin, end] = offsets as [number, number];
  if (end - begin !== byteLength) {
    throw bad(`of shape [${shape}] needs ${byteLength} bytes, its offsets span ${end - begin}`);
  }
  if (at.dataStart + end > at.fileBytes) {
    throw bad(
      `ends at byte ${at.dataStart + end}, the file has ${at.fileBytes}: it is cut off, load it again`,
    );
  }
  return { name: key, dtype, shape, file: at.file, byteOffset: at.dataStart + begin, byteLength };
}

function isSize(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function stringsOf(value: unknown): Readonly<Record<string, string>> {
  if (!isObject(value)) return {};
  return Object.fromEntries(
    Object.entries(value).filter((pair): pair is [string, string] => typeof pair[1] === "string"),
  );
}

function checkOverlap(tensors: readonly TensorInfo[], name: string): void {
  const sorted = tensors
    .filter((t) => t.byteLength > 0)
    .sort((a, b) => a.byteOffset - b.byteOffset);
  for (let i = 1; i < sorted.length; i++) {
    const before = sorted[i - 1];
    const after = sorted[i];
    if (before && after && after.byteOffset < before.byteOffset + before.byteLength) {
      throw loadError(`Cannot read ${name}: tensors "${before.name}" and "${after.name}" overlap`);
    }
  }
}

/**
 * Header of a safetensors file on disk.
 *
 * @throws {OmlxError} model_load
 */
export function readSafetensorsHeader(path: string): SafetensorsHeader {
  let fd: number | undefined;
  try {
    fd = openSync(path, "r");
    const { size } = fstatSync(fd);
    const length = safetensorsHeaderBytes(readAt(fd, 0, Math.min(8, size)), size, path);
    return parseSafetensorsHeader(readAt(fd, 0, 8 + length), size, path);
  } catch (error) {
    if (error instanceof OmlxError) throw error;
    throw loadError(`Cannot read ${basename(path)}: ${reasonOf(error)}`, error);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** A tensor to be written. */
export interface NewTensor {
  readonly name: string;
  /** The format's own name ("F32"). */
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly byteLength: number;
}

/** Where the parts of a new safetensors file go. */
export interface SafetensorsLayout {
  /** The file's first bytes: length and header, a multiple of 64. */
  readonly start: Uint8Array;
  /** From the start of the file, by tensor name. */
  readonly byteOffsets: ReadonlyMap<string, number>;
  readonly fileBytes: number;
}

const ALIGNMENT = 64;

/**
 * Lays out a safetensors file without gaps, as the format asks. Tensors whose size is a multiple of 64 bytes come first,
 * so that each of them is aligned to 64 bytes in a mapped file.
 */
export function layoutSafetensors(
  tensors: readonly NewTensor[],
  metadata: Readonly<Record<string, string>>,
): SafetensorsLayout {
  const isWhole = (t: NewTensor) => t.byteLength % ALIGNMENT === 0;
  const ordered = [...tensors.filter(isWhole), ...tensors.filter((t) => !isWhole(t))];
  const header: Record<string, unknown> = { __metadata__: metadata };
  const begins: [name: string, begin: number][] = [];
  let end = 0;
  for (const { name, dtype, shape, byteLength } of ordered) {
    begins.push([name, end]);
    header[name] = { dtype, shape, data_offsets: [end, end + byteLength] };
    end += byteLength;
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const dataStart = Math.ceil((8 + text.length) / ALIGNMENT) * ALIGNMENT;
  const start = new Uint8Array(dataStart).fill(0x20); // the header may end in blanks
  new DataView(start.buffer).setBigUint64(0, BigInt(dataStart - 8), true);
  start.set(text, 8);
  return {
    start,
    byteOffsets: new Map(begins.map(([name, begin]) => [name, dataStart + begin])),
    fileBytes: dataStart + end,
  };
}

/** One weight file of a model folder. */
export interface WeightFile {
  readonly path: string;
  readonly byteLength: number;
}

/**
 * The safetensors files that hold a folder's weights: those of model.safetensors.index.json, else model*.safetensors,
 * else every *.safetensors file that is no adapter and no consolidated copy. Reads no tensor headers.
 *
 * @throws {OmlxError} model_load: no weights, a shard is missing, or the index names a file outside the folder
 */
export function listWeightFiles(folder: string): readonly WeightFile[] {
  const index = readWeightMap(folder);
  const names = index === null ? globWeights(folder) : [...new Set(index.values())].sort();
  const files: WeightFile[] = [];
  for (const name of names) {
    const path = join(folder, name);
    try {
      const info = statSync(path);
      if (!info.isFile()) throw loadError(`Cannot load weights: ${name} is not a file`);
      files.push({ path, byteLength: info.size });
    } catch (error) {
      if (isErrno(error, "ENOENT"))
        throw loadError(`Cannot load weights: ${name} is missing`, error);
      if (error instanceof OmlxError) throw error;
      throw loadError(`Cannot load weights: ${name} cannot be read (${reasonOf(error)})`, error);
    }
  }
  return files;
}

/**
 * Every tensor of a model folder by name. Reads headers only.
 *
 * @throws {OmlxError} model_load
 */
export function readTensors(folder: string): ReadonlyMap<string, TensorInfo> {
  const index = readWeightMap(folder);
  const tensors = new Map<string, TensorInfo>();
  for (const { path } of listWeightFiles(folder)) {
    for (const tensor of readSafetensorsHeader(path).tensors) {
      const home = index?.get(tensor.name);
      if (home !== undefined && home !== basename(path)) continue;
      if (tensors.has(tensor.name)) {
        throw loadError(`Cannot load weights: tensor "${tensor.name}" is in more than one file`);
      }
      tensors.set(tensor.name, tensor);
    }
  }
  for (const [name, file] of index ?? []) {
    if (!tensors.has(name)) {
      throw loadError(`Cannot load weights: tensor "${name}" is missing in ${file}`);
    }
  }
  return tensors;
}

const INDEX_FILE = "model.safetensors.index.json";

/** Tensor name → file name, from the index; null if the folder has none. */
function readWeightMap(folder: string): ReadonlyMap<string, string> | null {
  const index = readJsonFile(join(folder, INDEX_FILE));
  if (index === null) return null;
  const map = index["weight_map"];
  if (!isObject(map)) throw loadError(`Cannot read ${INDEX_FILE}: "weight_map" is missing`);
  const out = new Map<string, string>();
  for (const [tensor, file] of Object.entries(map)) {
    if (typeof file !== "string" || !isPlainName(file)) {
      throw loadError(
        `Cannot read ${INDEX_FILE}: tensor "${tensor}" names ${JSON.stringify(file)}, expected a file of the folder`,
      );
    }
    out.set(tensor, file);
  }
  return out;
}

/** A name that stays in its folder. */
function isPlainName(name: string): boolean {
  return name !== "" && name !== "." && name !== ".." && !/[/\\\0]/.test(name);
}

function globWeights(folder: string): readonly string[] {
  let all: string[];
  try {
    all = readdirSync(folder)
      .filter((name) => name.endsWith(".safetensors"))
      .sort();
  } catch (error) {
    throw loadError(`Cannot load weights of "${basename(folder)}": ${reasonOf(error)}`, error);
  }
  const named = all.filter((name) => name.startsWith("model"));
  const names =
    named.length > 0
      ? named
      : all.filter((name) => !/^(?:adapter|consolidated|sparse_linear|colbert_linear)/.test(name));
  if (names.length === 0) {
    throw loadError(`Cannot load weights of "${basename(folder)}": it has no safetensors file`);
  }
  checkShards(names);
  return names;
}

/** Without an index the names tell how many shards there must be. */
function checkShards(names: readonly string[]): void {
  for (const name of names) {
    const match = /^(.*)-\d{5}-of-(\d{5})\.safetensors$/.exec(name);
    if (match === null) continue;
    const total = Number(match[2]);
    for (let i = 1; i <= total; i++) {
      const shard = `${match[1]}-${String(i).padStart(5, "0")}-of-${match[2]}.safetensors`;
      if (!names.includes(shard)) throw loadError(`Cannot load weights: ${shard} is missing`);
    }
  }
}
