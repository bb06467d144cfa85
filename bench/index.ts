/** `npm run bench`: our server beside its peers in one interleaved run, and the table of numbers to hold. */
import { existsSync, mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import {
  type BenchArguments,
  COMMON_HELP,
  type ModelFiles,
  type Part,
  readBenchArguments,
} from "./arguments.ts";
import { Bandwidth, bytesPerToken } from "./bandwidth.ts";
import { EngineProcess } from "./engine-process.ts";
import { llamaExactness } from "./exactness.ts";
import { type Job, Run, runRounds, say, startAll } from "./interleave.ts";
import { describeMachine, loadAverage, type Machine, markCpu, otherWork } from "./machine.ts";
import {
  KEYS,
  MEMORY,
  type Measurement,
  measurementsOf,
  SAMPLED_PROMPT,
  sampledTokenMs,
  type Values,
} from "./measurements.ts";
import {
  llama,
  mlx,
  omlx,
  type RunningServer,
  removeTemporaryFolders,
  type Server,
} from "./peers.ts";
import { isOutdated, revision } from "./revision.ts";
import { runIsOver, stopAll, stopServers } from "./server-process.ts";
import { median, Samples, summarize } from "./stats.ts";
import { drawTable, rowsOf } from "./table.ts";

const ROOT = join(import.meta.dir, "..");
/** How often the bare step and the server's token are measured in turns, and how many tokens at a time. */
const SHARE_TURNS = 9;
const SHARE_TOKENS = 64;
/** Load average per core above which the numbers say little. */
const HIGH_LOAD = 0.25;

/** Context of llama.cpp's slot for single requests. */
const MIN_CONTEXT = 8192;
/** Tokens that the second turn may add. */
const SECOND_TURN = 64;
/** Prompt lengths of mlx-lm's prefill: on float32 scales, and as the file is. */
const MLX_PREFILL = { float32: 128, file: 40 };
/** Of a model that it computes less than one token a second of, in its faster dtype. */
const MLX_PREFILL_LARGE = 40;
/** Rounds of slow peers. */
const SLOW_ROUNDS = 2;

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
  warnOfLoad(machine);
  if (isOutdated(program)) {
    say("!! The binary is older than the sources: npm run build measures what you read.");
  }
  const head = {
    date: date.toISOString(),
    ...revision(),
    machine,
    threads: args.threads,
    tier: args.tier ?? "best",
    isQuick: args.isQuick,
  };
  const out = args.out ?? (args.isQuick ? undefined : resultFile(date, machine, args.tier));
  const parts: PartResult[] = [];
  printHead(head);
  for (const part of args.parts) {
    const result = await measure(part, { ...args, program, machine });
    if (!result) return;
    parts.push(result);
    process.stdout.write(`\n${describe(result)}\n\n${tableOf(result)}\n`);
    // after each part: what was measured must not be lost to what comes later
    if (out) {
      mkdirSync(dirname(out), { recursive: true });
      await Bun.write(out, `${JSON.stringify({ ...head, parts }, null, 1)}\n`);
    }
  }
  if (out) say(`written: ${out}`);
}

interface Setting extends BenchArguments {
  readonly program: string;
  readonly machine: Machine;
}

type PartResult = NonNullable<Awaited<ReturnType<typeof measure>>>;

/** All measurements of one model; undefined if the run was broken off. */
async function measure(part: Part, setting: Setting) {
  const { tier, threads, machine } = setting;
  const hasAmx = machine.features.includes("amx_tile");
  const withAmx = hasAmx && tier === undefined;
  const run = new Run(new Samples());
  say(part.title);
  const files = await part.files();
  const peers = await choosePeers(part, files, setting, !hasAmx || withAmx, run);
  const loadBefore = loadAverage();
  const begin = markCpu();
  const engine = await openEngine(part, files, setting, run);
  const bandwidth = await openBandwidth(part, threads, run);
  const servers = await startAll(peers, run);
  let isBrokenOff = false;
  try {
    await runRounds(
      {
        servers,
        measurements: measurementsOf(part.sizes),
        groups: part.groups,
        rounds: part.rounds,
        slowRounds: Math.min(
          part.rounds,
          setting.isQuick || part.shape === "0.6b" ? 1 : SLOW_ROUNDS,
        ),
        beside: (measurement, round) => [
          ...bareSteps(engine, servers, measurement, round),
          ...bandwidths(bandwidth, measurement, part),
        ],
      },
      run,
    );
    if (part.groups.has("memory")) {
      for (const server of servers) {
        const { id } = server.peer;
        await run.take({ what: "memory", peer: id, run: () => MEMORY.run(server, "") }, 0);
      }
    }
    if (part.shape === "default" && part.groups.has("exactness")) {
      await compareWithReference(part, engine, servers, run);
      await engine?.stop();
      await measureInt8(part, files, setting, run);
    }
    isBrokenOff = runIsOver();
  } finally {
    await engine?.stop();
    await stopServers();
  }
  if (isBrokenOff) return undefined;

  const timed = run.samples.all.filter((sample) => sample.key !== KEYS.memory);
  const during = summarize(timed.map((sample) => sample.others));
  return {
    model: part.title,
    weightBytesPerToken: await bytesPerToken(files.folder),
    rounds: part.rounds,
    sizes: part.sizes,
    peers: peers.map(({ id, label, version }) => ({ id, label, version })),
    load: { before: loadBefore, after: loadAverage() },
    others: {
      ...otherWork(begin, markCpu()),
      duringSamples: during,
      stolenDuringSamples: summarize(run.stolen),
    },
    failures: run.failures,
    rows: rowsOf({
      samples: run.samples,
      sizes: part.sizes,
      withAmx,
      isDefault: part.shape === "default",
      weightBytes: await bytesPerToken(files.folder),
    }),
    samples: run.samples.all,
  };
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
  part: Part,
  { folder, gguf }: ModelFiles,
  { threads, tier, program, peers: wanted }: Setting,
  peersUseAmx: boolean,
  run: Run,
): Promise<Server[]> {
  const modelFolder = part.shape === "default" ? undefined : folder;
  const peers = [omlx({ id: "omlx", label: "oMLX", program, threads, modelFolder, tier })];
  const add = async (id: string, make: () => Server | Promise<Server>) => {
    try {
      peers.push(await make());
    } catch (error) {
      run.fail(id, "set-up", error);
    }
  };
  if (wanted.includes("llama") && gguf) {
    await add("llama", () => {
      const { contexts, prefills, decodeTokens } = part.sizes;
      const longest = Math.max(...contexts, ...prefills) + decodeTokens + SECOND_TURN;
      return llama({ threads, gguf, context: Math.max(MIN_CONTEXT, longest) }, peersUseAmx);
    });
  }
  if (wanted.includes("mlx")) {
    const isLarge = part.shape === "0.6b";
    const prefill = isLarge ? MLX_PREFILL_LARGE : MLX_PREFILL.float32;
    await add("mlx-float32", () => mlx("float32", folder, prefill));
    // a larger model would take some seconds a token
    if (!isLarge) await add("mlx-default", () => mlx("file", folder, MLX_PREFILL.file));
  }
  return peers;
}

/** Our engine from source; undefined where it is not built or not wanted. */
async function openEngine(
  part: Part,
  { folder }: ModelFiles,
  { threads, tier }: Setting,
  run: Run,
): Promise<EngineProcess | undefined> {
  if (!part.groups.has("share") && !part.groups.has("exactness")) return undefined;
  try {
    if (!existsSync(folder)) throw new Error("the model's folder is missing: npm run build");
    return await EngineProcess.open({ folder, threads, tier, kernels: "native" });
  } catch (error) {
    run.fail("engine", "start", error);
    return undefined;
  }
}

async function openBandwidth(
  part: Part,
  threads: number,
  run: Run,
): Promise<Bandwidth | undefined> {
  if (!part.groups.has("bandwidth")) return undefined;
  try {
    return await Bandwidth.open(threads);
  } catch (error) {
    run.fail("machine", "bandwidth", error);
    return undefined;
  }
}

/**
 * The engine's step without the server, and the server's time per token, in turns: they differ by less than a machine
 * does from minute to minute.
 */
function bareSteps(
  engine: EngineProcess | undefined,
  servers: readonly RunningServer[],
  { groups }: Measurement,
  round: number,
): Job[] {
  const ours = servers.find(({ peer }) => peer.id === "omlx");
  if (!engine || !ours || !groups.includes("share")) return [];
  const run = async (): Promise<Values> => {
    const steps: number[] = [];
    const tokens: number[] = [];
    for (let turn = 0; turn < SHARE_TURNS; turn++) {
      steps.push(await engine.decodeMs(SAMPLED_PROMPT, SHARE_TOKENS));
      tokens.push(await sampledTokenMs(ours, `share ${round} ${turn}`, SHARE_TOKENS));
    }
    return [
      [KEYS.step, median(steps)],
      [KEYS.token, median(tokens)],
    ];
  };
  return [{ what: "step", peer: "engine", run }];
}

/** The machine's read speed, measured beside decoding at the shortest context. */
function bandwidths(
  bandwidth: Bandwidth | undefined,
  { name }: Measurement,
  { sizes }: Part,
): Job[] {
  const [beside] = measurementsOf(sizes);
  if (!bandwidth || name !== beside?.name) return [];
  const run = async (): Promise<Values> => [[KEYS.bandwidth, await bandwidth.measure()]];
  return [{ what: "bandwidth", peer: "machine", run }];
}

/** What 8-bit activations cost and gain. */
async function measureInt8(
  { sizes }: Part,
  { folder }: ModelFiles,
  { threads, tier }: Setting,
  run: Run,
): Promise<void> {
  await run.take(
    {
      what: "int8",
      peer: "int8",
      run: async () => {
        const engine = await EngineProcess.open({ folder, threads, tier, kernels: "int8" });
        try {
          const step = await engine.decodeMs(SAMPLED_PROMPT, sizes.decodeTokens);
          const { meanKl, sameArgmax } = await engine.exactness(sizes.positions, "decode");
          return [
            [KEYS.step, step],
            ["kl.decode", meanKl],
            ["argmax.decode", sameArgmax],
          ];
        } finally {
          await engine.stop();
        }
      },
    },
    0,
  );
}

async function compareWithReference(
  { sizes }: Part,
  engine: EngineProcess | undefined,
  servers: readonly RunningServer[],
  run: Run,
): Promise<void> {
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

function printHead(head: {
  readonly date: string;
  readonly commit: string;
  readonly isChanged: boolean;
  readonly machine: Machine;
  readonly threads: number;
  readonly tier: string;
  readonly isQuick: boolean;
}): void {
  const { machine, threads, tier } = head;
  const lines = [
    `${head.date}, commit ${head.commit}${head.isChanged ? " with changes" : ""}`,
    `${machine.cpu}: ${machine.physicalCores} cores, ${machine.features.join(" ")}; ${machine.memoryGiB} GiB`,
    `${threads} threads, tier ${tier}`,
    "medians (min–max); ratios per round; ★ aim reached, ✓ hold kept, ✗ missed",
    ...(head.isQuick ? ["A quick run: it shows that the harness works, no more."] : []),
  ];
  process.stdout.write(`\n${lines.join("\n")}\n`);
}

function describe({ model, rounds, peers, load, others, failures }: PartResult): string {
  const cores = (value: number | undefined) => `${Math.round((value ?? 0) * 100)} %`;
  const top = [...others.top, { name: "ended meanwhile or kernel", cores: others.unnamedCores }]
    .map(({ name, cores: used }) => `${name} ${cores(used)}`)
    .join(", ");
  return [
    `${model}: ${rounds} round(s)`,
    ...peers.map(({ label, version }) => `${label}: ${version}`),
    `load average before ${load.before.join(" ")}, after ${load.after.join(" ")}`,
    `others used ${cores(others.cores)} of one core over the run (${top}), ` +
      `during samples ${cores(others.duringSamples?.median)} (median; most ${cores(others.duringSamples?.max)}); ` +
      `${cores(others.stolenCores)} stolen by the host`,
    ...failures.map(({ peer, what, message }) => `failed: ${peer}, ${what}: ${message}`),
  ].join("\n");
}

function tableOf({ rows }: PartResult): string {
  return drawTable(
    ["what", "oMLX", "peer", "ratio or figure", "hold", "aim", ""],
    rows.map((r) => [r.what, r.ours, r.theirs, r.figure, r.hold, r.aim, r.mark]),
  );
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
