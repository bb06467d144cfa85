/** Rounds: in each one, every measurement goes over all peers before the next one begins. */
import { type CpuMark, markCpu, otherWork } from "./machine.ts";
import { type Group, type Measurement, UNITS, type Values, warmUp } from "./measurements.ts";
import { type RunningServer, type Server, startServer } from "./peers.ts";
import { runIsOver } from "./server-process.ts";
import type { Samples } from "./stats.ts";

export interface Failure {
  readonly peer: string;
  readonly what: string;
  readonly message: string;
}

/** One thing to do in a round. */
export interface Job {
  readonly what: string;
  readonly peer: string;
  readonly run: () => Promise<Values>;
}

/** Collects what a run gave. */
export class Run {
  readonly samples: Samples;
  readonly failures: Failure[] = [];
  /** CPU taken away by the hypervisor during samples; 1 is one core. */
  readonly stolen: number[] = [];

  constructor(samples: Samples) {
    this.samples = samples;
  }

  /** Does the job and keeps its values; a failure is kept too and ends nothing. */
  async take(job: Job, round: number): Promise<void> {
    if (runIsOver()) return;
    const before: CpuMark = markCpu();
    try {
      const values = await job.run();
      const { cores, stolenCores } = otherWork(before, markCpu());
      this.stolen.push(stolenCores);
      for (const [key, value] of values) {
        this.samples.add({ key, peer: job.peer, round, value, others: cores });
      }
      const text = values.map(([key, value]) => `${key} ${withUnit(key, value)}`).join(", ");
      say(`round ${round + 1} ${job.peer}: ${text} (others ${Math.round(cores * 100)} %)`);
    } catch (error) {
      this.fail(job.peer, job.what, error);
    }
  }

  fail(peer: string, what: string, error: unknown): void {
    if (runIsOver()) return;
    const message = error instanceof Error ? error.message : String(error);
    say(`FAILED ${peer}, ${what}: ${message}`);
    // results are published: one line without paths of this machine
    const line = (message.split("\n", 1)[0] ?? "").replace(/(?:\/[\w.@+-]+){2,}/g, "<path>");
    this.failures.push({ peer, what, message: line });
  }
}

/** Starts what can be started; each server has answered once. */
export async function startAll(peers: readonly Server[], run: Run): Promise<RunningServer[]> {
  const servers: RunningServer[] = [];
  for (const peer of peers) {
    if (runIsOver()) break;
    say(`starting ${peer.label}`);
    try {
      const server = await startServer(peer);
      await warmUp(server);
      servers.push(server);
    } catch (error) {
      run.fail(peer.id, "start", error);
    }
  }
  return servers;
}

export interface Plan {
  readonly servers: readonly RunningServer[];
  readonly measurements: readonly Measurement[];
  readonly groups: ReadonlySet<Group>;
  readonly rounds: number;
  /** Rounds that slow peers take part in. */
  readonly slowRounds: number;
  /** Further jobs of a round, by what they stand beside. */
  readonly beside?: (measurement: Measurement, round: number) => readonly Job[];
}

export async function runRounds(plan: Plan, run: Run): Promise<void> {
  const wanted = plan.measurements.filter((m) => m.groups.some((group) => plan.groups.has(group)));
  for (let round = 0; round < plan.rounds; round++) {
    for (const measurement of wanted) {
      if (round >= (measurement.rounds ?? plan.rounds)) continue;
      const jobs = plan.servers
        .filter(({ peer }) => !peer.isSlow || (measurement.isForSlow && round < plan.slowRounds))
        .filter(({ peer }) => peer.isConcurrent || !measurement.isForConcurrent)
        .map((server): Job => {
          // the same words for all in this round, and new ones in the next
          const seed = `${round} ${measurement.name}`;
          const { id } = server.peer;
          return { what: measurement.name, peer: id, run: () => measurement.run(server, seed) };
        });
      jobs.push(...(plan.beside?.(measurement, round) ?? []));
      // who goes first changes from round to round
      const first = jobs.length > 0 ? round % jobs.length : 0;
      for (const job of [...jobs.slice(first), ...jobs.slice(0, first)]) await run.take(job, round);
    }
  }
}

export function unitOf(key: string): string {
  return UNITS[key.split("@", 1)[0] ?? ""]?.unit ?? "";
}

export function withUnit(key: string, value: number): string {
  return `${short(value)} ${unitOf(key)}`.trim();
}

/** Three digits or so. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  if (size >= 0.01 || size === 0) return value.toFixed(2);
  return value.toExponential(1);
}

/** To the person who waits; the table goes to standard output. */
export function say(line: string): void {
  process.stderr.write(`${line}\n`);
}
