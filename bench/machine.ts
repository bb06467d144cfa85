/** What the numbers were measured on, and what else ran there. Names no host, user or path. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg, totalmem } from "node:os";

/** CPU features that decide which kernels run. */
const FEATURES = [
  ...["amx_tile", "amx_int8", "amx_bf16", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni"],
  ...["avx2", "fma", "f16c", "asimd", "asimddp", "i8mm", "bf16", "sve"],
];
/** Of /proc/stat and /proc/PID/stat, per second. */
const TICKS = 100;

export interface Machine {
  readonly cpu: string;
  /** Those of FEATURES that the CPU has. */
  readonly features: readonly string[];
  readonly logicalCores: number;
  readonly physicalCores: number;
  readonly memoryGiB: number;
}

export function describeMachine(): Machine {
  const info = readText("/proc/cpuinfo");
  const flags = new Set(/^(?:flags|Features)\s*:\s*(.*)$/m.exec(info)?.[1]?.split(/\s+/) ?? []);
  return {
    cpu: (cpus()[0]?.model ?? "unknown CPU").trim(),
    features: FEATURES.filter((name) => flags.has(name)),
    logicalCores: availableParallelism(),
    physicalCores: physicalCores(info),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
  };
}

function physicalCores(info: string): number {
  const cores = new Set<string>();
  for (const part of info.split("\n\n")) {
    const core = /^core id\s*:\s*(\d+)$/m.exec(part)?.[1];
    const socket = /^physical id\s*:\s*(\d+)$/m.exec(part)?.[1];
    if (core !== undefined) cores.add(`${socket}:${core}`);
  }
  const usable = availableParallelism();
  return cores.size > 0 ? Math.min(cores.size, usable) : usable;
}

/** Averages over 1, 5 and 15 minutes. */
export function loadAverage(): readonly number[] {
  return loadavg().map((value) => Math.round(value * 100) / 100);
}

interface Task {
  readonly name: string;
  readonly parent: number;
  /** CPU time of the process. */
  readonly ticks: number;
  /** CPU time of its ended children. */
  readonly ended: number;
}

/** CPU time spent up to now. Without /proc (macOS) everything is zero and nothing is reported. */
export interface CpuMark {
  readonly atMs: number;
  readonly tasks: ReadonlyMap<number, Task>;
  readonly busyTicks: number;
  readonly stolenTicks: number;
}

export function markCpu(): CpuMark {
  const tasks = new Map<number, Task>();
  for (const name of readText("/proc/stat") ? readdirSync("/proc") : []) {
    const task = /^\d+$/.test(name) ? readTask(name) : undefined;
    if (task) tasks.set(Number(name), task);
  }
  const total = readText("/proc/stat").split("\n", 1)[0]?.split(/\s+/).slice(1).map(Number) ?? [];
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, stolen = 0] = total;
  return {
    atMs: performance.now(),
    tasks,
    busyTicks: user + nice + system + irq + softirq,
    stolenTicks: stolen,
  };
}

function readTask(pid: string): Task | undefined {
  const text = readText(`/proc/${pid}/stat`);
  const close = text.lastIndexOf(")");
  if (close < 0) return undefined; // ended meanwhile
  const fields = text.slice(close + 2).split(" ");
  const [parent = 0, user = 0, system = 0, endedUser = 0, endedSystem = 0] = [
    ...[fields[1], fields[11], fields[12], fields[13], fields[14]].map(Number),
  ];
  return {
    name: text.slice(text.indexOf("(") + 1, close),
    parent,
    ticks: user + system,
    ended: endedUser + endedSystem,
  };
}

/** `pid` and everything below it. */
function treeOf(tasks: ReadonlyMap<number, Task>, pid: number): Set<number> {
  const tree = new Set([pid]);
  for (let size = 0; size < tree.size; ) {
    size = tree.size;
    for (const [child, { parent }] of tasks) if (tree.has(parent)) tree.add(child);
  }
  return tree;
}

export interface OtherWork {
  /** CPU used outside of this benchmark's processes; 1 is one core. */
  readonly cores: number;
  /** CPU that the hypervisor gave to somebody else; 1 is one core. */
  readonly stolenCores: number;
  /** By program name, the busiest first. */
  readonly top: readonly { readonly name: string; readonly cores: number }[];
  /** Of programs that had ended by then, and of the kernel. */
  readonly unnamedCores: number;
}

/** What ran between two marks besides this process and its children. */
export function otherWork(from: CpuMark, to: CpuMark): OtherWork {
  const seconds = Math.max((to.atMs - from.atMs) / 1000, 1 / TICKS);
  const cores = (ticks: number) => Math.max(0, Math.round((ticks / TICKS / seconds) * 100) / 100);
  const before = treeOf(from.tasks, process.pid);
  const after = treeOf(to.tasks, process.pid);
  const spentBy = (mark: CpuMark, tree: Set<number>) =>
    [...tree].reduce((total, pid) => {
      const task = mark.tasks.get(pid);
      return total + (task ? task.ticks + task.ended : 0);
    }, 0);
  const own = spentBy(to, after) - spentBy(from, before);

  const byName = new Map<string, number>();
  for (const [pid, { name, ticks }] of to.tasks) {
    if (after.has(pid)) continue;
    const spent = ticks - (from.tasks.get(pid)?.ticks ?? 0);
    if (spent > 0) byName.set(name, (byName.get(name) ?? 0) + spent);
  }
  const others = to.busyTicks - from.busyTicks - own;
  const named = [...byName.values()].reduce((sum, ticks) => sum + ticks, 0);
  return {
    cores: cores(others),
    unnamedCores: cores(others - named),
    stolenCores: cores(to.stolenTicks - from.stolenTicks),
    top: [...byName]
      .map(([name, ticks]) => ({ name, cores: cores(ticks) }))
      .filter((entry) => entry.cores >= 0.01)
      .sort((a, b) => b.cores - a.cores)
      .slice(0, 5),
  };
}

/** Bytes of memory that a process and its children hold; shared pages count in parts (PSS). NaN without /proc. */
export function memoryOf(pid: number): number {
  const { tasks } = markCpu();
  if (!tasks.has(pid)) return Number.NaN;
  let kib = 0;
  for (const member of treeOf(tasks, pid)) {
    const rollup = readText(`/proc/${member}/smaps_rollup`);
    kib += Number(/^Pss:\s+(\d+) kB$/m.exec(rollup)?.[1] ?? 0);
  }
  return kib * 1024;
}

/**
 * Gives a process and its children the CPU share of this one. Linux shares the CPU between sessions first and looks at
 * nice values only inside one: a server whose engine has a session of its own would else compete with all other work
 * when the benchmark itself has priority over it.
 */
export function shareSchedulingGroup(pid: number): void {
  const own = /nice (-?\d+)/.exec(readText("/proc/self/autogroup"))?.[1];
  if (own === undefined || own === "0") return;
  for (const member of treeOf(markCpu().tasks, pid)) {
    try {
      writeFileSync(`/proc/${member}/autogroup`, own);
    } catch {
      // ended meanwhile, or we may not
    }
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // another system, or a process that ended
  }
}
