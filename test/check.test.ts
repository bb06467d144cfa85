/** Types, lint, format, dead code and generated files, as `npm run check` and `npm run gen` see them. */
import { expect, test } from "bun:test";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "..");
const bin = (name: string) => join(ROOT, "node_modules", ".bin", name);

test.each([
  ["biome finds nothing", [bin("biome"), "check", "."]],
  ["the types fit", [bin("tsc"), "--noEmit"]],
  ["knip finds nothing that is unused", [bin("knip"), "--no-progress"]],
  [
    "the bindings are generated from the headers",
    [process.execPath, "scripts/gen-symbols.ts", "--check"],
  ],
] as const)(
  "%s",
  async (_, command) => {
    const run = Bun.spawn([...command], { cwd: ROOT, stdout: "pipe", stderr: "pipe" });
    const [output, errors] = await Promise.all([run.stdout.text(), run.stderr.text()]);
    expect({ status: await run.exited, output: output + errors }).toMatchObject({ status: 0 });
  },
  120_000,
);
