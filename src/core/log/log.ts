export const LOG_LEVELS = ["trace", "debug", "info", "warning", "error"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

let threshold: number = LOG_LEVELS.indexOf("info");

/** Lines below `level` are dropped, in this process. */
export function setLogLevel(level: LogLevel): void {
  threshold = LOG_LEVELS.indexOf(level);
}

/** A value that came from outside: control characters escaped, so that a line stays one line. */
const clean = (value: unknown): string => {
  const text = typeof value === "string" ? value : (JSON.stringify(value) ?? String(value));
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is escaped
  const safe = text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, (c) =>
    JSON.stringify(c).slice(1, -1),
  );
  return safe.length > 2000 ? `${safe.slice(0, 2000)}…` : safe;
};

function write(level: LogLevel, message: string, fields: Readonly<Record<string, unknown>>): void {
  if (LOG_LEVELS.indexOf(level) < threshold) return;
  const tail = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => ` ${key}=${clean(value)}`)
    .join("");
  process.stderr.write(`${new Date().toISOString()} ${level.padEnd(7)} ${clean(message)}${tail}\n`);
}

type LogFields = Readonly<Record<string, unknown>>;

/** One line per call: time, level, message, then key=value fields. */
export const log = {
  trace: (message: string, fields: LogFields = {}) => write("trace", message, fields),
  debug: (message: string, fields: LogFields = {}) => write("debug", message, fields),
  info: (message: string, fields: LogFields = {}) => write("info", message, fields),
  warning: (message: string, fields: LogFields = {}) => write("warning", message, fields),
  error: (message: string, fields: LogFields = {}) => write("error", message, fields),
};
