/** A server as a child process: started on a free port, watched until it is healthy, ended for sure. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Loading may fetch nothing, but Python on a busy machine takes its time. */
const START_LIMIT_MS = 180_000;
const END_LIMIT_MS = 5000;

export interface Command {
  readonly argv: (port: number) => readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

export interface ServerProcess {
  /** "http://127.0.0.1:12345" */
  readonly origin: string;
  readonly pid: number;
  /** performance.now() of the spawn, and of the first 200 of /health. */
  readonly spawnedAt: number;
  readonly healthyAt: number;
  /** Ends the process and waits for that. */
  stop(): Promise<void>;
}

/** What ends each process that runs. */
const running = new Set<() => Promise<void>>();
let isOver = false;

/** stopAll() was called: nothing can be measured any more. */
export function runIsOver(): boolean {
  return isOver;
}

/** Ends every server, also those that are starting; no more can be started. */
export async function stopAll(): Promise<void> {
  isOver = true;
  await stopServers();
}

/** Ends every server that runs now. */
export async function stopServers(): Promise<void> {
  await Promise.all([...running].map((stop) => stop()));
}

/** @throws {Error} with the end of what the process wrote, if it ends before it is healthy */
export async function startProcess({ argv, env = {} }: Command): Promise<ServerProcess> {
  const port = await freePort();
  if (isOver) throw new Error("the run is over");
  const folder = mkdtempSync(join(tmpdir(), "omlx-bench-"));
  const log = join(folder, "log");
  // Settings of the caller's own server must not leak into a measured one.
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("OMLX_"));
  const spawnedAt = performance.now();
  const child = Bun.spawn([...argv(port)], {
    env: { ...Object.fromEntries(inherited), ...env },
    stdin: "ignore",
    stdout: Bun.file(log),
    stderr: Bun.file(`${log}.err`),
  });
  const end = async () => {
    child.kill("SIGTERM");
    const late = setTimeout(() => child.kill("SIGKILL"), END_LIMIT_MS);
    await child.exited;
    clearTimeout(late);
    rmSync(folder, { recursive: true, force: true });
    running.delete(stop);
  };
  let ended: Promise<void> | undefined;
  const stop = () => {
    ended ??= end();
    return ended;
  };
  running.add(stop);
  const origin = `http://127.0.0.1:${port}`;
  while (!(await isHealthy(origin))) {
    const isLate = performance.now() - spawnedAt > START_LIMIT_MS;
    if (child.exitCode === null && child.signalCode === null && !isLate) {
      await Bun.sleep(1);
      continue;
    }
    const written = [log, `${log}.err`]
      .filter((file) => existsSync(file)) // gone if the run was broken off
      .map((file) => readFileSync(file, "utf8").slice(-1500));
    await stop();
    throw new Error(`did not start:\n${written.join("\n").trim()}`);
  }
  return { origin, pid: child.pid, spawnedAt, healthyAt: performance.now(), stop };
}

async function isHealthy(origin: string): Promise<boolean> {
  try {
    const response = await fetch(`${origin}/health`);
    await response.arrayBuffer();
    return response.ok;
  } catch {
    return false; // nobody listens yet
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const address = probe.address();
      const port = typeof address === "object" && address ? address.port : 0;
      probe.close(() => resolve(port));
    });
  });
}
