/** The command line of both programs. */
import { parseArgs } from "node:util";
import { DEFAULT_MODEL_DIR } from "../scripts/default-model.ts";
import { describeMachine } from "./machine.ts";
import { GROUPS, type Group, type Sizes } from "./measurements.ts";
import { defaultGguf } from "./peers.ts";
import { shapeModel } from "./shape-model.ts";

/** Models that the benchmark brings along: the one in our program, and random weights of a larger one's shape. */
const SHAPES = ["default", "0.6b"] as const;

/** What is measured of one model. */
export interface Part {
  readonly shape: (typeof SHAPES)[number] | "given";
  /** In tables and results. */
  readonly title: string;
  readonly rounds: number;
  readonly groups: ReadonlySet<Group>;
  readonly sizes: Sizes;
  /** Makes or fetches the model's files where they are not there yet. */
  readonly files: () => Promise<ModelFiles>;
}

export interface ModelFiles {
  /** Folder in MLX's format. */
  readonly folder: string;
  /** The same weights; undefined if there are none in this format. */
  readonly gguf: string | undefined;
}

/** Of both programs. */
export interface CommonArguments {
  readonly isQuick: boolean;
  readonly threads: number;
  /** OMLX_CPU_TIER for our program. */
  readonly tier: string | undefined;
  readonly parts: readonly Part[];
}

export const COMMON_HELP = `  --quick              one round, short prompts, few tokens: shows that everything works, proves nothing
  --shape NAMES        of ${SHAPES.join(",")}: the model that our program carries; random weights in the shape of
                       Qwen3-0.6B (npm run bench: both, one after the other; ab: default)
  --rounds N           rounds (3; 0.6b: 2; quick: 1)
  --only GROUPS        of ${GROUPS.join(",")}
  --threads N          threads of every peer that can be told (physical cores)
  --contexts N,N       prompt lengths before decoding (0,2048,7500; 0.6b: 0,8192,16384; quick: 0,512)
  --prefill N,N        prompt lengths of prefill (128,512,4096; quick: 128)
  --streams N,N        streams at a time, up to 16 (2,4,8,16; quick: 4)
  --tokens N           tokens decoded per request (128; 0.6b: 64; quick: 24)
  --tier NAME          our kernels for a lesser CPU: avx512, avx2, portable
  --model FOLDER       another model in MLX's format instead`;

const COMMON = {
  quick: { type: "boolean", default: false },
  shape: { type: "string" },
  rounds: { type: "string" },
  only: { type: "string" },
  threads: { type: "string" },
  contexts: { type: "string" },
  prefill: { type: "string" },
  streams: { type: "string" },
  tokens: { type: "string" },
  tier: { type: "string" },
  model: { type: "string" },
  help: { type: "boolean", default: false },
} as const;

const SPECIAL = {
  peers: { type: "string" },
  gguf: { type: "string" },
  binary: { type: "string" },
  out: { type: "string" },
} as const;

export interface BenchArguments extends CommonArguments {
  readonly peers: readonly ("llama" | "mlx")[];
  readonly binary: string | undefined;
  readonly out: string | undefined;
}

/** @throws {Error} on an unknown flag or value; undefined if help was asked for */
export function readBenchArguments(args: readonly string[]): BenchArguments | undefined {
  const { values } = parseArgs({ args: [...args], options: { ...COMMON, ...SPECIAL } });
  if (values.help) return undefined;
  const peers = (values.peers ?? "llama,mlx").split(",").filter((name) => name !== "");
  if (Boolean(values.model) !== Boolean(values.gguf) && peers.includes("llama")) {
    throw new Error("--model and --gguf name the same weights in two formats: give both");
  }
  const { gguf, binary, out } = values;
  return {
    ...common({ shape: SHAPES.join(","), ...values }, gguf),
    peers: peers.map((name) => oneOf("--peers", name, ["llama", "mlx"] as const)),
    binary,
    out,
  };
}

/** @throws {Error} on an unknown flag or value; undefined if help was asked for */
export function readAbArguments(
  args: readonly string[],
): (CommonArguments & { readonly programs: readonly [string, string] }) | undefined {
  const { values, positionals } = parseArgs({
    args: [...args],
    options: COMMON,
    allowPositionals: true,
  });
  if (values.help) return undefined;
  const [a, b, ...more] = positionals;
  if (!a || !b || more.length > 0) throw new Error("ab takes two programs");
  return { ...common({ shape: "default", ...values }), programs: [a, b] };
}

interface CommonValues {
  readonly quick?: boolean | undefined;
  readonly shape: string;
  readonly rounds?: string | undefined;
  readonly only?: string | undefined;
  readonly threads?: string | undefined;
  readonly contexts?: string | undefined;
  readonly prefill?: string | undefined;
  readonly streams?: string | undefined;
  readonly tokens?: string | undefined;
  readonly tier?: string | undefined;
  readonly model?: string | undefined;
}

function common(values: CommonValues, gguf?: string): CommonArguments {
  const { model, tier } = values;
  const isQuick = values.quick ?? false;
  const shapes = values.shape.split(",").map((name) => oneOf("--shape", name, SHAPES));
  const given: Part = {
    ...part("default", values),
    shape: "given",
    // a folder's name may be private
    title: "model given by --model",
    files: () => Promise.resolve({ folder: model ?? "", gguf }),
  };
  return {
    isQuick,
    threads: whole("--threads", values.threads ?? String(describeMachine().physicalCores)),
    tier,
    parts: model ? [given] : shapes.map((shape) => part(shape, values)),
  };
}

/** Of the larger shape: what its size can change. */
const SHAPE_GROUPS: readonly Group[] = ["decode", "bandwidth", "prefill", "streams", "memory"];

function part(shape: (typeof SHAPES)[number], values: CommonValues): Part {
  const isQuick = values.quick ?? false;
  const isDefault = shape === "default";
  const contexts = isDefault ? "0,2048,7500" : "0,8192,16384";
  const only = (values.only?.split(",") ?? GROUPS).map((name) => oneOf("--only", name, GROUPS));
  return {
    shape,
    title: isDefault ? "SmolLM2-135M-Instruct, Q4_1" : "Qwen3-0.6B's shape, random weights, Q4_0",
    rounds: whole("--rounds", values.rounds ?? (isQuick ? "1" : isDefault ? "3" : "2")),
    groups: new Set(only.filter((group) => isDefault || SHAPE_GROUPS.includes(group))),
    sizes: {
      contexts: wholes("--contexts", values.contexts ?? (isQuick ? "0,512" : contexts), 0),
      isGrown: !isDefault,
      prefills: wholes("--prefill", values.prefill ?? (isQuick ? "128" : "128,512,4096")),
      streams: wholes("--streams", values.streams ?? (isQuick ? "4" : "2,4,8,16")),
      loadTokens: isQuick ? 512 : 7000,
      decodeTokens: whole("--tokens", values.tokens ?? (isQuick ? "24" : "128")),
      slowTokens: isQuick ? 4 : isDefault ? 10 : 6,
      positions: isQuick ? 64 : 2048,
    },
    files: isDefault
      ? async () => ({ folder: DEFAULT_MODEL_DIR, gguf: await defaultGguf() })
      : shapeModel,
  };
}

function wholes(flag: string, text: string, min = 1): number[] {
  return text.split(",").map((one) => whole(flag, one, min));
}

function whole(flag: string, text: string, min = 1): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= min) return value;
  throw new Error(`${flag} ${text}: must be a whole number from ${min}`);
}

function oneOf<const T extends string>(flag: string, name: string, names: readonly T[]): T {
  const found = names.find((known) => known === name);
  if (found !== undefined) return found;
  throw new Error(`${flag} ${name}: must be of ${names.join(", ")}`);
}
