import { beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { EMULATED_CPUS, missingTool, testOn } from "../../scripts/kernels-qemu.ts";
import { buildKernelTests, buildNative } from "../../scripts/native.ts";
import { IS_LONG } from "../helpers/long.ts";

const MINUTE = 60_000;
/** Of every architecture; a build has those of its own, and the test program two that only it has. */
const TIERS = [
  ...["amx", "avx512vnni", "avx512", "avx2vnni", "avx2", "neon-i8mm", "neon", "portable"],
  ...["amx-emulated", "avx2vnni-evex"],
];
let programs = "";
let libraries = "";

beforeAll(async () => {
  libraries = (await buildNative()).dir;
  programs = await buildKernelTests();
}, 10 * MINUTE);

/** Runs one of the kernels' own test programs; its output is the message when it fails. */
async function runProgram(name: string, tier: string, folder = programs): Promise<string> {
  const child = Bun.spawn([join(folder, name)], {
    env: { ...process.env, OMLX_CPU_TIER: tier, LD_LIBRARY_PATH: libraries },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, errors] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return `${out}${errors}`;
}

if (IS_LONG) {
  describe("the kernels under the address and undefined-behaviour sanitizers", () => {
    const build = join(import.meta.dir, "..", "..", "build", "sanitized");
    beforeAll(async () => {
      const source = join(import.meta.dir, "..", "..", "libmlxc", "kernels");
      await command(["cmake", "-S", source, "-B", build, "-DOMLX_SANITIZE=ON"]);
      await command(["cmake", "--build", build, "--target", "omlx_kernels_test", "-j", "2"]);
    }, 30 * MINUTE);

    for (const tier of TIERS) {
      test(
        `omlx_kernels_test passes on ${tier}, where the CPU has it`,
        async () => {
          const output = await runProgram("omlx_kernels_test", tier, build);
          if (tier !== "portable" && isMissing(output)) return;
          expect(output).toMatch(/\n\d+ passed, 0 failed\n$/);
        },
        30 * MINUTE,
      );
    }
  });
}

describe.if(IS_LONG)("the kernels' own tests on other CPUs", () => {
  for (const emulated of EMULATED_CPUS) {
    const missing = missingTool(emulated);
    test.skipIf(missing !== null)(
      `choose ${emulated.tier} on ${emulated.arch} ${emulated.cpu} and pass${missing ? `: ${missing}` : ""}`,
      async () => {
        const output = await testOn(emulated);
        expect(output).toStartWith(`tier ${emulated.tier},`);
        expect(output).toMatch(/\n\d+ passed, 0 failed\n$/);
      },
      60 * MINUTE,
    );
  }
});

/** Runs a command to its end; its output is the message when it fails. */
async function command(words: readonly string[]): Promise<void> {
  const child = Bun.spawn([...words], { stdout: "pipe", stderr: "pipe" });
  const [out, errors, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  if (code !== 0) throw new Error(`${words.join(" ")}: ${out}${errors}`);
}

const isMissing = (output: string) => output.includes("has no such tier");

describe("the kernels' own tests", () => {
  test(
    "omlx_kernels_test passes with every tier that the CPU has, side by side",
    async () =>
      expect(await runProgram("omlx_kernels_test", "")).toMatch(/\n\d+ passed, 0 failed\n$/),
    3 * MINUTE,
  );

  for (const tier of TIERS) {
    test(
      `omlx_kernels_test passes on ${tier}, where the CPU has it`,
      async () => {
        const output = await runProgram("omlx_kernels_test", tier);
        if (tier !== "portable" && isMissing(output)) return;
        expect(output).toMatch(/\n\d+ passed, 0 failed\n$/);
        expect(output).toStartWith(`tier ${tier}`);
      },
      MINUTE,
    );
  }

  test(
    "omlx_primitives_test passes: the kernels as operations of MLX",
    async () => {
      expect(await runProgram("omlx_primitives_test", "")).toMatch(/\n\d+ passed, 0 failed\n$/);
    },
    MINUTE,
  );
});
