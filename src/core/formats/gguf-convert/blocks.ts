/** GGUF's quantized blocks → groups of 32 in MLX's affine form, w = scale·q + bias. */

/** Weights of one group. */
export const GROUP = 32;

/** Where groups go. */
export interface Groups {
  /** Group g begins at byte g·4·bits. */
  readonly packed: Uint8Array;
  /** float16 bits. */
  readonly scales: Uint16Array;
  readonly biases: Uint16Array;
}

export interface BlockCodec {
  readonly bits: 4 | 5 | 8;
  /** Writes the groups of the block at byte `at`, the first of them as number `group`. */
  readonly decode: (view: DataView, at: number, out: Groups, group: number) => void;
  /** float16 bits of the scale from which on bias = −2^n · scale overflows; null: it cannot. */
  readonly overflowAt: number | null;
  /** How the values differ from the file's; undefined: not at all. */
  readonly change: string | undefined;
}

const ROUNDED = "with scales rounded to float16";
const REQUANTIZED = "requantized to 8 bits";

/**
 * By the type's name.
 *
 * - Q4_1 block: d, m (f16), then 16 bytes whose low halves are elements 0..15 and high halves 16..31; w = d·q + m.
 * - Q4_0 block: d, then the same 16 bytes; w = d·(q − 8), so bias = −8·d, which is exact.
 * - Q5_0, Q5_1: the same with a fifth bit each in 4 bytes before the 16; w = d·(q − 16), or d·q + m.
 * - Q8_0 block: d, then 32 signed bytes; w = d·q, kept as q + 128 with bias = −128·d, which is exact.
 * - K-quants: 256 elements with a float16 d (and dmin) times small whole scales of each 32 (Q4_K, Q5_K) or 16.
 *
 * @see ggml-common.h and ggml-quants.c — the blocks
 */
export const CODECS: Readonly<Record<string, BlockCodec>> = {
  Q4_0: {
    bits: 4,
    decode(view, at, out, group) {
      centred(view, at, out, group, 3);
      packNibbles(view, at + 2, out.packed, group * 16);
    },
    overflowAt: 0x7000,
    change: undefined,
  },
  Q4_1: {
    bits: 4,
    decode(view, at, out, group) {
      scaleAndMin(view, at, out, group);
      packNibbles(view, at + 4, out.packed, group * 16);
    },
    overflowAt: null,
    change: undefined,
  },
  Q5_0: {
    bits: 5,
    decode(view, at, out, group) {
      centred(view, at, out, group, 4);
      fiveBits(view, at + 2);
      pack5(out.packed, group);
    },
    overflowAt: 0x6c00,
    change: undefined,
  },
  Q5_1: {
    bits: 5,
    decode(view, at, out, group) {
      scaleAndMin(view, at, out, group);
      fiveBits(view, at + 4);
      pack5(out.packed, group);
    },
    overflowAt: null,
    change: undefined,
  },
  Q8_0: {
    bits: 8,
    decode(view, at, out, group) {
      centred(view, at, out, group, 7);
      const to = group * GROUP;
      for (let i = 0; i < GROUP; i++) out.packed[to + i] = view.getUint8(at + 2 + i) ^ 0x80;
    },
    overflowAt: 0x6000,
    change: undefined,
  },
  Q4_K: {
    bits: 4,
    decode(view, at, out, group) {
      scalesOfEight(view, at, out, group);
      for (let pair = 0; pair < 4; pair++) {
        for (let i = 0; i < GROUP; i++) {
          const byte = view.getUint8(at + 16 + pair * GROUP + i);
          q[i] = byte & 15;
          q2[i] = byte >> 4;
        }
        pack4(q, out.packed, group + 2 * pair);
        pack4(q2, out.packed, group + 2 * pair + 1);
      }
    },
    overflowAt: null,
    change: ROUNDED,
  },
  Q5_K: {
    bits: 5,
    decode(view, at, out, group) {
      scalesOfEight(view, at, out, group);
      for (let j = 0; j < 8; j++) {
        const shift = 4 * (j % 2);
        for (let i = 0; i < GROUP; i++) {
          const low = (view.getUint8(at + 48 + (j >> 1) * GROUP + i) >> shift) & 15;
          q[i] = low | (((view.getUint8(at + 16 + i) >> j) & 1) << 4);
        }
        pack5(out.packed, group + j);
      }
    },
    overflowAt: null,
    change: ROUNDED,
  },
  Q2_K: {
    bits: 8,
    decode(view, at, out, group) {
      const d = float16(view.getUint16(at + 80, true));
      const dmin = float16(view.getUint16(at + 82, true));
      for (let j = 0; j < 8; j++) {
        for (let i = 0; i < GROUP; i++) {
          const s = view.getUint8(at + 2 * j + (i >> 4));
          const level = (view.getUint8(at + 16 + (j >> 2) * GROUP + i) >> (2 * (j % 4))) & 3;
          w[i] = d * (s & 15) * level - dmin * (s >> 4);
        }
        requantize(out, group + j);
      }
    },
    overflowAt: null,
    change: REQUANTIZED,
  },
  Q3_K: {
    bits: 8,
    decode(view, at, out, group) {
      const d = float16(view.getUint16(at + 108, true));
      for (let j = 0; j < 8; j++) {
        for (let i = 0; i < GROUP; i++) {
          const k = 2 * j + (i >> 4);
          const low = (view.getUint8(at + 96 + (k & 7)) >> (k < 8 ? 0 : 4)) & 15;
          const high = (view.getUint8(at + 104 + (k & 3)) >> (2 * (k >> 2))) & 3;
          const scale = (low | (high << 4)) - 32;
          const level = (view.getUint8(at + 32 + (j >> 2) * GROUP + i) >> (2 * (j % 4))) & 3;
          const isHigh = (view.getUint8(at + i) >> j) & 1;
          w[i] = d * scale * (level - (isHigh === 1 ? 0 : 4));
        }
        requantize(out, group + j);
      }
    },
    overflowAt: null,
    change: REQUANTIZED,
  },
  Q6_K: {
    bits: 8,
    decode(view, at, out, group) {
      const d = float16(view.getUint16(at + 208, true));
      for (let j = 0; j < 8; j++) {
        const half = j >> 2;
        const quarter = j & 3;
        for (let i = 0; i < GROUP; i++) {
          const byte = view.getUint8(at + half * 64 + (quarter & 1) * GROUP + i);
          const low = quarter < 2 ? byte & 15 : byte >> 4;
          const high = (view.getUint8(at + 128 + half * GROUP + i) >> (2 * quarter)) & 3;
          const scale = view.getInt8(at + 192 + half * 8 + 2 * quarter + (i >> 4));
          w[i] = d * scale * ((low | (high << 4)) - 32);
        }
        requantize(out, group + j);
      }
    },
    overflowAt: null,
    change: REQUANTIZED,
  },
};

/** One group's whole numbers, and its weights: one thread converts at a time. */
const q = new Uint8Array(GROUP);
const q2 = new Uint8Array(GROUP);
const w = new Float64Array(GROUP);

/** w = d·(q − 2^n) with d in the block: the bias is −2^n·d. */
function centred(view: DataView, at: number, out: Groups, group: number, n: number): void {
  const d = view.getUint16(at, true);
  out.scales[group] = d;
  out.biases[group] = timesPowerOfTwo(d, n) ^ 0x8000;
}

/** w = d·q + m with both in the block. */
function scaleAndMin(view: DataView, at: number, out: Groups, group: number): void {
  out.scales[group] = view.getUint16(at, true);
  out.biases[group] = view.getUint16(at + 2, true);
}

/** Halves apart (0 | 16, 1 | 17, …) to neighbours (0 | 1, 2 | 3, …), lower element in the lower half. */
function packNibbles(view: DataView, from: number, to: Uint8Array, at: number): void {
  for (let i = 0; i < 8; i++) {
    const a = view.getUint8(from + 2 * i);
    const b = view.getUint8(from + 2 * i + 1);
    to[at + i] = (a & 0x0f) | ((b & 0x0f) << 4);
    to[at + 8 + i] = (a >> 4) | (b & 0xf0);
  }
}

function pack4(from: Uint8Array, to: Uint8Array, group: number): void {
  for (let i = 0; i < 16; i++) {
    to[group * 16 + i] = (from[2 * i] ?? 0) | ((from[2 * i + 1] ?? 0) << 4);
  }
}

/** Eight fifth bits and nibbles apart, as in Q5_0 and Q5_1, into `q`. */
function fiveBits(view: DataView, from: number): void {
  const high = view.getUint32(from, true);
  for (let i = 0; i < 16; i++) {
    const byte = view.getUint8(from + 4 + i);
    q[i] = (byte & 15) | (((high >>> i) & 1) << 4);
    q[i + 16] = (byte >> 4) | (((high >>> (i + 16)) & 1) << 4);
  }
}

/** `q` as eight numbers in five bytes, lowest first. */
function pack5(to: Uint8Array, group: number): void {
  const v = (i: number): number => q[i] ?? 0;
  for (let i = 0, at = group * 20; i < GROUP; i += 8, at += 5) {
    to[at] = v(i) | (v(i + 1) << 5);
    to[at + 1] = (v(i + 1) >> 3) | (v(i + 2) << 2) | (v(i + 3) << 7);
    to[at + 2] = (v(i + 3) >> 1) | (v(i + 4) << 4);
    to[at + 3] = (v(i + 4) >> 4) | (v(i + 5) << 1) | (v(i + 6) << 6);
    to[at + 4] = (v(i + 6) >> 2) | (v(i + 7) << 3);
  }
}

/** Of Q4_K and Q5_K: eight scales and minima of 6 bits each in 12 bytes; w = d·scale·q − dmin·min. */
function scalesOfEight(view: DataView, at: number, out: Groups, group: number): void {
  const d = float16(view.getUint16(at, true));
  const dmin = float16(view.getUint16(at + 2, true));
  const byte = (i: number): number => view.getUint8(at + 4 + i);
  for (let j = 0; j < 8; j++) {
    const scale = j < 4 ? byte(j) & 63 : (byte(j + 4) & 15) | ((byte(j - 4) >> 6) << 4);
    const min = j < 4 ? byte(j + 4) & 63 : (byte(j + 4) >> 4) | ((byte(j) >> 6) << 4);
    out.scales[group + j] = toFloat16(d * scale);
    out.biases[group + j] = toFloat16(-dmin * min);
  }
}

/** `w` as 8 bits: the scale is rounded up, so that 255 steps from the bias reach the largest value. */
function requantize(out: Groups, group: number): void {
  let min = Number.POSITIVE_INFINITY;
  let max = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < GROUP; i++) {
    const value = w[i] ?? 0;
    if (value < min) min = value;
    if (value > max) max = value;
  }
  const biasBits = toFloat16(min);
  const bias = float16(biasBits);
  const range = Math.max(max - bias, 0);
  let scaleBits = toFloat16(range / 255);
  if (float16(scaleBits) * 255 < range) scaleBits++;
  const scale = float16(scaleBits);
  out.scales[group] = scaleBits;
  out.biases[group] = biasBits;
  for (let i = 0, to = group * GROUP; i < GROUP; i++, to++) {
    const level = scale === 0 ? 0 : Math.round(((w[i] ?? 0) - bias) / scale);
    out.packed[to] = Math.min(Math.max(level, 0), 255);
  }
}

const half = new Float16Array(1);
const halfBits = new Uint16Array(half.buffer);

function float16(bits: number): number {
  halfBits[0] = bits;
  return half[0] ?? 0;
}

function toFloat16(value: number): number {
  half[0] = value;
  return halfBits[0] ?? 0;
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
