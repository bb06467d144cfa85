/** `npm start [-- flags of omlx serve]`: set up what is missing, then serve. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { ROOT, setUp } from "./setup.mjs";

setUp();
const server = spawn(join(ROOT, "dist", "omlx"), ["serve", ...process.argv.slice(2)], {
  stdio: "inherit",
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => server.kill(signal));
server.on("exit", (code, signal) => process.exit(signal ? 1 : (code ?? 1)));
