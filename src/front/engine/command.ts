import { ENGINE_SUBCOMMAND } from "#core/contract";

/** Where a compiled binary keeps the sources it was built from. */
const COMPILED = /^(?:\/\$bunfs\/|[A-Za-z]:[\\/]~BUN[\\/])/;

/**
 * Command line that starts an engine process from the program that runs now.
 *
 * A compiled binary is its own executable; from source the executable is bun and needs the entry script.
 *
 * @param main entry script of the program
 */
export function engineCommand(main: string = Bun.main): readonly string[] {
  return COMPILED.test(main)
    ? [process.execPath, ENGINE_SUBCOMMAND]
    : [process.execPath, main, ENGINE_SUBCOMMAND];
}
