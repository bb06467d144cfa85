/** Element types in the order of mlx_dtype: the index is the number that C functions take. */
export const DTYPES = [
  "bool",
  "uint8",
  "uint16",
  "uint32",
  "uint64",
  "int8",
  "int16",
  "int32",
  "int64",
  "float16",
  "float32",
  "float64",
  "bfloat16",
  "complex64",
] as const;

export type Dtype = (typeof DTYPES)[number];

const BYTES: Record<Dtype, number> = {
  bool: 1,
  uint8: 1,
  uint16: 2,
  uint32: 4,
  uint64: 8,
  int8: 1,
  int16: 2,
  int32: 4,
  int64: 8,
  float16: 2,
  float32: 4,
  float64: 8,
  bfloat16: 2,
  complex64: 8,
};

const CODES = Object.fromEntries(DTYPES.map((name, code) => [name, code])) as Record<Dtype, number>;

/** The number of a dtype in C. */
export function dtypeCode(dtype: Dtype): number {
  return CODES[dtype];
}

/** Bytes of one element. */
export function itemSize(dtype: Dtype): number {
  return BYTES[dtype];
}

/** float16, float32, float64 and bfloat16. */
export function isFloating(dtype: Dtype): boolean {
  return dtype === "float32" || dtype === "bfloat16" || dtype === "float16" || dtype === "float64";
}

const isUnsigned = (dtype: Dtype) => dtype.startsWith("uint");

/** Dtype of an operation on two dtypes, as MLX's promote_types. */
export function promote(a: Dtype, b: Dtype): Dtype {
  if (a === b) return a;
  if (a === "complex64" || b === "complex64") return "complex64";
  if (a === "bool") return b;
  if (b === "bool") return a;
  const floatA = isFloating(a);
  if (floatA !== isFloating(b)) return floatA ? a : b;
  if (floatA) return a === "float64" || b === "float64" ? "float64" : "float32";
  if (isUnsigned(a) === isUnsigned(b)) return BYTES[a] >= BYTES[b] ? a : b;
  const signed = isUnsigned(a) ? b : a;
  const unsigned = isUnsigned(a) ? a : b;
  if (BYTES[signed] > BYTES[unsigned]) return signed;
  // no integer type holds both
  if (unsigned === "uint64") return "float32";
  return unsigned === "uint32" ? "int64" : unsigned === "uint16" ? "int32" : "int16";
}

/** Dtype of an operation that gives fractions: floats stay, the rest becomes float32. */
export function fractional(dtype: Dtype): Dtype {
  return isFloating(dtype) || dtype === "complex64" ? dtype : "float32";
}
