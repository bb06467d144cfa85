/** `npm run bench`: our server beside its peers in one interleaved run, and the table of numbers to hold. */
import { existsSync, mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { DEFAULT_MODEL_DIR } from "../scripts/default-model.ts";
import { type BenchArguments, COMMON_HELP, readBenchArguments } from "./arguments.ts";
import { EngineProcess } from "./engine-process.ts";
import { llamaExactness } from "./exactness.ts";
import { type Job, Run, runRounds, say, startAll } from "./interleave.ts";
import { describeMachine, loadAverage, type Machine, markCpu, otherWork } from "./machine.ts";
import { KEYS, MEMORY, type Measurement, measurementsOf, SAMPLED_PROMPT } from "./measurements.ts";
import {
  defaultGguf,
  llama,
  mlx,
  omlx,
  type RunningServer,
  removeTemporaryFolders,
  type Server,
} from "./peers.ts";
import { isOutdated, revision } from "./revision.ts";
import { runIsOver, stopAll } from "./server-process.ts";
import { Samples, summarize } from "./stats.ts";
import { drawTable, rowsOf } from "./table.ts";

const ROOT = join(import.meta.dir, "..");
/** Load average per core above which the numbers say little. */
const HIGH_LOAD = 0.25;

/** Context of llama.cpp's slot for single requests. */
const MIN_CONTEXT = 8192;
/** Tokens that the second turn may add. */
const SECOND_TURN = 64;

const HELP = `npm run bench -- [flags]
${COMMON_HELP}
  --gguf FILE          the same weights for llama.cpp
  --peers NAMES        of llama,mlx
  --binary FILE        our program: a binary or a main.ts (dist/omlx)
  --out FILE           where the result goes (bench/results/DATE-CPU.json; quick: nowhere)
`;

async function main(args: BenchArguments): Promise<void> {
  const date = new Date();
  const machine = describeMachine();
  const program = args.binary ?? join(ROOT, "dist", "omlx");
  const hasAmx = machine.features.includes("amx_tile");
  const withAmx = hasAmx && args.tier === undefined;
  warnOfLoad(machine);

  const run = new Run(new Samples());
  const peers = await choosePeers(args, program, !hasAmx || withAmx, run);
  if (isOutdated(program)) {
    say("!! The binary is older than the sources: npm run build measures what you read.");
  }
  const loadBefore = loadAverage();
  const begin = markCpu();
  const engine = await openEngine(args, run);
  const servers = await startAll(peers, run);
  let isBrokenOff = false;
  try {
    await runRounds(
      {
        servers,
        measurements: measurementsOf(args.sizes),
        groups: args.groups,
        rounds: args.rounds,
        slowRounds: Math.min(args.rounds, args.isQuick ? 1 : 3),
        beside: (measurement) => bareSteps(engine, measurement, args),
      },
      run,
    );
    if (args.groups.has("memory")) {
      for (const server of servers) {
        const { id } = server.peer;
        await run.take({ what: "memory", peer: id, run: () => MEMORY.run(server, "") }, 0);
      }
    }
    if (args.groups.has("exactness")) await compareWithReference(args, engine, servers, run);
    isBrokenOff = runIsOver();
  } finally {
    await engine?.stop();
    await stopAll();
  }
  if (isBrokenOff) return;

  const others = otherWork(begin, markCpu());
  const timed = run.samples.all.filter((sample) => sample.key !== KEYS.memory);
  const during = summarize(timed.map((sample) => sample.others));
  const rows = rowsOf({ samples: run.samples, sizes: args.sizes, withAmx });
  const result = {
    date: date.toISOString(),
    ...revision(),
    machine,
    threads: args.threads,
    tier: args.tier ?? "best",
    rounds: args.rounds,
    isQuick: args.isQuick,
    sizes: args.sizes,
    // a folder's name may be private
    model: args.modelFolder ? "given by --model" : "SmolLM2-135M-Instruct",
    peers: peers.map(({ id, label, version }) => ({ id, label, version })),
    load: { before: loadBefore, after: loadAverage() },
    others: { ...others, duringSamples: during, stolenDuringSamples: summarize(run.stolen) },
    failures: run.failures,
    rows,
    samples: run.samples.all,
  };
  print(result);
  const out = args.out ?? (args.isQuick ? undefined : resultFile(date, machine, args.tier));
  if (!out) return;
  mkdirSync(dirname(out), { recursive: true });
  await Bun.write(out, `${JSON.stringify(result, null, 1)}\n`);
  say(`written: ${out}`);
}

function warnOfLoad({ logicalCores }: Machine): void {
  const [now = 0] = loadAverage();
  if (now <= HIGH_LOAD * logicalCores) return;
  const bar = "!".repeat(76);
  say(
    `${bar}\n!! LOAD AVERAGE ${now} on ${logicalCores} cores BEFORE THE START: other work runs here.`,
  );
  say(`!! Spinning thread pools suffer most from it. Do not quote these numbers.\n${bar}`);
}

async function choosePeers(
  args: BenchArguments,
  program: string,
  peersUseAmx: boolean,
  run: Run,
): Promise<Server[]> {
  const { threads, modelFolder, tier } = args;
  const peers = [omlx({ id: "omlx", label: "oMLX", program, threads, modelFolder, tier })];
  const add = async (id: string, make: () => Promise<Server>) => {
    try {
      peers.push(await make());
    } catch (error) {
      run.fail(id, "set-up", error);
    }
  };
  if (args.peers.includes("llama")) {
    await add("llama", async () => {
      const model = { folder: modelFolder, gguf: args.gguf ?? (await defaultGguf()) };
      const { contexts, prefills, decodeTokens } = args.sizes;
      const longest = Math.max(...contexts, ...prefills) + decodeTokens + SECOND_TURN;
      return llama({ threads, model, context: Math.max(MIN_CONTEXT, longest) }, peersUseAmx);
    });
  }
  if (args.peers.includes("mlx")) {
    await add("mlx-float32", () => mlx("float32", modelFolder ?? DEFAULT_MODEL_DIR));
    await add("mlx-default", () => mlx("file", modelFolder ?? DEFAULT_MODEL_DIR));
  }
  return peers;
}

/** Our engine from source; undefined where it is not built or not wanted. */
async function openEngine(args: BenchArguments, run: Run): Promise<EngineProcess | undefined> {
  if (!args.groups.has("share") && !args.groups.has("exactness")) return undefined;
  const folder = args.modelFolder ?? DEFAULT_MODEL_DIR;
  try {
    if (!existsSync(folder)) throw new Error("the model's folder is missing: npm run build");
    return await EngineProcess.open(folder, args.threads, args.tier);
  } catch (error) {
    run.fail("engine", "start", error);
    return undefined;
  }
}

/** The engine's step without the server, measured beside the server's time per token. */
function bareSteps(
  engine: EngineProcess | undefined,
  { groups }: Measurement,
  { sizes }: BenchArguments,
): Job[] {
  if (!engine || !groups.includes("share")) return [];
  const step = async () => await engine.decodeMs(SAMPLED_PROMPT, sizes.decodeTokens);
  return [{ what: "step", peer: "engine", run: async () => [["step", await step()]] }];
}

async function compareWithReference(
  { sizes, modelFolder }: BenchArguments,
  engine: EngineProcess | undefined,
  servers: readonly RunningServer[],
  run: Run,
): Promise<void> {
  if (modelFolder) return; // the reference is of the default model
  for (const rows of engine ? (["prefill", "decode"] as const) : []) {
    await run.take(
      {
        what: "exactness",
        peer: "engine",
        run: async () => {
          const exactness = await engine?.exactness(sizes.positions, rows);
          const { meanKl = Number.NaN, sameArgmax = Number.NaN } = exactness ?? {};
          return [
            [`kl.${rows}`, meanKl],
            [`argmax.${rows}`, sameArgmax],
          ];
        },
      },
      0,
    );
  }
  const peer = servers.find((server) => server.peer.id === "llama");
  if (!peer) return;
  await run.take(
    {
      what: "exactness",
      peer: "llama",
      run: async () => {
        const { meanKl, sameArgmax } = await llamaExactness(peer.single, sizes.positions);
        return [
          ["kl.decode", meanKl],
          ["argmax.decode", sameArgmax],
        ];
      },
    },
    0,
  );
}

function print(result: {
  readonly date: string;
  readonly commit: string;
  readonly isChanged: boolean;
  readonly machine: Machine;
  readonly threads: number;
  readonly tier: string;
  readonly rounds: number;
  readonly isQuick: boolean;
  readonly model: string;
  readonly peers: readonly { readonly label: string; readonly version: string }[];
  readonly load: { readonly before: readonly number[]; readonly after: readonly number[] };
  readonly others: ReturnType<typeof otherWork> & {
    readonly duringSamples: ReturnType<typeof summarize>;
  };
  readonly failures: Run["failures"];
  readonly rows: ReturnType<typeof rowsOf>;
}): void {
  const { machine, others } = result;
  const cores = (value: number | undefined) => `${Math.round((value ?? 0) * 100)} %`;
  const top = [...others.top, { name: "ended meanwhile or kernel", cores: others.unnamedCores }]
    .map(({ name, cores: used }) => `${name} ${cores(used)}`)
    .join(", ");
  const lines = [
    `${result.date}, commit ${result.commit}${result.isChanged ? " with changes" : ""}`,
    `${machine.cpu}: ${machine.physicalCores} cores, ${machine.features.join(" ")}; ${machine.memoryGiB} GiB`,
    `${result.model}, ${result.threads} threads, tier ${result.tier}, ${result.rounds} round(s)`,
    ...result.peers.map(({ label, version }) => `${label}: ${version}`),
    `load average before ${result.load.before.join(" ")}, after ${result.load.after.join(" ")}`,
    `others used ${cores(others.cores)} of one core over the run (${top}), ` +
      `during samples ${cores(others.duringSamples?.median)} (median; most ${cores(others.duringSamples?.max)}); ` +
      `${cores(others.stolenCores)} stolen by the host`,
    ...result.failures.map(({ peer, what, message }) => `failed: ${peer}, ${what}: ${message}`),
  ];
  const table = drawTable(
    ["what", "oMLX", "peer", "ratio or figure", "hold", "aim", ""],
    result.rows.map((r) => [r.what, r.ours, r.theirs, r.figure, r.hold, r.aim, r.mark]),
  );
  const quick = result.isQuick ? "\nA quick run: it shows that the harness works, no more." : "";
  const legend = `medians (min–max); ratios per round; ★ aim reached, ✓ hold kept, ✗ missed${quick}`;
  process.stdout.write(`\n${lines.join("\n")}\n\n${table}\n\n${legend}\n`);
}

function resultFile(date: Date, { cpu }: Machine, tier: string | undefined): string {
  const name = [cpu, tier ?? ""].join(" ").toLowerCase();
  const slug = name.replace(/\(r\)|\(tm\)|cpu|processor|@.*/g, " ").replace(/[^a-z0-9.]+/g, "-");
  const day = date.toISOString().slice(0, 10);
  return join(import.meta.dir, "results", `${day}-${slug.replace(/^-+|-+$/g, "")}.json`);
}

/** Also ends the children when the run is broken off. */
async function cleanUp(): Promise<void> {
  await stopAll();
  removeTemporaryFolders();
}

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => void cleanUp().then(() => process.exit(130)));
}
try {
  const args = readBenchArguments(process.argv.slice(2));
  if (args) await main(args);
  else process.stdout.write(HELP);
} catch (error) {
  say(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
} finally {
  await cleanUp();
}
