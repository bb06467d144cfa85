/** The one entry of both processes: the command line, or an engine that works for it. */
import { ENGINE_SUBCOMMAND } from "#core/contract";
import { setGrammarWorkerUrl } from "#device/grammar";
import { setLibraryDir } from "#device/mlx";
import { runEngine } from "#device/runner";
import { unpackEmbedded } from "#embedded";
import { runCli } from "#front/cli";
import packageJson from "../package.json" with { type: "json" };

const args = process.argv.slice(2);

if (args[0] === ENGINE_SUBCOMMAND) {
  const { libraryDir } = unpackEmbedded();
  if (libraryDir !== undefined) setLibraryDir(libraryDir);
  // A compiled binary resolves a Worker's entry only from here.
  setGrammarWorkerUrl(new URL("./device/grammar/worker.ts", import.meta.url));
  void runEngine();
} else {
  runCli(args, {
    version: packageJson.version,
    bundledModels: () => unpackEmbedded().modelsDir,
    textWorkerUrl: new URL("./front/text/worker.ts", import.meta.url),
  });
}
