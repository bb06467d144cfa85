/** The table of numbers to hold: what was measured against what is promised. */
import { short, unitOf } from "./interleave.ts";
import { KEYS, type Sizes } from "./measurements.ts";
import type { Place, Samples, Summary } from "./stats.ts";

/** Two limits of one figure. */
interface Goal {
  readonly hold: number;
  readonly aim: number;
  /** Below them is good. */
  readonly isUpper?: boolean;
}

export interface Row {
  readonly what: string;
  readonly ours: string;
  readonly theirs: string;
  /** The figure that hold and aim are about. */
  readonly figure: string;
  readonly hold: string;
  readonly aim: string;
  readonly mark: "★" | "✓" | "✗" | "";
}

const OMLX = "omlx";

/** Shown where there is nothing to compare with yet; empty: measured, or left out of this run. */
const NOT_MEASURED: readonly (readonly [what: string, goal: string, aim: string])[] = [
  ["second turn after a restart, TTFT vs cold (SSD tier)", "≤ 10 %", "≤ 4 %"],
  ["schema-constrained vs free decode speed (bench/constrained.ts)", "≥ 0.9×", "≥ 1.0×"],
  ["embeddings vs sentence-transformers on torch (bench/embeddings.ts)", "≥ 1.2×", "≥ 2×"],
];

/** Longest time that a prefill chunk may take, whatever its target. */
const CHUNK_LIMIT_MS = 250;

export interface TableOptions {
  readonly samples: Samples;
  readonly sizes: Sizes;
  /** Our prefill used AMX. */
  readonly withAmx: boolean;
  /** The model that our program carries: what is promised of it alone. */
  readonly isDefault: boolean;
  /** That a step of one token reads. */
  readonly weightBytes: number;
}

export function rowsOf({ samples, sizes, withAmx, isDefault, weightBytes }: TableOptions): Row[] {
  const rows: (Row | undefined)[] = [];
  const versus = (what: string, key: string, peer: string, goal?: Goal) => {
    const ours = samples.summary(key, OMLX);
    const theirs = samples.summary(key, peer);
    const ratio = samples.ratio({ key, peer: OMLX }, { key, peer });
    if (!theirs && (!ours || peer !== "llama")) return;
    rows.push({
      what,
      ours: withRange(ours, unitOf(key)),
      theirs: withRange(theirs, unitOf(key)),
      ...judged(ratio, goal, times),
    });
  };
  const alone = (what: string, key: string, goal: Goal, unit: string) => {
    const ours = samples.summary(key, OMLX);
    if (!ours) return;
    const theirs = withRange(samples.summary(key, "llama"), unit);
    const own = withRange(ours, unit);
    const format = (value: number) => `${short(value)} ${unit}`;
    rows.push({ what, ours: own, theirs, ...judged(ours, goal, format) });
  };
  const share = (what: string, part: Place, whole: Place, goal: Goal, ofRest: boolean) => {
    const ratio = samples.ratio(part, whole);
    if (!ratio) return;
    const figure = ofRest ? complement(ratio) : ratio;
    // the part cannot be larger than the whole: the machine was too restless to tell
    const usedGoal = figure.median > 0 ? goal : { hold: 0, aim: 0 };
    const own = `${short(samples.summary(part.key, part.peer)?.median ?? Number.NaN)} of ${short(
      samples.summary(whole.key, whole.peer)?.median ?? Number.NaN,
    )} ms`;
    rows.push({ what, ours: own, theirs: "", ...judged(figure, usedGoal, percent) });
  };

  for (const context of sizes.contexts) {
    const key = KEYS.decode(context);
    versus(`decode, context ${context}, vs llama.cpp`, key, "llama", decodeGoal(context));
  }
  rows.push(bandwidthShare(samples, weightBytes, isDefault));
  for (const tokens of sizes.prefills) {
    const goal = prefillGoal(tokens, withAmx);
    const how = withAmx ? "with AMX" : "without AMX";
    versus(`prefill ${tokens}, ${how}, vs llama.cpp`, KEYS.prefill(tokens), "llama", goal);
  }
  for (const count of sizes.streams.filter((n) => n > 1)) {
    const hold = count >= 8 ? 1.2 : 1.3;
    const goal = { hold, aim: 2 };
    versus(`${count} streams, total, vs llama.cpp`, KEYS.streams(count), "llama", goal);
  }
  rows.push(growth(samples, sizes));
  rows.push(...intervals(samples, sizes));
  const least = Math.min(...sizes.prefills);
  const slow = { decode: { hold: 12, aim: 20 }, prefill: { hold: 80, aim: 200 } };
  versus("decode vs mlx-lm float32", KEYS.decode(0), "mlx-float32", slow.decode);
  versus("prefill vs mlx-lm float32", KEYS.prefill(least), "mlx-float32", slow.prefill);
  versus("decode vs mlx-lm, dtype of the file", KEYS.decode(0), "mlx-default");
  versus("prefill vs mlx-lm, dtype of the file", KEYS.prefill(least), "mlx-default");
  for (const rows_ of ["decode", "prefill"]) rows.push(...exactness(samples, rows_));
  rows.push(...int8(samples));
  share(
    "front + IPC + sampling + detokenizing, share of decode time",
    { key: KEYS.step, peer: "engine" },
    { key: KEYS.token, peer: "engine" },
    { hold: 0.08, aim: 0.03, isUpper: true },
    true,
  );
  const deepest = Math.max(...sizes.contexts);
  for (const peer of [OMLX, "llama"]) {
    share(
      `second turn of ${deepest} tokens, TTFT vs cold${peer === OMLX ? "" : " (llama.cpp)"}`,
      { key: KEYS.second, peer },
      { key: KEYS.cold, peer },
      peer === OMLX ? { hold: 0.03, aim: 0.01, isUpper: true } : { hold: 0, aim: 0 },
      false,
    );
  }
  const healthy = { hold: 150, aim: 60, isUpper: true };
  const first = { hold: 900, aim: 400, isUpper: true };
  alone("start to /health 200", KEYS.healthy, healthy, "ms");
  alone("start to the first token", KEYS.firstToken, first, "ms");
  versus("the very first start (unpacks) to the first token", KEYS.freshToken, "llama");
  versus("memory after all this", KEYS.memory, "llama");
  const missing = (isDefault ? NOT_MEASURED : []).map(
    ([what, hold, aim]): Row => ({
      ...{ what, ours: "not measured", theirs: "", figure: "", hold, aim, mark: "" },
    }),
  );
  return [...rows.filter((row) => row !== undefined), ...missing];
}

function decodeGoal(context: number): Goal | undefined {
  if (context === 0) return { hold: 1, aim: 1.25 };
  return context >= 2000 ? { hold: 1.5, aim: 2.5 } : undefined;
}

function prefillGoal(tokens: number, withAmx: boolean): Goal | undefined {
  if (!withAmx) return { hold: 1, aim: 1.5 };
  if (tokens >= 4000) return { hold: 2.5, aim: 4 };
  return tokens >= 500 ? { hold: 2, aim: 3.5 } : undefined;
}

/** What of the read bandwidth, measured in the same rounds, the weights of decoded tokens take. */
function bandwidthShare(
  samples: Samples,
  weightBytes: number,
  isDefault: boolean,
): Row | undefined {
  const shareOf = (peer: string) => {
    const ratio = samples.ratio(
      { key: KEYS.decode(0), peer },
      { key: KEYS.bandwidth, peer: "machine" },
    );
    return ratio && scaled(ratio, weightBytes / 1e9);
  };
  const ours = shareOf(OMLX);
  const bandwidth = samples.summary(KEYS.bandwidth, "machine");
  if (!ours || !bandwidth) return undefined;
  const theirs = shareOf("llama");
  const megabytes = `${Math.round(weightBytes / 1e6)} MB a token`;
  return {
    what: `share of the read bandwidth (${withRange(bandwidth, "GB/s")}) that decode reaches`,
    ours: megabytes,
    theirs: theirs ? percent(theirs.median) : "",
    ...judged(ours, isDefault ? undefined : { hold: 0.75, aim: 0.85 }, percent),
  };
}

/** Whether more streams give more tokens: the least gain of one number of streams over the one before. */
function growth(samples: Samples, { streams }: Sizes): Row | undefined {
  const keys = [1, ...streams.filter((n) => n > 1).sort((a, b) => a - b)].map((count) =>
    count === 1 ? KEYS.decode(0) : KEYS.streams(count),
  );
  const speeds = (peer: string) => keys.flatMap((key) => samples.summary(key, peer)?.median ?? []);
  const ours = speeds(OMLX);
  if (ours.length < keys.length || ours.length < 2) return undefined;
  const gains = ours.slice(1).map((speed, i) => speed / (ours[i] ?? Number.NaN));
  const least = Math.min(...gains);
  const list = (values: readonly number[]) => values.map(short).join(" → ");
  return {
    what: `total of 1, ${streams.join(", ")} streams grows: least gain`,
    ours: `${list(ours)} tok/s`,
    theirs: list(speeds("llama")),
    ...judged({ median: least, min: least, max: least, count: 1 }, { hold: 1, aim: 1.05 }, times),
  };
}

/** Waiting times of a running answer, against one chunk at its limit and one decode step. */
function intervals(samples: Samples, { loadTokens }: Sizes): Row[] {
  const step = 1000 / (samples.summary(KEYS.decode(0), OMLX)?.median ?? Number.POSITIVE_INFINITY);
  const names = { median: "median", p95: "95 % of all below", max: "longest" };
  return (["median", "p95", "max"] as const).flatMap((which): Row[] => {
    const summary = samples.summary(KEYS.interval(which), OMLX);
    if (!summary) return [];
    const limit = CHUNK_LIMIT_MS + step;
    const goal = which === "max" ? { hold: limit, aim: limit, isUpper: true } : undefined;
    return [
      {
        what: `token interval beside a prompt of ${loadTokens} tokens, ${names[which]}`,
        ours: withRange(summary, "ms"),
        theirs: "",
        ...judged(summary, goal, (value) => `${short(value)} ms`),
      },
    ];
  });
}

/** What 8-bit activations change, for information: they are an option. */
function int8(samples: Samples): Row[] {
  const kl = samples.summary("kl.decode", "int8");
  const argmax = samples.summary("argmax.decode", "int8");
  const [step, ours] = [samples.summary(KEYS.step, "int8"), samples.summary(KEYS.step, "engine")];
  if (!kl || !argmax) return [];
  const row = (what: string, figure: string, ours = "", theirs = ""): Row => ({
    ...{ what, ours, theirs, figure, hold: "", aim: "", mark: "" },
  });
  const faster = step && ours ? times(ours.median / step.median) : "";
  const from = ours && step ? `${short(step.median)} instead of ${short(ours.median)} ms` : "";
  return [
    row("--kernels int8: mean KL from float32, decode rows", kl.median.toExponential(1)),
    row("--kernels int8: same argmax as float32, decode rows", percent(argmax.median)),
    row("--kernels int8: speed of the bare step", faster, from),
  ];
}

/** Rows of mean KL divergence and of equal argmax. */
function exactness(samples: Samples, rows: string): Row[] {
  const of = (key: string, format: (value: number) => string, goal: Goal): Row[] => {
    const ours = samples.summary(`${key}.${rows}`, "engine");
    const theirs = samples.summary(`${key}.decode`, "llama");
    if (!ours) return [];
    const what = `${key === "kl" ? "mean KL from float32" : "same argmax as float32"}, ${rows} rows`;
    return [
      {
        what,
        ours: format(ours.median),
        theirs: theirs ? format(theirs.median) : "",
        ...judged(ours, goal, format),
      },
    ];
  };
  return [
    ...of("kl", (value) => value.toExponential(1), { hold: 4e-4, aim: 1e-4, isUpper: true }),
    ...of("argmax", percent, { hold: 0.99, aim: 0.996 }),
  ];
}

function judged(
  summary: Summary | undefined,
  goal: Goal | undefined,
  format: (value: number) => string,
): Pick<Row, "figure" | "hold" | "aim" | "mark"> {
  const sign = goal?.isUpper ? "≤" : "≥";
  const limit = (value: number | undefined) => (value ? `${sign} ${format(value)}` : "");
  const isMet = (value: number) =>
    summary !== undefined && (goal?.isUpper ? summary.median <= value : summary.median >= value);
  const mark = () => {
    if (!goal?.hold || !summary || !Number.isFinite(summary.median)) return "";
    if (isMet(goal.aim)) return "★";
    return isMet(goal.hold) ? "✓" : "✗";
  };
  const figure = summary ? `${format(summary.median)}${range(summary, format)}` : "";
  return { figure, hold: limit(goal?.hold), aim: limit(goal?.aim), mark: mark() };
}

function scaled({ median, min, max, count }: Summary, factor: number): Summary {
  return { median: median * factor, min: min * factor, max: max * factor, count };
}

function complement({ median, min, max, count }: Summary): Summary {
  return { median: 1 - median, min: 1 - max, max: 1 - min, count };
}

const times = (value: number) => `${value.toFixed(value < 10 ? 2 : 1)}×`;
const percent = (value: number) => `${(value * 100).toFixed(1)} %`;

function range({ min, max, count }: Summary, format: (value: number) => string): string {
  return count > 1 ? ` (${format(min)}–${format(max)})` : "";
}

export function withRange(summary: Summary | undefined, unit: string): string {
  if (!summary) return "–";
  return `${short(summary.median)} ${unit}${range(summary, short)}`;
}

/** Columns under each other, and good Markdown. */
export function drawTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((cell, i) =>
    Math.max(...[cell, ...rows.map((row) => row[i] ?? "")].map((text) => text.length)),
  );
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(" | ")} |`;
  return [
    line(head),
    `|${widths.map((n) => "-".repeat(n + 2)).join("|")}|`,
    ...rows.map(line),
  ].join("\n");
}
