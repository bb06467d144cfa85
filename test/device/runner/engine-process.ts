/** What main.ts does for the engine subcommand, for tests from source. */
import { runEngine } from "#device/runner";

await runEngine();
