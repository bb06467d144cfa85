import { OmlxError } from "#core/contract";
import { describeSettings } from "#front/config";
import { serve } from "./serve.ts";

/** What only the main module knows. */
export interface CliContext {
  readonly version: string;
  /**
   * Folder that holds the folder of the model that comes with the program, unpacked if need be; undefined: the program
   * carries none.
   */
  readonly bundledModels: () => string | undefined;
  /** The text Worker's entry. */
  readonly textWorkerUrl: URL;
}

interface Command {
  readonly doc: string;
  /** @returns the exit code */
  readonly run: (args: readonly string[], context: CliContext) => Promise<number> | number;
}

const COMMANDS: Readonly<Record<string, Command>> = {
  serve: { doc: "Serve the models over HTTP (the default command)", run: serve },
  version: { doc: "Print the version", run: (_, { version }) => say(version) },
  help: { doc: "Print this text", run: () => say(helpText()) },
};

/** Spellings that everybody tries. */
const ALIASES: Readonly<Record<string, string>> = {
  "--help": "help",
  "-h": "help",
  "--version": "version",
  "-v": "version",
};

/** @returns the exit code; a wrong command line is told on standard error and gives 2 */
export async function runCommand(args: readonly string[], context: CliContext): Promise<number> {
  try {
    const asked = args.find((arg) => Object.hasOwn(ALIASES, arg));
    if (asked !== undefined) return await pick(ALIASES[asked] ?? "").run([], context);
    const [first = "serve", ...rest] = args;
    if (first.startsWith("-")) return await pick("serve").run(args, context);
    return await pick(first).run(rest, context);
  } catch (error) {
    if (!(error instanceof OmlxError) || error.code !== "invalid_request") throw error;
    process.stderr.write(`omlx: ${error.message} (omlx --help lists everything)\n`);
    return 2;
  }
}

function pick(name: string): Command {
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command) return command;
  throw new OmlxError({
    code: "invalid_request",
    message: `Unknown command ${JSON.stringify(name)}: there are ${Object.keys(COMMANDS).join(", ")}`,
  });
}

function say(text: string): number {
  process.stdout.write(`${text}\n`);
  return 0;
}

function helpText(): string {
  const commands = Object.entries(COMMANDS).map(([name, { doc }]) => `  ${name.padEnd(10)}${doc}`);
  return [
    "oMLX turns this machine into a private AI server.",
    "",
    "Usage: omlx [command] [flags]",
    "",
    "Commands:",
    ...commands,
    "",
    "Flags of serve (each also an environment variable):",
    describeSettings(),
  ].join("\n");
}
