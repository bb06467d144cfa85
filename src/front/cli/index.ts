/**
 * @module The command line. The only room that ends the process and talks on standard output.
 *
 * - Exit code 0: done; 1: it failed; 2: the command line is wrong. A failure is one line on standard error.
 */
import { type CliContext, runCommand } from "./commands.ts";

export type { CliContext } from "./commands.ts";

/** Runs one command and ends the process with its exit code. `args` are argv without program and script. */
export function runCli(args: readonly string[], context: CliContext): void {
  runCommand(args, context).then(
    (code) => process.exit(code),
    (error) => {
      process.stderr.write(`omlx: ${error instanceof Error ? error.message : String(error)}\n`);
      process.exit(1);
    },
  );
}
