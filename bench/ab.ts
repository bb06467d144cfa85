/** `bun bench/ab.ts A B`: two of our own programs, interleaved, to judge a change. */
import { resolve } from "node:path";
import { COMMON_HELP, readAbArguments } from "./arguments.ts";
import { Run, runRounds, say, startAll, unitOf } from "./interleave.ts";
import { describeMachine, loadAverage, markCpu, otherWork } from "./machine.ts";
import { MEMORY, measurementsOf, UNITS } from "./measurements.ts";
import { omlx, removeTemporaryFolders } from "./peers.ts";
import { runIsOver, stopAll } from "./server-process.ts";
import { Samples, type Summary } from "./stats.ts";
import { drawTable, withRange } from "./table.ts";

const HELP = `bun bench/ab.ts A B [flags]       A, B: binaries, or main.ts of two checkouts
${COMMON_HELP}
`;
/** Below this a difference is not worth a sentence. */
const NOTABLE = 0.01;
/** Fewer rounds cannot tell a difference from an accident. */
const MIN_ROUNDS = 3;

type Arguments = NonNullable<ReturnType<typeof readAbArguments>>;

async function main(args: Arguments): Promise<void> {
  const { threads, tier } = args;
  const [part, ...more] = args.parts;
  if (!part || more.length > 0) throw new Error("ab measures one model: --shape NAME");
  const { rounds, sizes, groups } = part;
  const modelFolder = part.shape === "default" ? undefined : (await part.files()).folder;
  const peers = args.programs.map((program, i) => {
    const id = i === 0 ? "a" : "b";
    return omlx({
      id,
      label: id.toUpperCase(),
      program: resolve(program),
      threads,
      modelFolder,
      tier,
    });
  });
  const run = new Run(new Samples());
  const loadBefore = loadAverage();
  const begin = markCpu();
  const servers = await startAll(peers, run);
  await runRounds(
    { servers, measurements: measurementsOf(sizes), groups, rounds, slowRounds: 0 },
    run,
  );
  if (groups.has("memory")) {
    for (const server of servers) {
      const { id } = server.peer;
      await run.take({ what: "memory", peer: id, run: () => MEMORY.run(server, "") }, 0);
    }
  }
  if (runIsOver()) return;
  const others = otherWork(begin, markCpu());

  const keys = [...new Set(run.samples.all.map(({ key }) => key))];
  const rows = keys.map((key) => {
    const ratio = run.samples.ratio({ key, peer: "b" }, { key, peer: "a" });
    return [
      key,
      withRange(run.samples.summary(key, "a"), unitOf(key)),
      withRange(run.samples.summary(key, "b"), unitOf(key)),
      withRange(ratio, "×"),
      verdict(key, ratio),
    ];
  });
  const { cpu, features } = describeMachine();
  process.stdout.write(
    `\n${cpu} (${features.join(" ")}), ${threads} threads, ${rounds} round(s); load before ${loadBefore.join(" ")}; ` +
      `others used ${Math.round(others.cores * 100)} % of one core\n\n` +
      `${drawTable(["", "A", "B", "B : A, per round", "B is"], rows)}\n`,
  );
  for (const { peer, what, message } of run.failures) say(`failed: ${peer}, ${what}: ${message}`);
}

/** A difference counts if the median shows it and no round contradicts. */
function verdict(key: string, ratio: Summary | undefined): string {
  if (!ratio || ratio.count < MIN_ROUNDS) return "";
  const isOneSided = ratio.min > 1 || ratio.max < 1;
  if (!isOneSided || Math.abs(ratio.median - 1) < NOTABLE) return "the same";
  const isLess = UNITS[key.split("@", 1)[0] ?? ""]?.lessIsBetter ?? false;
  return ratio.median > 1 === isLess ? "WORSE" : "better";
}

async function cleanUp(): Promise<void> {
  await stopAll();
  removeTemporaryFolders();
}

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => void cleanUp().then(() => process.exit(130)));
}
try {
  const args = readAbArguments(process.argv.slice(2));
  if (args) await main(args);
  else process.stdout.write(HELP);
} catch (error) {
  say(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
} finally {
  await cleanUp();
}
