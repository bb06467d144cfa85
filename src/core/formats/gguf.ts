import { closeSync, fstatSync, openSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { OmlxError } from "#core/contract";
import { loadError } from "./fields.ts";
import { isErrno, readAt, reasonOf } from "./folder.ts";

export type GgufValue = number | bigint | boolean | string | readonly GgufValue[];

/** How a tensor's elements are stored: blocks of `blockSize` elements in `blockBytes` bytes. */
export interface GgufType {
  readonly name: string;
  readonly blockSize: number;
  readonly blockBytes: number;
}

export interface GgufTensor {
  readonly name: string;
  readonly type: GgufType;
  /** Outermost first, as in safetensors (the file states the innermost first). */
  readonly shape: readonly number[];
  /** The file that holds it: one of a model's parts. */
  readonly file: string;
  /** From the start of the file. */
  readonly byteOffset: number;
  readonly byteLength: number;
}

export interface GgufFile {
  readonly path: string;
  readonly version: number;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: readonly GgufTensor[];
}

/** ggml's numbers of the storage types. */
const TYPES: ReadonlyMap<number, GgufType> = new Map(
  (
    [
      [0, "F32", 1, 4],
      [1, "F16", 1, 2],
      [2, "Q4_0", 32, 18],
      [3, "Q4_1", 32, 20],
      [6, "Q5_0", 32, 22],
      [7, "Q5_1", 32, 24],
      [8, "Q8_0", 32, 34],
      [9, "Q8_1", 32, 40],
      [10, "Q2_K", 256, 84],
      [11, "Q3_K", 256, 110],
      [12, "Q4_K", 256, 144],
      [13, "Q5_K", 256, 176],
      [14, "Q6_K", 256, 210],
      [15, "Q8_K", 256, 292],
      [16, "IQ2_XXS", 256, 66],
      [17, "IQ2_XS", 256, 74],
      [18, "IQ3_XXS", 256, 98],
      [19, "IQ1_S", 256, 50],
      [20, "IQ4_NL", 32, 18],
      [21, "IQ3_S", 256, 110],
      [22, "IQ2_S", 256, 82],
      [23, "IQ4_XS", 256, 136],
      [24, "I8", 1, 1],
      [25, "I16", 1, 2],
      [26, "I32", 1, 4],
      [27, "I64", 1, 8],
      [28, "F64", 1, 8],
      [29, "IQ1_M", 256, 56],
      [30, "BF16", 1, 2],
      [34, "TQ1_0", 256, 54],
      [35, "TQ2_0", 256, 66],
      [39, "MXFP4", 32, 17],
    ] as const
  ).map(([id, name, blockSize, blockBytes]) => [id, { name, blockSize, blockBytes }]),
);

const MAGIC = 0x46554747; // "GGUF"
const MAX_RANK = 8;
const MAX_NESTING = 4;

/** More bytes are needed than were read so far; not an error while the file goes on. */
class CutOff extends Error {}

/** Bytes of the values that are numbers, by value type. */
const VALUE_BYTES: readonly (number | undefined)[] = [
  1,
  1,
  2,
  2,
  4,
  4,
  4,
  1,
  undefined,
  undefined,
  8,
  8,
  8,
];
const STRING = 8;
const LIST = 9;

/** Reads numbers and strings one after the other; every length is checked before memory is taken. */
class Cursor {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #decoder = new TextDecoder();
  readonly #maxList: number;
  at = 0;

  /** @param maxList longer lists are passed over and read as empty */
  constructor(bytes: Uint8Array, maxList: number) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#maxList = maxList;
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  /** A count or an offset. */
  size(): number {
    const value = this.#view.getBigUint64(this.#take(8), true);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new RangeError(`a size of ${value}`);
    return Number(value);
  }

  text(): string {
    const length = this.size();
    const start = this.#take(length);
    return this.#decoder.decode(this.#bytes.subarray(start, start + length));
  }

  value(type: number, depth = 0): GgufValue {
    switch (type) {
      case 0:
        return this.#view.getUint8(this.#take(1));
      case 1:
        return this.#view.getInt8(this.#take(1));
      case 2:
        return this.#view.getUint16(this.#take(2), true);
      case 3:
        return this.#view.getInt16(this.#take(2), true);
      case 4:
        return this.u32();
      case 5:
        return this.#view.getInt32(this.#take(4), true);
      case 6:
        return this.#view.getFloat32(this.#take(4), true);
      case 7:
        return this.#view.getUint8(this.#take(1)) !== 0;
      case STRING:
        return this.text();
      case LIST:
        return this.#list(depth);
      case 10:
        return plain(this.#view.getBigUint64(this.#take(8), true));
      case 11:
        return plain(this.#view.getBigInt64(this.#take(8), true));
      case 12:
        return this.#view.getFloat64(this.#take(8), true);
      default:
        throw new RangeError(`value type ${type}, which is not known`);
    }
  }

  #list(depth: number): readonly GgufValue[] {
    if (depth >= MAX_NESTING) throw new RangeError("lists nested too deep");
    const type = this.u32();
    const length = this.size();
    this.need(length); // every element has at least one byte
    if (length > this.#maxList && this.#pass(type, length)) return [];
    const out: GgufValue[] = [];
    for (let i = 0; i < length; i++) out.push(this.value(type, depth + 1));
    return out;
  }

  /** Passes over a list's elements, if they are numbers or strings. */
  #pass(type: number, length: number): boolean {
    const bytes = VALUE_BYTES[type];
    if (bytes !== undefined) this.#take(length * bytes);
    else if (type === STRING) for (let i = 0; i < length; i++) this.#take(this.size());
    else return false;
    return true;
  }

  /** Throws unless so many bytes are left. */
  need(length: number): void {
    if (length > this.#bytes.byteLength - this.at) throw new CutOff();
  }

  #take(length: number): number {
    this.need(length);
    const start = this.at;
    this.at += length;
    return start;
  }
}

function plain(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/**
 * Reads a GGUF file's metadata and tensor directory (versions 2 and 3, little-endian). Every tensor lies inside the file.
 *
 * @param start     the file's first bytes, up to and including the tensor directory
 * @param fileBytes size of the whole file
 * @throws {OmlxError} model_load
 * @see the format's description, ggml docs/gguf.md
 */
export function parseGguf(
  start: Uint8Array,
  fileBytes: number,
  path: string,
  maxList = Number.POSITIVE_INFINITY,
): GgufFile {
  try {
    return parse(start, fileBytes, path, maxList);
  } catch (error) {
    if (error instanceof OmlxError) throw error;
    const name = basename(path);
    if (error instanceof CutOff) {
      throw loadError(`Cannot read ${name}: its header is cut off at byte ${start.byteLength}`);
    }
    throw loadError(`Cannot read ${name}: its header holds ${reasonOf(error)}`, error);
  }
}

function parse(start: Uint8Array, fileBytes: number, path: string, maxList: number): GgufFile {
  const name = basename(path);
  const cursor = new Cursor(start, maxList);
  if (cursor.u32() !== MAGIC) throw loadError(`Cannot read ${name}: it is not a GGUF file`);
  const version = cursor.u32();
  if (version !== 2 && version !== 3) {
    const isSwapped = (version & 0xffff) === 0;
    throw loadError(
      `Cannot read ${name}: ${isSwapped ? "it is big-endian" : `GGUF version ${version} is not known`}`,
    );
  }
  const numTensors = cursor.size();
  const numValues = cursor.size();
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < numValues; i++) {
    const key = cursor.text();
    metadata.set(key, cursor.value(cursor.u32()));
  }
  const entries: {
    name: string;
    type: GgufType;
    shape: number[];
    offset: number;
    bytes: number;
  }[] = [];
  const seen = new Set<string>();
  for (let i = 0; i < numTensors; i++) {
    const entry = parseTensor(cursor);
    if (seen.has(entry.name)) throw new RangeError(`tensor "${entry.name}" twice`);
    seen.add(entry.name);
    entries.push(entry);
  }
  const alignment = metadata.get("general.alignment") ?? 32;
  if (typeof alignment !== "number" || !Number.isInteger(alignment) || alignment < 1) {
    throw new RangeError(`an alignment of ${String(alignment)}`);
  }
  const dataStart = Math.ceil(cursor.at / alignment) * alignment;
  const tensors = entries.map((entry) => {
    const end = dataStart + entry.offset + entry.bytes;
    if (!(end <= fileBytes)) {
      throw loadError(
        `Cannot read ${name}: tensor "${entry.name}" ends at byte ${end}, the file has ${fileBytes}: it is cut off, load it again`,
      );
    }
    return {
      name: entry.name,
      type: entry.type,
      shape: entry.shape,
      file: path,
      byteOffset: dataStart + entry.offset,
      byteLength: entry.bytes,
    };
  });
  return { path, version, metadata, tensors };
}

function parseTensor(cursor: Cursor) {
  const name = cursor.text();
  const rank = cursor.u32();
  if (rank > MAX_RANK) throw new RangeError(`tensor "${name}" with ${rank} dimensions`);
  const shape = Array.from({ length: rank }, () => cursor.size()).reverse();
  const id = cursor.u32();
  const type = TYPES.get(id);
  if (type === undefined)
    throw new RangeError(`tensor "${name}" of type ${id}, which is not known`);
  const offset = cursor.size();
  const rowLength = shape.at(-1) ?? 1;
  if (rowLength % type.blockSize !== 0) {
    throw new RangeError(
      `tensor "${name}" with rows of ${rowLength} elements in blocks of ${type.blockSize}`,
    );
  }
  const size = shape.reduce((product, dim) => product * dim, 1);
  const bytes = (size / type.blockSize) * type.blockBytes;
  if (!Number.isSafeInteger(size) || !Number.isSafeInteger(bytes)) {
    throw new RangeError(`tensor "${name}" of shape [${shape}], which is too large`);
  }
  return { name, type, shape, offset, bytes };
}

/** Enough for the header of most models. */
const FIRST_READ_BYTES = 1 << 24;
const MAX_HEADER_BYTES = 1 << 30;

/** "model-00002-of-00005.gguf": one part of a model in several files. */
const PART = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/i;

/** Which part of how many a file's name says it is; undefined: a model in one file. */
export function ggufPart(
  name: string,
): { readonly part: number; readonly total: number } | undefined {
  const match = PART.exec(name);
  return match === null ? undefined : { part: Number(match[2]), total: Number(match[3]) };
}

/**
 * Names of all files of a model, given the first one's path or name.
 *
 * @throws {OmlxError} model_load: the file is a later part
 */
export function ggufFiles(path: string): readonly string[] {
  const name = basename(path);
  const match = PART.exec(name);
  if (match === null) return [name];
  if (Number(match[2]) !== 1) throw loadError(`Cannot read ${name}: it is not the first part`);
  const total = Number(match[3]);
  return Array.from(
    { length: total },
    (_, i) => `${match[1]}-${String(i + 1).padStart(5, "0")}-of-${match[3]}.gguf`,
  );
}

export interface ReadGgufOptions {
  /** Lists with more elements read as empty: a vocabulary has hundreds of thousands. */
  readonly maxList?: number;
}

/**
 * Metadata and tensor directory of a GGUF model on disk: one file, or the first of several parts, whose tensors are those
 * of all of them.
 *
 * @throws {OmlxError} model_load
 */
export function readGguf(path: string, options: ReadGgufOptions = {}): GgufFile {
  const maxList = options.maxList ?? Number.POSITIVE_INFINITY;
  const first = readOne(path, maxList);
  const total = first.metadata.get("split.count");
  if (typeof total !== "number" || total <= 1) return first;
  const name = basename(path);
  const files = ggufFiles(path);
  if (files.length !== total) {
    throw loadError(
      `Cannot read ${name}: it is one of ${total} parts; the first must be named like "model-00001-of-${String(total).padStart(5, "0")}.gguf"`,
    );
  }
  const tensors = [...first.tensors];
  const seen = new Set(tensors.map((tensor) => tensor.name));
  for (const file of files.slice(1)) {
    for (const tensor of readOne(join(dirname(path), file), 0).tensors) {
      if (seen.has(tensor.name)) {
        throw loadError(`Cannot read ${file}: tensor "${tensor.name}" is in another part, too`);
      }
      seen.add(tensor.name);
      tensors.push(tensor);
    }
  }
  const stated = first.metadata.get("split.tensors.count");
  if (typeof stated === "number" && stated !== tensors.length) {
    throw loadError(
      `Cannot read ${name}: its parts hold ${tensors.length} tensors, it states ${stated}`,
    );
  }
  return { ...first, tensors };
}

function readOne(path: string, maxList: number): GgufFile {
  let fd: number | undefined;
  try {
    fd = openSync(path, "r");
    const { size } = fstatSync(fd);
    for (let length = FIRST_READ_BYTES; ; length *= 4) {
      const wanted = Math.min(length, size, MAX_HEADER_BYTES);
      const bytes = readAt(fd, 0, wanted);
      try {
        return parse(bytes, size, path, maxList);
      } catch (error) {
        const isMore = error instanceof CutOff && wanted < Math.min(size, MAX_HEADER_BYTES);
        if (!isMore) return parseGguf(bytes, size, path, maxList); // the same error, told in words
      }
    }
  } catch (error) {
    if (error instanceof OmlxError) throw error;
    if (isErrno(error, "ENOENT"))
      throw loadError(`Cannot read ${basename(path)}: it is missing`, error);
    throw loadError(`Cannot read ${basename(path)}: ${reasonOf(error)}`, error);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}
