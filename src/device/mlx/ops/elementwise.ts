import { MxArray, scalar, wrap } from "../array.ts";
import { type Dtype, dtypeCode, fractional, isFloating, promote } from "../dtype.ts";
import { nativeError } from "../error.ts";
import { native } from "../library.ts";

/** An array, or a number that takes the dtype of the array beside it (a fraction beside integers is float32). */
export type Operand = MxArray | number;

/** Shape of an operation on two shapes that broadcast. Only for shapes that C has accepted. */
export function broadcast(a: readonly number[], b: readonly number[]): readonly number[] {
  if (a === b || b.length === 0) return a;
  if (a.length === 0) return b;
  const long = a.length >= b.length ? a : b;
  const short = a.length >= b.length ? b : a;
  const shift = long.length - short.length;
  const out = long.slice();
  let same = true;
  for (let i = 0; i < short.length; i++) {
    const m = long[shift + i] as number;
    const n = short[i] as number;
    if (m === n) continue;
    same = false;
    if (m === 1) out[shift + i] = n;
  }
  return same ? long : out;
}

function lift(value: number, beside: Dtype): MxArray {
  return scalar(value, Number.isInteger(value) || isFloating(beside) ? beside : "float32");
}

type Unary = (a: number) => number | null;
type Binary = (a: number, b: number) => number | null;

function unary(op: string, call: Unary, a: MxArray, dtype: Dtype): MxArray {
  return wrap(op, call(a.ptr), a.shape, dtype);
}

function binary(op: string, call: Binary, a: Operand, b: Operand): MxArray {
  return compute(op, call, a, b, null);
}

function compute(op: string, call: Binary, a: Operand, b: Operand, dtype: Dtype | null): MxArray {
  const x = a instanceof MxArray ? a : lift(a, b instanceof MxArray ? b.dtype : "float32");
  const y = b instanceof MxArray ? b : lift(b, x.dtype);
  const handle = call(x.ptr, y.ptr);
  if (handle === null) throw nativeError(op);
  return wrap(op, handle, broadcast(x.shape, y.shape), dtype ?? promote(x.dtype, y.dtype));
}

/** |a| */
export const abs = (a: MxArray) => unary("abs", native().omlx_abs, a, a.dtype);
export const cos = (a: MxArray) => unary("cos", native().omlx_cos, a, fractional(a.dtype));
/** Error function. */
export const erf = (a: MxArray) => unary("erf", native().omlx_erf, a, fractional(a.dtype));
export const exp = (a: MxArray) => unary("exp", native().omlx_exp, a, fractional(a.dtype));
/** Natural logarithm. */
export const log = (a: MxArray) => unary("log", native().omlx_log, a, fractional(a.dtype));
export const negative = (a: MxArray) => unary("negative", native().omlx_negative, a, a.dtype);
/** 1 / sqrt(a) */
export const rsqrt = (a: MxArray) => unary("rsqrt", native().omlx_rsqrt, a, fractional(a.dtype));
/** 1 / (1 + exp(-a)) */
export const sigmoid = (a: MxArray) =>
  unary("sigmoid", native().omlx_sigmoid, a, fractional(a.dtype));
export const sin = (a: MxArray) => unary("sin", native().omlx_sin, a, fractional(a.dtype));
export const sqrt = (a: MxArray) => unary("sqrt", native().omlx_sqrt, a, fractional(a.dtype));
export const square = (a: MxArray) => unary("square", native().omlx_square, a, a.dtype);
export const tanh = (a: MxArray) => unary("tanh", native().omlx_tanh, a, fractional(a.dtype));

export const add = (a: Operand, b: Operand) => binary("add", native().omlx_add, a, b);
export const subtract = (a: Operand, b: Operand) =>
  binary("subtract", native().omlx_subtract, a, b);
export const multiply = (a: Operand, b: Operand) =>
  binary("multiply", native().omlx_multiply, a, b);
export const maximum = (a: Operand, b: Operand) => binary("maximum", native().omlx_maximum, a, b);
export const minimum = (a: Operand, b: Operand) => binary("minimum", native().omlx_minimum, a, b);
export const power = (a: Operand, b: Operand) => binary("power", native().omlx_power, a, b);
/** a / b; integers give float32. */
export function divide(a: Operand, b: Operand): MxArray {
  return fractionalBinary("divide", native().omlx_divide, a, b);
}
/** log(exp(a) + exp(b)) */
export function logaddexp(a: Operand, b: Operand): MxArray {
  return fractionalBinary("logaddexp", native().omlx_logaddexp, a, b);
}

function fractionalBinary(op: string, call: Binary, a: Operand, b: Operand): MxArray {
  const typeA = a instanceof MxArray ? a.dtype : null;
  const typeB = b instanceof MxArray ? b.dtype : null;
  const x = typeA ?? typeB ?? "float32";
  return compute(op, call, a, b, fractional(promote(x, typeB ?? x)));
}

/** Comparisons give bool. */
export const equal = (a: Operand, b: Operand) =>
  compute("equal", native().omlx_equal, a, b, "bool");
export const notEqual = (a: Operand, b: Operand) =>
  compute("notEqual", native().omlx_not_equal, a, b, "bool");
export const greater = (a: Operand, b: Operand) =>
  compute("greater", native().omlx_greater, a, b, "bool");
export const greaterEqual = (a: Operand, b: Operand) =>
  compute("greaterEqual", native().omlx_greater_equal, a, b, "bool");
export const less = (a: Operand, b: Operand) => compute("less", native().omlx_less, a, b, "bool");
export const lessEqual = (a: Operand, b: Operand) =>
  compute("lessEqual", native().omlx_less_equal, a, b, "bool");
export const logicalAnd = (a: Operand, b: Operand) =>
  compute("logicalAnd", native().omlx_logical_and, a, b, "bool");
export const logicalOr = (a: Operand, b: Operand) =>
  compute("logicalOr", native().omlx_logical_or, a, b, "bool");

/** x where condition is true, else y. */
export function where(condition: MxArray, x: Operand, y: Operand): MxArray {
  const left = x instanceof MxArray ? x : lift(x, y instanceof MxArray ? y.dtype : "float32");
  const right = y instanceof MxArray ? y : lift(y, left.dtype);
  const handle = native().omlx_where(condition.ptr, left.ptr, right.ptr);
  if (handle === null) throw nativeError("where");
  const shape = broadcast(condition.shape, broadcast(left.shape, right.shape));
  return wrap("where", handle, shape, promote(left.dtype, right.dtype));
}

/** The values in another dtype; a float becomes an integer by truncation. */
export function astype(a: MxArray, dtype: Dtype): MxArray {
  return wrap("astype", native().omlx_astype(a.ptr, dtypeCode(dtype)), a.shape, dtype);
}
