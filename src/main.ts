/** The one entry of both processes: the command line, or an engine that works for it. */
import { ENGINE_SUBCOMMAND } from "#core/contract";
import { unpackEmbedded } from "#embedded";
import packageJson from "../package.json" with { type: "json" };

// Each process loads its own half only: a start is short.
const args = process.argv.slice(2);
if (args[0] === ENGINE_SUBCOMMAND) void beEngine();
else void beCli();

async function beEngine(): Promise<void> {
  const { libraryDir } = unpackEmbedded();
  const [{ setLibraryDir }, { setGrammarWorkerUrl }, { runEngine }] = await Promise.all([
    import("#device/mlx"),
    import("#device/grammar"),
    import("#device/runner"),
  ]);
  if (libraryDir !== undefined) setLibraryDir(libraryDir);
  // A compiled binary resolves a Worker's entry only from here.
  setGrammarWorkerUrl(new URL("./device/grammar/worker.ts", import.meta.url));
  await runEngine();
}

async function beCli(): Promise<void> {
  const { runCli } = await import("#front/cli");
  runCli(args, {
    version: packageJson.version,
    bundledModels: () => unpackEmbedded().modelsDir,
    textWorkerUrl: new URL("./front/text/worker.ts", import.meta.url),
  });
}
