/** The command line of both programs. */
import { parseArgs } from "node:util";
import { describeMachine } from "./machine.ts";
import { GROUPS, type Group, type Sizes } from "./measurements.ts";

/** Of both programs. */
export interface CommonArguments {
  readonly isQuick: boolean;
  readonly rounds: number;
  readonly threads: number;
  readonly groups: ReadonlySet<Group>;
  readonly sizes: Sizes;
  /** OMLX_CPU_TIER for our program. */
  readonly tier: string | undefined;
  readonly modelFolder: string | undefined;
}

export const COMMON_HELP = `  --quick              one round, short prompts, few tokens: shows that everything works, proves nothing
  --rounds N           rounds (5; quick: 1)
  --only GROUPS        of ${GROUPS.join(",")}
  --threads N          threads of every peer that can be told (physical cores)
  --contexts N,N       prompt lengths before decoding (0,2048,7500; quick: 0,512)
  --prefill N,N        prompt lengths of prefill (128,512,4096; quick: 128)
  --streams N,N        streams at a time, up to 16 (2,4,8,16; quick: 4)
  --tokens N           tokens decoded per request (128; quick: 24)
  --tier NAME          our kernels for a lesser CPU: avx512, avx2, portable
  --model FOLDER       another model in MLX's format (the one that our program carries)`;

const COMMON = {
  quick: { type: "boolean", default: false },
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
  readonly gguf: string | undefined;
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
    ...common(values),
    peers: peers.map((name) => oneOf("--peers", name, ["llama", "mlx"] as const)),
    gguf,
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
  return { ...common(values), programs: [a, b] };
}

interface CommonValues {
  readonly quick?: boolean | undefined;
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

function common(values: CommonValues): CommonArguments {
  const isQuick = values.quick ?? false;
  const only = values.only?.split(",") ?? GROUPS;
  return {
    isQuick,
    rounds: whole("--rounds", values.rounds ?? (isQuick ? "1" : "5")),
    threads: whole("--threads", values.threads ?? String(describeMachine().physicalCores)),
    groups: new Set(only.map((name) => oneOf("--only", name, GROUPS))),
    sizes: {
      contexts: wholes("--contexts", values.contexts ?? (isQuick ? "0,512" : "0,2048,7500"), 0),
      prefills: wholes("--prefill", values.prefill ?? (isQuick ? "128" : "128,512,4096")),
      streams: wholes("--streams", values.streams ?? (isQuick ? "4" : "2,4,8,16")),
      decodeTokens: whole("--tokens", values.tokens ?? (isQuick ? "24" : "128")),
      slowTokens: isQuick ? 4 : 10,
      positions: isQuick ? 64 : 2048,
    },
    tier: values.tier,
    modelFolder: values.model,
  };
}

function wholes(flag: string, text: string, min = 1): number[] {
  return text.split(",").map((part) => whole(flag, part, min));
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
