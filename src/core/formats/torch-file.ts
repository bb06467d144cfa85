import { closeSync, openSync } from "node:fs";
import { basename } from "node:path";
import { OmlxError } from "#core/contract";
import { loadError } from "./fields.ts";
import { readAt, reasonOf } from "./folder.ts";
import type { TensorDtype, TensorInfo } from "./safetensors.ts";
import { readStoredZip, type ZipEntry } from "./stored-zip.ts";

/** A dictionary of a few tensors has a few hundred bytes. */
const MAX_PICKLE_BYTES = 65_536;

/** torch's storages → MLX's name and bytes per element. */
const STORAGES: Readonly<Record<string, readonly [dtype: TensorDtype, itemBytes: number]>> = {
  "torch FloatStorage": ["float32", 4],
  "torch HalfStorage": ["float16", 2],
  "torch BFloat16Storage": ["bfloat16", 2],
};

/**
 * The tensors of a small dictionary that torch.save() wrote, by name. Only the words that describe tensors are understood:
 * nothing of the file is ever run.
 *
 * @throws {OmlxError} model_load for whatever else the file holds
 * @see Python's pickletools, torch/serialization.py
 */
export function readTorchTensors(path: string): ReadonlyMap<string, TensorInfo> {
  const name = basename(path);
  let fd: number | undefined;
  try {
    fd = openSync(path, "r");
    const entries = readStoredZip(fd, name);
    const pickle = [...entries].find(([inner]) => /^[^/]*\/data\.pkl$/.test(inner));
    if (!pickle) throw loadError(`Cannot read ${name}: torch did not write it`);
    const [inner, { byteOffset, byteLength }] = pickle;
    if (byteLength > MAX_PICKLE_BYTES) throw loadError(`Cannot read ${name}: it holds too much`);
    const root = inner.slice(0, -"data.pkl".length);
    const tensors = new Pickle(readAt(fd, byteOffset, byteLength), name).read();
    return new Map(
      tensors.map(([key, tensor]) => [key, place(key, tensor, entries, root, path)] as const),
    );
  } catch (error) {
    if (error instanceof OmlxError) throw error;
    throw loadError(`Cannot read ${name}: ${reasonOf(error)}`, error);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

function place(
  key: string,
  { storage, offset, shape, strides }: Tensor,
  entries: ReadonlyMap<string, ZipEntry>,
  root: string,
  file: string,
): TensorInfo {
  const broken = (what: string) =>
    loadError(`Cannot read ${basename(file)}: tensor "${key}" ${what}`);
  const entry = entries.get(`${root}data/${storage.key}`);
  if (!entry) throw broken("has no data");
  const { dtype, itemBytes } = storage;
  let size = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] !== 1 && strides[axis] !== size) throw broken("does not lie in one piece");
    size *= shape[axis] as number;
  }
  if ((offset + size) * itemBytes > entry.byteLength) throw broken("is cut off");
  return {
    name: key,
    dtype,
    shape,
    file,
    byteOffset: entry.byteOffset + offset * itemBytes,
    byteLength: size * itemBytes,
  };
}

interface Storage {
  readonly kind: "storage";
  readonly key: string;
  readonly dtype: TensorDtype;
  readonly itemBytes: number;
}

interface Tensor {
  readonly kind: "tensor";
  readonly storage: Storage;
  /** In elements. */
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
}

interface Global {
  readonly kind: "global";
  readonly name: string;
}

type Value =
  | null
  | boolean
  | number
  | string
  | Global
  | Storage
  | Tensor
  | readonly Value[]
  | Map<Value, Value>;

const isTensor = (value: Value): value is Tensor =>
  typeof value === "object" && value !== null && "kind" in value && value.kind === "tensor";

/** The part of Python's pickle that describes a dictionary of tensors. */
class Pickle {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #file: string;
  readonly #stack: Value[] = [];
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, Value>();
  #at = 0;

  constructor(bytes: Uint8Array, file: string) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#file = file;
  }

  read(): [key: string, tensor: Tensor][] {
    while (!this.#step());
    const top = this.#pop();
    if (!(top instanceof Map)) throw this.#error("it is no dictionary");
    return [...top].map(([key, value]) => {
      if (typeof key !== "string" || !isTensor(value))
        throw this.#error("it holds more than tensors");
      return [key, value];
    });
  }

  /** One opcode; true when it was the last one. */
  #step(): boolean {
    const code = String.fromCharCode(this.#byte());
    switch (code) {
      case "\x80": // PROTO
        this.#byte();
        return false;
      case ".": // STOP
        return true;
      case "(": // MARK
        this.#marks.push(this.#stack.length);
        return false;
      case "}": // EMPTY_DICT
        this.#stack.push(new Map());
        return false;
      case ")": // EMPTY_TUPLE
      case "]": // EMPTY_LIST
        this.#stack.push([]);
        return false;
      case "t": // TUPLE
        this.#stack.push(this.#toMark());
        return false;
      case "\x85": // TUPLE1
      case "\x86": // TUPLE2
      case "\x87": // TUPLE3
        this.#stack.push(this.#take(code.charCodeAt(0) - 0x84));
        return false;
      case "N": // NONE
        this.#stack.push(null);
        return false;
      case "\x88": // NEWTRUE
      case "\x89": // NEWFALSE
        this.#stack.push(code === "\x88");
        return false;
      case "K": // BININT1
        this.#stack.push(this.#byte());
        return false;
      case "M": // BININT2
        this.#stack.push(this.#view.getUint16(this.#skip(2), true));
        return false;
      case "J": // BININT
        this.#stack.push(this.#view.getInt32(this.#skip(4), true));
        return false;
      case "X": // BINUNICODE
        this.#stack.push(this.#text(this.#view.getUint32(this.#skip(4), true)));
        return false;
      case "c": // GLOBAL
        this.#stack.push({ kind: "global", name: `${this.#line()} ${this.#line()}` });
        return false;
      case "q": // BINPUT
        this.#memo.set(this.#byte(), this.#top());
        return false;
      case "r": // LONG_BINPUT
        this.#memo.set(this.#view.getUint32(this.#skip(4), true), this.#top());
        return false;
      case "h": // BINGET
        this.#recall(this.#byte());
        return false;
      case "j": // LONG_BINGET
        this.#recall(this.#view.getUint32(this.#skip(4), true));
        return false;
      case "Q": // BINPERSID
        this.#stack.push(this.#storage(this.#pop()));
        return false;
      case "R": // REDUCE
        this.#reduce();
        return false;
      case "s": // SETITEM
        this.#setItems(this.#take(2));
        return false;
      case "u": // SETITEMS
        this.#setItems(this.#toMark());
        return false;
      case "b": // BUILD: attributes of the dictionary itself, which say nothing of tensors
        this.#pop();
        return false;
      default:
        throw this.#error(`it holds more than tensors (opcode ${code.charCodeAt(0)})`);
    }
  }

  /** ("storage", type, key, device, number of elements) */
  #storage(id: Value): Storage {
    const [word, type, key] = Array.isArray(id) ? id : [];
    const name = nameOf(type);
    const known = Object.hasOwn(STORAGES, name) ? STORAGES[name] : undefined;
    if (word !== "storage" || typeof key !== "string" || !known) {
      throw this.#error(`it holds numbers of an unknown kind (${name})`);
    }
    return { kind: "storage", key, dtype: known[0], itemBytes: known[1] };
  }

  #reduce(): void {
    const [made, given] = this.#take(2);
    const name = nameOf(made);
    if (name === "collections OrderedDict") {
      this.#stack.push(new Map());
      return;
    }
    if (name !== "torch._utils _rebuild_tensor_v2") {
      throw this.#error(`it holds more than tensors (${name})`);
    }
    const [storage, offset, shape, strides] = Array.isArray(given) ? given : [];
    const isStorage = typeof storage === "object" && storage !== null && storage.kind === "storage";
    if (!isStorage || !isSize(offset) || !isSizes(shape) || !isSizes(strides)) {
      throw this.#error("a tensor is broken");
    }
    if (shape.length !== strides.length) throw this.#error("a tensor is broken");
    this.#stack.push({ kind: "tensor", storage, offset, shape, strides });
  }

  #setItems(items: readonly Value[]): void {
    const target = this.#top();
    if (!(target instanceof Map)) throw this.#error("it holds more than tensors");
    for (let i = 0; i + 1 < items.length; i += 2) {
      target.set(items[i] as Value, items[i + 1] as Value);
    }
  }

  #recall(key: number): void {
    const value = this.#memo.get(key);
    if (value === undefined) throw this.#error("it is broken");
    this.#stack.push(value);
  }

  #toMark(): Value[] {
    const mark = this.#marks.pop();
    if (mark === undefined || mark > this.#stack.length) throw this.#error("it is broken");
    return this.#stack.splice(mark);
  }

  #take(count: number): Value[] {
    if (this.#stack.length < count) throw this.#error("it is broken");
    return this.#stack.splice(this.#stack.length - count);
  }

  #pop(): Value {
    return this.#take(1)[0] as Value;
  }

  #top(): Value {
    const value = this.#stack.at(-1);
    if (value === undefined) throw this.#error("it is broken");
    return value;
  }

  #byte(): number {
    return this.#bytes[this.#skip(1)] as number;
  }

  /** Where the next bytes begin. */
  #skip(count: number): number {
    const at = this.#at;
    if (at + count > this.#bytes.length) throw this.#error("it is cut off");
    this.#at += count;
    return at;
  }

  #text(length: number): string {
    const at = this.#skip(length);
    return new TextDecoder().decode(this.#bytes.subarray(at, at + length));
  }

  #line(): string {
    const end = this.#bytes.indexOf(10, this.#at);
    if (end < 0) throw this.#error("it is cut off");
    const text = this.#text(end - this.#at);
    this.#at++;
    return text;
  }

  #error(found: string): OmlxError {
    return loadError(`Cannot read ${this.#file}: ${found}`);
  }
}

const nameOf = (value: Value | undefined): string =>
  typeof value === "object" && value !== null && "kind" in value && value.kind === "global"
    ? value.name
    : "";

const isSize = (value: Value | undefined): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0;

const isSizes = (value: Value | undefined): value is readonly number[] =>
  Array.isArray(value) && value.every(isSize);
