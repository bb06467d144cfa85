import { join } from "node:path";
import { pythonPackages } from "../../scripts/python-packages.ts";
import type { TestServer } from "./server.ts";

const SCRIPTS = join(import.meta.dir, "..", "python");

/**
 * Runs test/python/`script` to its end. The official clients find the server by their own environment variables, so that
 * `OpenAI()`, `Anthropic()` and `cohere.ClientV2()` speak to it without arguments.
 *
 * @returns what the script printed
 * @throws {Error} with its traceback, when it failed
 */
export async function runPython(
  script: string,
  server: Pick<TestServer, "origin" | "baseURL">,
  args: readonly string[] = [],
  apiKey = "none",
): Promise<string> {
  const packages = await pythonPackages();
  const child = Bun.spawn(["python3", join(SCRIPTS, script), ...args], {
    env: {
      PATH: process.env["PATH"],
      PYTHONPATH: packages,
      PYTHONDONTWRITEBYTECODE: "1",
      PYTHONIOENCODING: "utf-8",
      NO_PROXY: "127.0.0.1,localhost",
      OPENAI_BASE_URL: server.baseURL,
      OPENAI_API_KEY: apiKey,
      ANTHROPIC_BASE_URL: server.origin,
      ANTHROPIC_API_KEY: apiKey,
      CO_API_URL: server.origin,
      CO_API_KEY: apiKey,
    },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, error, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  if (code !== 0) throw new Error(`${script} failed:\n${out}${error}`);
  return out;
}
