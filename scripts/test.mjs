/**
 * `npm test [-- files]`: set up what is missing, run the tests with bun, print the ten slowest files.
 * With --long: the tests that need more time or tools (OMLX_LONG=1 switches them on).
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { BUN, ROOT, run as runCommand, setUp } from "./setup.mjs";

const args = process.argv.slice(2);
const isLong = args.includes("--long");
const rest = args.filter((arg) => arg !== "--long");
const report = join(ROOT, "build", "junit.xml");

setUp();
runCommand(BUN, ["scripts/python-packages.ts"]); // may take longer than a test
mkdirSync(join(ROOT, "build"), { recursive: true });
rmSync(report, { force: true });
const run = spawnSync(
  BUN,
  ["test", "--timeout", "60000", "--reporter=junit", `--reporter-outfile=${report}`, ...rest],
  {
    cwd: ROOT,
    stdio: "inherit",
    env: { ...process.env, ...(isLong ? { OMLX_LONG: "1" } : {}) },
  },
);
const { passed, failed } = summarize();
// a run that died has no report, or one without the failure
const failures = run.status === 0 ? failed : Math.max(failed, 1);
console.log(`${passed} passed, ${failures} failed`);
process.exit(failures > 0 ? 1 : 0);

/** Counts from the report; prints the slowest files on the way. */
function summarize() {
  if (!existsSync(report)) return { passed: 0, failed: 0 };
  const xml = readFileSync(report, "utf8");
  const attribute = (tag, name) => new RegExp(`\\b${name}="([^"]*)"`).exec(tag)?.[1] ?? "";
  const number = (tag, name) => Number(attribute(tag, name) || 0);
  const total = /<testsuites\b[^>]*>/.exec(xml)?.[0] ?? "";
  const failed = number(total, "failures") + number(total, "errors");
  const passed = number(total, "tests") - failed - number(total, "skipped");
  const files = [...xml.matchAll(/<testsuite\b[^>]*>/g)]
    .map(([tag]) => ({ name: attribute(tag, "name"), seconds: number(tag, "time") }))
    .filter(({ name }) => name.endsWith(".test.ts"))
    .sort((a, b) => b.seconds - a.seconds);
  console.log("\nSlowest files:");
  for (const { name, seconds } of files.slice(0, 10)) {
    console.log(`${seconds.toFixed(1).padStart(8)} s  ${name}`);
  }
  return { passed, failed };
}
