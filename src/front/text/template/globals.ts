/** A template refused the conversation, in its own words. */
export class TemplateRefusal extends Error {}

/** As in the sandbox that transformers renders in. */
const MAX_RANGE = 100_000;

/**
 * The functions that chat templates expect beside Jinja's own.
 *
 * @see transformers utils/chat_template_utils.py
 */
export function templateGlobals(now: () => Date): Readonly<Record<string, unknown>> {
  return {
    true: true,
    True: true,
    false: false,
    False: false,
    none: null,
    None: null,
    raise_exception(message: unknown) {
      throw new TemplateRefusal(String(message));
    },
    strftime_now: (format: unknown) => strftime(now(), String(format)),
    range,
  };
}

function range(first: unknown, second?: unknown, third?: unknown): readonly number[] {
  const [start, stop] = typeof second === "number" ? [Number(first), second] : [0, Number(first)];
  const step = typeof third === "number" ? third : 1;
  if (![start, stop, step].every(Number.isInteger) || step === 0) {
    throw new RangeError("range() needs whole numbers and a step that is not 0");
  }
  const length = Math.max(0, Math.ceil((stop - start) / step));
  if (length > MAX_RANGE) throw new RangeError(`range() of more than ${MAX_RANGE} numbers`);
  return Array.from({ length }, (_, i) => start + i * step);
}

const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS = [
  ...["January", "February", "March", "April", "May", "June"],
  ...["July", "August", "September", "October", "November", "December"],
];

/** Python's strftime in the C locale and local time, for the directives of dates and times of day. */
export function strftime(date: Date, format: string): string {
  const day = DAYS[date.getDay()] ?? "";
  const month = MONTHS[date.getMonth()] ?? "";
  const hour12 = date.getHours() % 12 || 12;
  const dayOfYear = Math.round(
    (Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) -
      Date.UTC(date.getFullYear(), 0, 0)) /
      86_400_000,
  );
  const numbers: Readonly<Record<string, readonly [value: number, width: number]>> = {
    Y: [date.getFullYear(), 1],
    y: [date.getFullYear() % 100, 2],
    m: [date.getMonth() + 1, 2],
    d: [date.getDate(), 2],
    H: [date.getHours(), 2],
    I: [hour12, 2],
    M: [date.getMinutes(), 2],
    S: [date.getSeconds(), 2],
    f: [date.getMilliseconds() * 1000, 6],
    j: [dayOfYear, 3],
    w: [date.getDay(), 1],
  };
  const texts: Readonly<Record<string, string>> = {
    a: day.slice(0, 3),
    A: day,
    b: month.slice(0, 3),
    B: month,
    p: date.getHours() < 12 ? "AM" : "PM",
    e: String(date.getDate()).padStart(2, " "),
    F: "%Y-%m-%d",
    T: "%H:%M:%S",
    R: "%H:%M",
    D: "%m/%d/%y",
  };
  return format.replace(/%(-?)([A-Za-z%])/g, (whole, bare: string, letter: string) => {
    if (letter === "%") return "%";
    const number = numbers[letter];
    if (number !== undefined) {
      return String(number[0]).padStart(bare === "" ? number[1] : 1, "0");
    }
    const text = texts[letter];
    if (text === undefined) return whole;
    return text.includes("%") ? strftime(date, text) : text;
  });
}
