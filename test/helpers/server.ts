import { existsSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "..", "..");
/** The compiled program, as build.ts makes it. */
export const BINARY = join(ROOT, "dist", "omlx");

/** Folder of the default model's folder, as build.ts makes it. */
export const DEFAULT_MODELS = join(ROOT, "build", "models");
export const DEFAULT_MODEL = "SmolLM2-135M-Instruct";

/** The compiled binary, unless a source file is newer than it. */
function program(): readonly string[] {
  if (existsSync(BINARY)) {
    const built = statSync(BINARY).mtimeMs;
    const sources = readdirSync(join(ROOT, "src"), { recursive: true, withFileTypes: true });
    const isNewer = sources.some(
      (entry) => entry.isFile() && statSync(join(entry.parentPath, entry.name)).mtimeMs > built,
    );
    if (!isNewer) return [BINARY];
  }
  return [process.execPath, join(ROOT, "src", "main.ts")];
}

export interface ServerOptions {
  /** Folders that hold model folders; none: the model that comes with the program. */
  readonly modelDirs?: readonly string[];
  /** Further flags of `omlx serve`. */
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Another program than the one of this source tree; it sees `env` and its home, nothing else. */
  readonly program?: string;
}

export interface TestServer extends AsyncDisposable {
  /** "http://127.0.0.1:12345" */
  readonly origin: string;
  /** The origin with /v1, as SDKs take it. */
  readonly baseURL: string;
  readonly pid: number;
  /** Folder that is the server's home. */
  readonly home: string;
  /** What it wrote so far: standard output and log. */
  output(): string;
  /** Resolves with all output as soon as it holds `pattern`. */
  outputHas(pattern: RegExp): Promise<string>;
  /** Sends a signal and waits for the end; the exit code. */
  stop(signal?: NodeJS.Signals): Promise<number>;
}

/** Runs a command of the program to its end, in an empty home. */
export async function runProgram(
  args: readonly string[],
  env: Record<string, string> = {},
  stdin = "",
) {
  const home = mkdtempSync(join(tmpdir(), "omlx-test-"));
  try {
    const child = spawn(args, home, env, stdin);
    const [stdout, stderr, code] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    return { stdout, stderr, code };
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
}

function spawn(
  args: readonly string[],
  home: string,
  env: Readonly<Record<string, string>>,
  stdin = "",
) {
  const kept = Object.entries(process.env).filter(([key]) => !key.startsWith("OMLX_"));
  const cache = join(home, ".cache");
  const all = { ...Object.fromEntries(kept), HOME: home, XDG_CACHE_HOME: cache, ...env };
  return spawnIn([...program(), ...args], all, stdin);
}

function spawnIn(
  command: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  stdin = "",
) {
  const input = new TextEncoder().encode(stdin);
  return Bun.spawn([...command], { env, stdin: input, stdout: "pipe", stderr: "pipe" });
}

/** Starts the real server on a free port and waits until it listens. Dispose it, or call stop(). */
export async function startServer(options: ServerOptions = {}): Promise<TestServer> {
  const home = mkdtempSync(join(tmpdir(), "omlx-test-"));
  const dirs = (options.modelDirs ?? []).flatMap((dir) => ["--model-dir", dir]);
  const args = ["serve", "--port", "0", ...dirs, ...(options.args ?? [])];
  const child =
    options.program === undefined
      ? spawn(args, home, options.env ?? {})
      : spawnIn([options.program, ...args], { HOME: home, ...options.env });
  const printed = new Output();
  void printed.follow(child.stdout);
  void printed.follow(child.stderr);
  const stop = async (signal: NodeJS.Signals = "SIGTERM"): Promise<number> => {
    child.kill(signal);
    const code = await child.exited;
    rmSync(home, { recursive: true, force: true });
    return code;
  };

  const listening = printed.has(/http:\/\/[^\s/]+:\d+/);
  const code = await Promise.race([listening.then(() => null), child.exited]);
  if (code !== null) {
    rmSync(home, { recursive: true, force: true });
    throw new Error(`The server ended with code ${code}: ${printed.text}`);
  }
  const origin = /http:\/\/[^\s/]+:\d+/.exec(printed.text)?.[0] ?? "";
  return {
    origin,
    baseURL: `${origin}/v1`,
    pid: child.pid,
    home,
    output: () => printed.text,
    outputHas: (pattern) => printed.has(pattern),
    stop,
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode === null && child.signalCode === null) await stop();
    },
  };
}

/** Text that grows, and who waits for something in it. */
class Output {
  text = "";
  #waiting: { pattern: RegExp; resolve: (text: string) => void }[] = [];

  async follow(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      this.text += decoder.decode(chunk, { stream: true });
      this.#waiting = this.#waiting.filter(({ pattern, resolve }) => {
        if (!pattern.test(this.text)) return true;
        resolve(this.text);
        return false;
      });
    }
  }

  has(pattern: RegExp): Promise<string> {
    if (pattern.test(this.text)) return Promise.resolve(this.text);
    return new Promise((resolve) => this.#waiting.push({ pattern, resolve }));
  }
}

/** Process ids of a process's direct children. */
export async function childrenOf(pid: number): Promise<number[]> {
  const { stdout } = Bun.spawn(["pgrep", "-P", String(pid)], { stdout: "pipe" });
  return (await new Response(stdout).text()).split("\n").filter(Boolean).map(Number);
}

/** Asks again until `check` gives a value; fails after ten seconds with what it saw last. */
export async function eventually<T>(
  check: () => Promise<T | undefined> | T | undefined,
  what: string,
  limitMs = 10_000,
): Promise<T> {
  const end = performance.now() + limitMs;
  for (;;) {
    const value = await check();
    if (value !== undefined) return value;
    if (performance.now() > end) throw new Error(`Waited in vain for ${what}`);
    await Bun.sleep(20);
  }
}
