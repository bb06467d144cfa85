import { alt, chars, EMPTY, NOTHING, type Node, type Rules, repeat, seq, text } from "./ir.ts";

/** Digits of numbers that have no bound on that side. */
const FREE_DIGITS = 16;
/** Decimal places beyond those that the bounds have. */
const MORE_PLACES = 4;
/** So many multiples are written out one by one. */
const MAX_LISTED = 1000n;
/** Remainders that a grammar follows. */
const MAX_MODULUS = 200n;

const DIGIT = chars([[0x30, 0x39]]);

/** What a number must be; bounds are exact decimals. */
export interface NumberBounds {
  readonly isInteger: boolean;
  readonly min: Decimal | null;
  readonly max: Decimal | null;
  readonly isMinExcluded: boolean;
  readonly isMaxExcluded: boolean;
  readonly multipleOf: Decimal | null;
}

/** digits / 10^places. */
export interface Decimal {
  readonly digits: bigint;
  readonly places: number;
}

/** The decimal that a number prints as. */
export function decimalOf(value: number): Decimal {
  const [mantissa = "0", exponent = "0"] = value.toString().toLowerCase().split("e");
  const [whole = "0", fraction = ""] = mantissa.split(".");
  const digits = BigInt(whole + fraction);
  const places = fraction.length - Number(exponent);
  return places >= 0 ? { digits, places } : { digits: digits * 10n ** BigInt(-places), places: 0 };
}

export const compareDecimals = (a: Decimal, b: Decimal): number => {
  const left = a.digits * 10n ** BigInt(b.places);
  const right = b.digits * 10n ** BigInt(a.places);
  return left < right ? -1 : left > right ? 1 : 0;
};

/**
 * JSON numbers within bounds. A subset of them: no exponents where there are bounds, and a limited number of places.
 *
 * @returns null if the multiples cannot be told by a grammar of fair size
 */
export function numberGrammar(bounds: NumberBounds, rules: Rules): Node | null {
  const { min, max, multipleOf, isInteger } = bounds;
  if (multipleOf !== null) return multiples(bounds, multipleOf, rules);
  if (min === null && max === null) return isInteger ? freeInteger() : freeNumber();
  const parts = [within(bounds, 0)];
  if (!isInteger) {
    const places = Math.max(min?.places ?? 0, max?.places ?? 0) + MORE_PLACES;
    for (let j = 1; j <= places; j++) parts.push(within(bounds, j));
  }
  return alt(...parts);
}

const freeInteger = (): Node =>
  alt(
    text("0"),
    seq(repeat(text("-"), 0, 1), chars([[0x31, 0x39]]), repeat(DIGIT, 0, FREE_DIGITS - 1)),
  );

const freeNumber = (): Node =>
  seq(
    repeat(text("-"), 0, 1),
    alt(text("0"), seq(chars([[0x31, 0x39]]), repeat(DIGIT, 0, FREE_DIGITS - 1))),
    repeat(seq(text("."), repeat(DIGIT, 1, FREE_DIGITS)), 0, 1),
    repeat(
      seq(
        chars([
          [0x45, 0x45],
          [0x65, 0x65],
        ]),
        repeat(
          chars([
            [0x2b, 0x2b],
            [0x2d, 0x2d],
          ]),
          0,
          1,
        ),
        repeat(DIGIT, 1, 2),
      ),
      0,
      1,
    ),
  );

/** Numbers with exactly so many places. */
function within(bounds: NumberBounds, places: number): Node {
  const low = bounds.min === null ? null : scaled(bounds.min, places, bounds.isMinExcluded, 1n);
  const high = bounds.max === null ? null : scaled(bounds.max, places, bounds.isMaxExcluded, -1n);
  if (low !== null && high !== null && low > high) return NOTHING;
  const parts: Node[] = [];
  if (high === null || high >= 0n)
    parts.push(ascending(low === null || low < 0n ? 0n : low, high, places));
  // Minus zero is left out.
  if (low === null || low < 0n) {
    const from = high === null || high >= 0n ? 1n : -high;
    parts.push(seq(text("-"), ascending(from, low === null ? null : -low, places)));
  }
  return alt(...parts);
}

/** The first multiple of 10^-places inside the bound; `inwards` is 1 for a lower bound, -1 for an upper one. */
function scaled(
  { digits, places: have }: Decimal,
  places: number,
  isExcluded: boolean,
  inwards: 1n | -1n,
): bigint {
  const divisor = 10n ** BigInt(have);
  const product = digits * 10n ** BigInt(places);
  const floor = product / divisor - (product % divisor < 0n ? 1n : 0n);
  if (floor * divisor === product) return isExcluded ? floor + inwards : floor;
  return inwards === 1n ? floor + 1n : floor;
}

/** From `low` to `high` (null: no end), none negative, in units of 10^-places. */
function ascending(low: bigint, high: bigint | null, places: number): Node {
  const parts: Node[] = [];
  const longest = Math.max(FREE_DIGITS + places, low.toString().length + 2);
  const last = high === null ? 10n ** BigInt(longest) - 1n : high;
  for (let length = places + 1; ; length++) {
    const smallest = length === places + 1 ? 0n : 10n ** BigInt(length - 1);
    if (smallest > last) break;
    const largest = 10n ** BigInt(length) - 1n;
    const from = low > smallest ? low : smallest;
    const to = last < largest ? last : largest;
    if (from > to) continue;
    const pad = (value: bigint) => value.toString().padStart(length, "0");
    parts.push(between(pad(from), pad(to), places));
  }
  return alt(...parts);
}

/** Digits from `low` to `high`, of equal length; the point stands before the last `places`. */
function between(low: string, high: string, places: number): Node {
  const length = low.length;
  if (length === 0) return EMPTY;
  const point = length === places && places > 0 ? [text(".")] : [];
  const rest = (from: string, to: string) => between(from, to, places);
  const [first = "0", last = "0"] = [low[0], high[0]];
  if (first === last) return seq(...point, text(first), rest(low.slice(1), high.slice(1)));
  const zeros = "0".repeat(length - 1);
  const nines = "9".repeat(length - 1);
  let from = first.charCodeAt(0);
  let to = last.charCodeAt(0);
  const parts: Node[] = [];
  if (low.slice(1) !== zeros) {
    parts.push(seq(text(first), rest(low.slice(1), nines)));
    from++;
  }
  const tail = high.slice(1) === nines ? null : seq(text(last), rest(zeros, high.slice(1)));
  if (tail !== null) to--;
  if (from <= to) parts.push(seq(chars([[from, to]]), free(length - 1, places)));
  if (tail !== null) parts.push(tail);
  return seq(...point, alt(...parts));
}

/** Any digits. */
function free(length: number, places: number): Node {
  if (places === 0 || length < places) return repeat(DIGIT, length, length);
  return seq(
    repeat(DIGIT, length - places, length - places),
    text("."),
    repeat(DIGIT, places, places),
  );
}

function multiples(bounds: NumberBounds, step: Decimal, rules: Rules): Node | null {
  const { min, max, isInteger } = bounds;
  const isWhole = step.digits % 10n ** BigInt(step.places) === 0n;
  const isPower = step.digits === 1n && step.places > 0;
  if (isInteger && !isWhole) {
    // Integers that are multiples of 0.01 or 0.5 are all integers.
    const unitDigits = 10n ** BigInt(step.places);
    if (unitDigits % step.digits !== 0n) return null;
    return numberGrammar({ ...bounds, multipleOf: null }, rules);
  }
  if (isPower) {
    const parts: Node[] = [];
    for (let j = 0; j <= step.places; j++) parts.push(within(bounds, j));
    return alt(...parts);
  }
  if (!isWhole) return null;
  const modulus = step.digits / 10n ** BigInt(step.places);
  if (min !== null && max !== null) {
    const low = scaled(min, 0, bounds.isMinExcluded, 1n);
    const high = scaled(max, 0, bounds.isMaxExcluded, -1n);
    if ((high - low) / modulus <= MAX_LISTED) {
      const listed: Node[] = [];
      const rest = ((low % modulus) + modulus) % modulus;
      for (let n = rest === 0n ? low : low + modulus - rest; n <= high; n += modulus)
        listed.push(text(n.toString()));
      return alt(...listed);
    }
  }
  if (min !== null || max !== null || modulus > MAX_MODULUS) return null;
  return remainders(Number(modulus), rules);
}

/** Integers of remainder 0, read digit by digit. */
function remainders(modulus: number, rules: Rules): Node {
  const names = Array.from({ length: modulus }, () => rules.fresh());
  const digits = (rest: number, from: number): Node[] =>
    Array.from({ length: 10 - from }, (_, i) =>
      seq(text(String(i + from)), {
        kind: "rule",
        name: names[(rest * 10 + i + from) % modulus] as string,
      }),
    );
  for (const [rest, name] of names.entries())
    rules.define(name, alt(...(rest === 0 ? [EMPTY] : []), ...digits(rest, 0)));
  return alt(text("0"), seq(repeat(text("-"), 0, 1), alt(...digits(0, 1))));
}
