import { loadError } from "../fields.ts";
import type { GgufTensor } from "../gguf.ts";
import type { NewTensor } from "../safetensors.ts";
import { type BlockCodec, CODECS, GROUP } from "./blocks.ts";

/** MLX quantization of a converted matrix. */
export interface AffineForm {
  readonly bits: 4 | 5 | 8;
  readonly groupSize: 32;
}

/** One GGUF tensor as the safetensors tensors that hold its values, converted some rows at a time. */
export interface ConvertedTensor {
  /** "model.layers.0.self_attn.q_proj" */
  readonly path: string;
  /** null: stored as it is. */
  readonly form: AffineForm | null;
  readonly outputs: readonly NewTensor[];
  /** How the values differ from the file's; undefined: not at all. */
  readonly change: string | undefined;
  readonly rows: number;
  /** Rows are converted in multiples of this. */
  readonly rowStep: number;
  /** Bytes of a row in the file. */
  readonly rowBytes: number;
  /** The outputs' bytes of some rows, in the outputs' order, from these rows' bytes. */
  readonly convert: (source: Uint8Array, rows: number) => readonly Uint8Array[];
}

const PLAIN: Readonly<Record<string, string>> = { F32: "F32", F16: "F16", BF16: "BF16" };

/**
 * Plans the conversion of one tensor. F32, F16 and BF16 stay; block types become MLX's affine form w = scale·q + bias in
 * groups of 32 with float16 scales: blocks of 32 with one scale without loss (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0), Q4_K and
 * Q5_K with their scales rounded to float16, and those with groups of 16 (Q2_K, Q3_K, Q6_K) requantized to 8 bits.
 *
 * @param headRows rows of one attention head where the file stores each head's rows interleaved for rotation in pairs
 *   (0, D/2, 1, D/2 + 1, …); they are put back to halves. null: the rows' order is right.
 * @throws {OmlxError} model_load for a type that has no such form
 * @see mlx/backend/cpu/quantized.cpp — the packed form
 */
export function planTensor(
  tensor: GgufTensor,
  path: string,
  parameter: string,
  headRows: number | null,
): ConvertedTensor {
  const { type, shape } = tensor;
  // the elements of a bias are rows of one element, so that they can change places
  const row = shape.length === 1 && headRows !== null ? 1 : (shape.at(-1) ?? 1);
  const rows = shape.reduce((n, dim) => n * dim, 1) / Math.max(row, 1);
  const rowBytes = (row / type.blockSize) * type.blockBytes;
  const order = headOrder(rows, headRows, tensor.name);
  const rowStep = headRows ?? 1;
  const inOrder = (source: Uint8Array, count: number): Uint8Array =>
    order === null ? source : reorder(source, order, count, rowBytes);
  const plainType = PLAIN[type.name];
  if (plainType !== undefined) {
    const name = `${path}.${parameter}`;
    return {
      path,
      form: null,
      outputs: [{ name, dtype: plainType, shape, byteLength: tensor.byteLength }],
      change: undefined,
      rows,
      rowStep,
      rowBytes,
      convert: (source, count) => [inOrder(source, count)],
    };
  }
  const codec = CODECS[type.name];
  if (codec === undefined) {
    throw loadError(
      `Cannot convert tensor "${tensor.name}": type ${type.name} is not supported (supported are F32, F16, BF16, ${Object.keys(CODECS).join(", ")})`,
    );
  }
  if (shape.length !== 2 || parameter !== "weight") {
    throw loadError(
      `Cannot convert tensor "${tensor.name}": ${type.name} of shape [${shape}] has no MLX form, only matrices have`,
    );
  }
  const groups = row / GROUP;
  const packedBytes = (row * codec.bits) / 8;
  const output = (name: string, dtype: string, columns: number, bytes: number): NewTensor => ({
    name: `${path}.${name}`,
    dtype,
    shape: [rows, columns],
    byteLength: rows * bytes,
  });
  return {
    path,
    form: { bits: codec.bits, groupSize: GROUP },
    outputs: [
      output("weight", "U32", packedBytes / 4, packedBytes),
      output("scales", "F16", groups, groups * 2),
      output("biases", "F16", groups, groups * 2),
    ],
    change: codec.change,
    rows,
    rowStep,
    rowBytes,
    convert: (source, count) =>
      quantized(codec, inOrder(source, count), (rowBytes / type.blockBytes) * count, tensor),
  };
}

function quantized(
  codec: BlockCodec,
  source: Uint8Array,
  numBlocks: number,
  { name, type }: GgufTensor,
): readonly Uint8Array[] {
  const groups = (numBlocks * type.blockSize) / GROUP;
  const out = {
    packed: new Uint8Array((groups * GROUP * codec.bits) / 8),
    scales: new Uint16Array(groups),
    biases: new Uint16Array(groups),
  };
  const view = new DataView(source.buffer, source.byteOffset, source.byteLength);
  const groupsPerBlock = type.blockSize / GROUP;
  for (let block = 0; block < numBlocks; block++) {
    codec.decode(view, block * type.blockBytes, out, block * groupsPerBlock);
  }
  const { overflowAt } = codec;
  if (overflowAt !== null && out.scales.some((s) => (s & 0x7fff) >= overflowAt)) {
    throw loadError(`Cannot convert tensor "${name}": a scale is too large for float16`);
  }
  return [out.packed, bytesOf(out.scales), bytesOf(out.biases)];
}

/** Source row of each row of a head; null: the order stays. */
function headOrder(rows: number, headRows: number | null, name: string): Uint32Array | null {
  if (headRows === null) return null;
  if (headRows < 2 || headRows % 2 !== 0 || rows % headRows !== 0) {
    throw loadError(`Cannot convert tensor "${name}": ${rows} rows are no heads of ${headRows}`);
  }
  const half = headRows / 2;
  return Uint32Array.from({ length: headRows }, (_, r) => 2 * (r % half) + Math.floor(r / half));
}

/** Whole heads with their rows in order. */
function reorder(
  source: Uint8Array,
  order: Uint32Array,
  rows: number,
  rowBytes: number,
): Uint8Array {
  const out = new Uint8Array(rows * rowBytes);
  for (let r = 0; r < rows; r++) {
    const inHead = r % order.length;
    const from = (r - inHead + (order[inHead] ?? 0)) * rowBytes;
    out.set(source.subarray(from, from + rowBytes), r * rowBytes);
  }
  return out;
}

function bytesOf(words: Uint16Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
}
