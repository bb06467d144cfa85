import { loadError } from "../fields.ts";
import type { GgufTensor } from "../gguf.ts";
import type { NewTensor } from "../safetensors.ts";

/** MLX quantization that holds a GGUF type's values without loss. */
export interface AffineForm {
  readonly bits: 4 | 8;
  readonly groupSize: 32;
}

/** One GGUF tensor as the safetensors tensors that hold the same values. */
export interface ConvertedTensor {
  /** "model.layers.0.self_attn.q_proj" */
  readonly path: string;
  /** null: stored as it is. */
  readonly form: AffineForm | null;
  readonly outputs: readonly NewTensor[];
  /** The outputs' bytes, in their order, from the GGUF tensor's bytes. */
  readonly convert: (source: Uint8Array) => readonly Uint8Array[];
}

const PLAIN: Readonly<Record<string, string>> = { F32: "F32", F16: "F16", BF16: "BF16" };
const GROUP = 32;

/**
 * Plans the conversion of one tensor. Q4_0, Q4_1 and Q8_0 become MLX's affine form w = scale·q + bias in groups of 32,
 * with the same float16 scale; F32, F16 and BF16 stay.
 *
 * - Q4_1 block: d, m (f16), then 16 bytes whose low halves are elements 0..15 and high halves 16..31; w = d·q + m.
 * - Q4_0 block: d, then the same 16 bytes; w = d·(q − 8), so bias = −8·d, which is exact.
 * - Q8_0 block: d, then 32 signed bytes; w = d·q, kept as q + 128 with bias = −128·d, which is exact.
 *
 * @param headRows rows of one attention head where the file stores each head's rows interleaved for rotation in pairs
 *   (0, D/2, 1, D/2 + 1, …); they are put back to halves. null: the rows' order is right.
 * @throws {OmlxError} model_load for a type that cannot be kept without loss
 * @see ggml-common.h — the blocks; mlx/backend/cpu/quantized.cpp — the packed form
 */
export function planTensor(
  tensor: GgufTensor,
  path: string,
  parameter: string,
  headRows: number | null,
): ConvertedTensor {
  const { type, shape } = tensor;
  const row = shape.at(-1) ?? 1;
  const rows = shape.slice(0, -1).reduce((n, dim) => n * dim, 1);
  const sourceRowBytes = (row / type.blockSize) * type.blockBytes;
  const order = rowOrder(rows, headRows, tensor.name);
  const plainType = PLAIN[type.name];
  if (plainType !== undefined) {
    const name = `${path}.${parameter}`;
    return {
      path,
      form: null,
      outputs: [{ name, dtype: plainType, shape, byteLength: tensor.byteLength }],
      convert: (source) => [headRows === null ? source : reorder(source, order, sourceRowBytes)],
    };
  }
  const codec = CODECS[type.name];
  if (codec === undefined || shape.length !== 2 || parameter !== "weight") {
    throw loadError(
      `Cannot convert tensor "${tensor.name}": ${type.name} of shape [${shape}] has no exact MLX form (F32, F16, BF16, Q4_0, Q4_1 and Q8_0 matrices have)`,
    );
  }
  const groups = row / GROUP;
  const packedRowBytes = (row * codec.bits) / 8;
  const sizes = [packedRowBytes, groups * 2, groups * 2] as const;
  const output = (name: string, dtype: string, columns: number, rowBytes: number): NewTensor => ({
    name: `${path}.${name}`,
    dtype,
    shape: [rows, columns],
    byteLength: rows * rowBytes,
  });
  return {
    path,
    form: { bits: codec.bits, groupSize: GROUP },
    outputs: [
      output("weight", "U32", packedRowBytes / 4, sizes[0]),
      output("scales", "F16", groups, sizes[1]),
      output("biases", "F16", groups, sizes[2]),
    ],
    convert(source) {
      const weight = new Uint8Array(rows * packedRowBytes);
      const scales = new Uint16Array(rows * groups);
      const biases = new Uint16Array(rows * groups);
      const view = new DataView(source.buffer, source.byteOffset, source.byteLength);
      for (let r = 0; r < rows; r++) {
        let from = (order?.[r] ?? r) * sourceRowBytes;
        let to = r * packedRowBytes;
        for (let g = r * groups; g < (r + 1) * groups; g++) {
          scales[g] = view.getUint16(from, true);
          biases[g] = codec.bias(view, from);
          codec.pack(source, from, weight, to);
          from += type.blockBytes;
          to += (GROUP * codec.bits) / 8;
        }
      }
      const { overflowAt } = codec;
      if (overflowAt !== null && scales.some((s) => (s & 0x7fff) >= overflowAt)) {
        throw loadError(`Cannot convert tensor "${tensor.name}": a scale is too large for float16`);
      }
      return [weight, bytesOf(scales), bytesOf(biases)];
    },
  };
}

interface Codec {
  readonly bits: 4 | 8;
  /** The group's bias as float16 bits. */
  readonly bias: (view: DataView, block: number) => number;
  readonly pack: (from: Uint8Array, block: number, to: Uint8Array, at: number) => void;
  /** float16 bits of the scale from which on bias = −2^n · scale overflows; null: the bias is stored. */
  readonly overflowAt: number | null;
}

const CODECS: Readonly<Record<string, Codec>> = {
  Q4_0: {
    bits: 4,
    bias: (view, block) => timesPowerOfTwo(view.getUint16(block, true), 3) ^ 0x8000,
    pack: (from, block, to, at) => packNibbles(from, block + 2, to, at),
    overflowAt: 0x7000,
  },
  Q4_1: {
    bits: 4,
    bias: (view, block) => view.getUint16(block + 2, true),
    pack: (from, block, to, at) => packNibbles(from, block + 4, to, at),
    overflowAt: null,
  },
  Q8_0: {
    bits: 8,
    bias: (view, block) => timesPowerOfTwo(view.getUint16(block, true), 7) ^ 0x8000,
    pack(from, block, to, at) {
      for (let i = 0; i < GROUP; i++) to[at + i] = (from[block + 2 + i] ?? 0) ^ 0x80;
    },
    overflowAt: 0x6000,
  },
};

/** Halves apart (0 | 16, 1 | 17, …) to neighbours (0 | 1, 2 | 3, …), lower element in the lower half. */
function packNibbles(from: Uint8Array, block: number, to: Uint8Array, at: number): void {
  for (let i = 0; i < 8; i++) {
    const a = from[block + 2 * i] ?? 0;
    const b = from[block + 2 * i + 1] ?? 0;
    to[at + i] = (a & 0x0f) | ((b & 0x0f) << 4);
    to[at + 8 + i] = (a >> 4) | (b & 0xf0);
  }
}

/** float16 bits of x·2^n; exact unless the exponent overflows, which the caller excludes. */
function timesPowerOfTwo(bits: number, n: number): number {
  const sign = bits & 0x8000;
  let exponent = (bits >> 10) & 0x1f;
  let mantissa = bits & 0x03ff;
  if (exponent !== 0) return sign | ((exponent + n) << 10) | mantissa;
  // A subnormal grows by shifting until its leading bit takes the exponent's place.
  for (let i = 0; i < n; i++) {
    if (exponent === 0) {
      mantissa <<= 1;
      if (mantissa >= 0x400) {
        exponent = 1;
        mantissa -= 0x400;
      }
    } else exponent++;
  }
  return sign | (exponent << 10) | mantissa;
}

/** Source row of each row; null: the order stays. */
function rowOrder(rows: number, headRows: number | null, name: string): Uint32Array | null {
  if (headRows === null) return null;
  if (headRows < 2 || headRows % 2 !== 0 || rows % headRows !== 0) {
    throw loadError(`Cannot convert tensor "${name}": ${rows} rows are no heads of ${headRows}`);
  }
  const half = headRows / 2;
  return Uint32Array.from({ length: rows }, (_, r) => {
    const inHead = r % headRows;
    return r - inHead + 2 * (inHead % half) + Math.floor(inHead / half);
  });
}

function reorder(source: Uint8Array, order: Uint32Array | null, rowBytes: number): Uint8Array {
  const out = new Uint8Array(source.byteLength);
  order?.forEach((from, r) => {
    out.set(source.subarray(from * rowBytes, (from + 1) * rowBytes), r * rowBytes);
  });
  return out;
}

function bytesOf(words: Uint16Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
}
