/**
 * Runs the kernels' own test program on CPUs that this machine has not got, under qemu's user emulation: arm64 with and
 * without its newer instructions, cross-built, and x86-64 machines without AVX-512 or AVX2. Debian and Ubuntu have what is
 * needed in g++-aarch64-linux-gnu and qemu-user (or qemu-user-static).
 *
 *   bun scripts/kernels-qemu.ts [cpu] [part of a test's name]
 */
import { cpus } from "node:os";
import { join } from "node:path";
import { buildKernelTests } from "./native.ts";
import { run } from "./wheels.ts";

const ROOT = join(import.meta.dir, "..");
const SOURCE = join(ROOT, "libmlxc", "kernels");
const PROGRAM = "omlx_kernels_test";
const ARM_COMPILER = "aarch64-linux-gnu-g++";

interface EmulatedCpu {
  readonly arch: "arm64" | "x64";
  /** As qemu calls it. */
  readonly cpu: string;
  /** The tier that is chosen there. */
  readonly tier: string;
}

export const EMULATED_CPUS: readonly EmulatedCpu[] = [
  { arch: "arm64", cpu: "max", tier: "neon-i8mm" },
  { arch: "arm64", cpu: "neoverse-n1", tier: "neon" },
  { arch: "arm64", cpu: "cortex-a57", tier: "portable" },
  { arch: "x64", cpu: "Haswell", tier: "avx2" },
  { arch: "x64", cpu: "Nehalem", tier: "portable" },
];

/** What this machine lacks for this CPU, in words; null: nothing. */
export function missingTool({ arch }: EmulatedCpu): string | null {
  if (process.platform !== "linux") return "qemu's user emulation exists on Linux only";
  if (!emulator(arch)) return `needs ${emulatorName(arch)}`;
  if (arch === process.arch) return null;
  if (arch === "x64") return "needs an x86-64 machine";
  return Bun.which(ARM_COMPILER) ? null : `needs ${ARM_COMPILER}`;
}

/** Builds the test program as optimized as it ships and runs it there. Returns what it printed. */
export async function testOn(emulated: EmulatedCpu, ...args: readonly string[]): Promise<string> {
  const { arch, cpu } = emulated;
  const folder = arch === process.arch ? await buildKernelTests() : await crossBuild();
  const child = Bun.spawn([emulator(arch) ?? "", "-cpu", cpu, join(folder, PROGRAM), ...args], {
    stdout: "pipe",
    stderr: "pipe", // qemu names what it cannot emulate of a CPU
  });
  const [out, errors, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return code === 0 ? out : `${out}${errors}\nended with ${code}\n`;
}

/** For arm64 Linux, with nothing but the kernel needed there. Returns the folder. */
async function crossBuild(): Promise<string> {
  const build = join(ROOT, "build", "arm64");
  await run(
    [
      ...["cmake", "-S", SOURCE, "-B", build, `-DCMAKE_CXX_COMPILER=${ARM_COMPILER}`],
      ...["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"],
      "-DCMAKE_EXE_LINKER_FLAGS=-static",
    ],
    "cannot configure the kernels for arm64",
  );
  const jobs = String(Math.max(1, cpus().length));
  await run(
    ["cmake", "--build", build, "--target", PROGRAM, "--parallel", jobs],
    "cannot build the kernels for arm64",
  );
  return build;
}

const emulatorName = (arch: EmulatedCpu["arch"]) =>
  `qemu-${arch === "arm64" ? "aarch64" : "x86_64"}`;

const emulator = (arch: EmulatedCpu["arch"]) =>
  Bun.which(emulatorName(arch)) ?? Bun.which(`${emulatorName(arch)}-static`);

if (import.meta.main) {
  const [wanted, ...args] = process.argv.slice(2);
  let isGood = true;
  for (const emulated of EMULATED_CPUS) {
    if (wanted && wanted !== emulated.cpu) continue;
    const missing = missingTool(emulated);
    process.stdout.write(`${emulated.arch} ${emulated.cpu}: ${missing ?? ""}\n`);
    if (missing) continue;
    const output = await testOn(emulated, ...args);
    process.stdout.write(output);
    isGood &&= output.startsWith(`tier ${emulated.tier},`) && output.endsWith(" 0 failed\n");
  }
  process.exit(isGood ? 0 : 1);
}
