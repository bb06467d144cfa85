import { OmlxError } from "#core/contract";
import { describeSettings } from "#front/config";
import { EMBED_FLAGS, embed } from "./embed.ts";
import { LIST_FLAGS, list } from "./list.ts";
import type { OwnFlag } from "./open.ts";
import { RUN_FLAGS, run } from "./run.ts";
import { serve } from "./serve.ts";
import { show } from "./show.ts";

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
  /** What follows the command's name. */
  readonly usage: string;
  /** More to know, for its own help. */
  readonly more?: string;
  readonly flags?: readonly OwnFlag[];
  /** @returns the exit code */
  readonly run: (args: readonly string[], context: CliContext) => Promise<number> | number;
}

const COMMANDS: Readonly<Record<string, Command>> = {
  serve: {
    doc: "Serve the models over HTTP (the default command)",
    usage: "[flags]",
    run: serve,
  },
  run: {
    doc: "Answer one prompt in the terminal",
    usage: 'MODEL ["prompt" | -] [flags]',
    more: [
      "The answer goes to standard output as it is written, what it cost to standard error. Without a prompt, or where - stands",
      "in it, standard input is read: cat report.txt | omlx run MODEL Summarize: -",
    ].join("\n"),
    flags: RUN_FLAGS,
    run,
  },
  embed: {
    doc: "Turn texts into vectors",
    usage: 'MODEL ["text"…] [flags]',
    more: "A JSON list of numbers a line, in the order of the texts. Without texts every line of standard input is one.",
    flags: EMBED_FLAGS,
    run: embed,
  },
  list: {
    doc: "List the models on disk",
    usage: "[flags]",
    more: "Kind, type, size, context and, where a model cannot be served, why. * is the default model.",
    flags: LIST_FLAGS,
    run: list,
  },
  show: {
    doc: "Tell what is known of a model",
    usage: "MODEL [flags]",
    more: "Exit code 1 if it cannot be served.",
    run: show,
  },
  version: {
    doc: "Print the version",
    usage: "",
    run: (_, { version }) => say(version),
  },
  help: { doc: "Print this text", usage: "", run: () => say(helpText()) },
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
    const [first = "serve", ...rest] = args;
    const asked = flagsOf(args).find((arg) => Object.hasOwn(ALIASES, arg));
    if (asked !== undefined) {
      const isHelp = ALIASES[asked] === "help" && Object.hasOwn(COMMANDS, first);
      return isHelp ? say(commandHelp(first)) : await pick(ALIASES[asked] ?? "").run([], context);
    }
    if (first.startsWith("-")) return await pick("serve").run(args, context);
    return await pick(first).run(rest, context);
  } catch (error) {
    if (!(error instanceof OmlxError) || error.code !== "invalid_request") throw error;
    process.stderr.write(`omlx: ${error.message} (omlx --help lists everything)\n`);
    return 2;
  }
}

/** What comes before "--". */
function flagsOf(args: readonly string[]): readonly string[] {
  const end = args.indexOf("--");
  return end < 0 ? args : args.slice(0, end);
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
    "omlx COMMAND --help tells more of one of them.",
    "",
    "Flags of serve, run, list and show (each also an environment variable):",
    describeSettings(),
  ].join("\n");
}

function commandHelp(name: string): string {
  const { doc, usage, more, flags = [] } = pick(name);
  const own = flags.map(({ flag, value, doc }) => `  ${`${flag} ${value}`.padEnd(20)}  ${doc}`);
  const takesSettings = usage.includes("[flags]");
  return [
    `omlx ${`${name} ${usage}`.trimEnd()}`,
    "",
    `${doc}.`,
    ...(more === undefined ? [] : [more]),
    ...(own.length > 0 ? ["", "Flags:", ...own] : []),
    ...(takesSettings
      ? ["", "Settings (each also an environment variable):", describeSettings()]
      : []),
  ].join("\n");
}
