import { z } from "zod";
import type { KernelMode, ModelKind } from "#core/contract";

const LOG_LEVELS = ["trace", "debug", "info", "warning", "error"] as const;

/** One setting: its place in every source, its default, and what it is for. */
export interface Setting<T = unknown> {
  readonly flag: `--${string}`;
  readonly env: `OMLX_${string}`;
  /** "section.key" in settings.json; empty: not there. */
  readonly file: string;
  readonly default: T;
  /** Takes a string (flag, env) or a JSON value (file). */
  readonly schema: z.ZodType<T>;
  /** Stands for the value in the help text. */
  readonly value: string;
  readonly doc: string;
  /** Several uses of the flag add up. */
  readonly isList?: boolean | undefined;
  /** Never shown in messages. */
  readonly isSecret?: boolean | undefined;
}

const UNITS: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  k: 2 ** 10,
  kb: 2 ** 10,
  m: 2 ** 20,
  mb: 2 ** 20,
  g: 2 ** 30,
  gb: 2 ** 30,
  t: 2 ** 40,
  tb: 2 ** 40,
};

const SIZE = /^(\d+(?:\.\d+)?)\s*([kmgt]?b?)$/i;

/** Bytes: a number, or a number with KB, MB, GB or TB (1 KB = 1024 bytes). */
const size = z
  .union([z.number(), z.string()], { error: "must be a size such as 512MB or 8GB" })
  .transform((value, context): number => {
    const match = SIZE.exec(String(value).trim());
    const bytes = match
      ? Number(match[1]) * (UNITS[(match[2] ?? "").toLowerCase()] ?? Number.NaN)
      : Number.NaN;
    if (Number.isSafeInteger(Math.round(bytes))) return Math.round(bytes);
    context.addIssue({ code: "custom", message: "must be a size such as 512MB or 8GB" });
    return z.NEVER;
  });

/** A whole number in [min, max]. */
const int = (min: number, max: number) => {
  const error = `must be a whole number from ${min} to ${max}`;
  return z
    .union(
      [
        z.number(),
        z
          .string()
          .trim()
          .regex(/^-?\d+$/, { error }),
      ],
      { error },
    )
    .transform(Number)
    .pipe(z.int({ error }).min(min, { error }).max(max, { error }));
};

const oneOf = <const T extends string>(values: readonly T[]) =>
  z.enum(values, { error: `must be one of ${values.join(", ")}` });

/** Several values: a JSON list, or one string with commas. */
const list = z
  .union([z.string(), z.array(z.string())], { error: "must be a path, or several with commas" })
  .transform((value) => (typeof value === "string" ? value.split(",") : value))
  .transform((parts) => parts.map((part) => part.trim()).filter((part) => part !== ""));

/** "on" or "off"; in the file also true or false. */
const onOff = z
  .union([z.boolean(), z.enum(["on", "off", "true", "false"])], { error: "must be on or off" })
  .transform((value) => value === true || value === "on" || value === "true");

const KINDS = ["llm", "embedding", "reranker"] as const satisfies readonly ModelKind[];

/** Models and what they are for: a JSON object, or NAME=KIND with commas. */
const kinds = z
  .union([z.string(), z.record(z.string(), z.string())], {
    error: "must be NAME=KIND, or several with commas",
  })
  .transform((value, context): ReadonlyMap<string, ModelKind> => {
    const pairs =
      typeof value === "string"
        ? value.split(",").map((part) => part.trim().split(/=(?=[^=]*$)/))
        : Object.entries(value);
    const map = new Map<string, ModelKind>();
    for (const [name = "", kind] of pairs) {
      const known = KINDS.find((k) => k === kind?.trim());
      if (known) map.set(name.trim(), known);
      else if (name !== "") {
        const message = `must be NAME=KIND, where KIND is ${KINDS.join(", ")}`;
        context.addIssue({ code: "custom", message });
        return z.NEVER;
      }
    }
    return map;
  });

const text = z.string({ error: "must be text" }).trim();
const hour = 3_600_000;

const setting = <T>(s: Setting<T>): Setting<T> => s;

/** Every setting, once. */
export const SETTINGS = {
  basePath: setting({
    flag: "--base-path",
    env: "OMLX_BASE_PATH",
    file: "",
    default: "~/.omlx",
    schema: text.min(1, { error: "must not be empty" }),
    value: "PATH",
    doc: "Folder of settings.json, models and caches.",
  }),
  host: setting({
    flag: "--host",
    env: "OMLX_HOST",
    file: "server.host",
    default: "127.0.0.1",
    schema: text.min(1, { error: "must not be empty" }),
    value: "ADDRESS",
    doc: "Address to listen on; 0.0.0.0 is every network interface.",
  }),
  port: setting({
    flag: "--port",
    env: "OMLX_PORT",
    file: "server.port",
    default: 8000,
    schema: int(0, 65_535),
    value: "PORT",
    doc: "Port to listen on; 0 lets the system choose one.",
  }),
  modelDir: setting<readonly string[]>({
    flag: "--model-dir",
    env: "OMLX_MODEL_DIR",
    file: "model.model_dirs",
    default: [],
    schema: list,
    value: "PATH[,PATH]",
    doc: "Folders that hold model folders, one or two levels deep (default: ~/.omlx/models).",
    isList: true,
  }),
  modelKind: setting<ReadonlyMap<string, ModelKind>>({
    flag: "--model-kind",
    env: "OMLX_MODEL_KIND",
    file: "model.kinds",
    default: new Map(),
    schema: kinds,
    value: "NAME=KIND[,NAME=KIND]",
    doc: "What models are for (llm, embedding, reranker) where their files do not say it right.",
    isList: true,
  }),
  defaultModel: setting({
    flag: "--default-model",
    env: "OMLX_DEFAULT_MODEL",
    file: "model.default_model",
    default: "",
    schema: text,
    value: "NAME",
    doc: "Model that answers requests without a model name.",
  }),
  modelFallback: setting<boolean>({
    flag: "--model-fallback",
    env: "OMLX_MODEL_FALLBACK",
    file: "model.model_fallback",
    default: false,
    schema: onOff,
    value: "on|off",
    doc: "Answer requests for unknown models with the one that is loaded, else the default one (default: off).",
  }),
  apiKey: setting({
    flag: "--api-key",
    env: "OMLX_API_KEY",
    file: "auth.api_key",
    default: "",
    schema: text.regex(/^[\x21-\x7e]*$/, { error: "must be printable ASCII without blanks" }),
    value: "KEY",
    doc: "Key that every /v1 request must carry; empty: no key is asked for.",
    isSecret: true,
  }),
  logLevel: setting<(typeof LOG_LEVELS)[number]>({
    flag: "--log-level",
    env: "OMLX_LOG_LEVEL",
    file: "server.log_level",
    default: "info",
    schema: oneOf(LOG_LEVELS),
    value: LOG_LEVELS.join("|"),
    doc: "Log lines below this level are dropped.",
  }),
  maxConcurrentRequests: setting({
    flag: "--max-concurrent-requests",
    env: "OMLX_MAX_CONCURRENT_REQUESTS",
    file: "scheduler.max_concurrent_requests",
    default: 8,
    schema: int(1, 1024),
    value: "N",
    doc: "Requests that one model computes side by side; more of them wait.",
  }),
  maxQueue: setting({
    flag: "--max-queue",
    env: "OMLX_MAX_QUEUE",
    file: "scheduler.max_queue",
    default: 128,
    schema: int(0, 100_000),
    value: "N",
    doc: "Requests that may wait for one model; beyond that they are refused with Retry-After.",
  }),
  kernels: setting<KernelMode>({
    flag: "--kernels",
    env: "OMLX_KERNELS",
    file: "engine.kernels",
    default: "native",
    schema: oneOf(["native", "exact", "int8", "stock"]),
    value: "native|exact|int8|stock",
    doc: "Arithmetic: own CPU kernels with activations of 16 bits (native), in float32 (exact) or of 8 bits (int8), or stock MLX operations.",
  }),
  threads: setting({
    flag: "--threads",
    env: "OMLX_THREADS",
    file: "engine.threads",
    default: 0,
    schema: int(0, 1024),
    value: "N",
    doc: "Threads of the CPU kernels; 0: one per physical core.",
  }),
  contextWindow: setting({
    flag: "--context-window",
    env: "OMLX_CONTEXT_WINDOW",
    file: "sampling.max_context_window",
    default: 0,
    schema: int(0, 2 ** 30),
    value: "TOKENS",
    doc: "Tokens of prompt and answer together; 0: what the model allows.",
  }),
  cacheSize: setting({
    flag: "--cache-size",
    env: "OMLX_CACHE_SIZE",
    file: "cache.size",
    default: 0,
    schema: size,
    value: "SIZE",
    doc: "Memory that keys and values of each loaded model grow to; 0: up to half of what the memory limit leaves.",
  }),
  memoryLimit: setting({
    flag: "--memory-limit",
    env: "OMLX_MEMORY_LIMIT",
    file: "memory.limit",
    default: 0,
    schema: size,
    value: "SIZE",
    doc: "Memory that all loaded models may use together; 0: 80 % of the machine's.",
  }),
  maxLoadedModels: setting({
    flag: "--max-loaded-models",
    env: "OMLX_MAX_LOADED_MODELS",
    file: "model.max_loaded",
    default: 0,
    schema: int(0, 1024),
    value: "N",
    doc: "Models loaded at the same time; 0: as many as fit.",
  }),
  prefillTargetMs: setting({
    flag: "--prefill-target-ms",
    env: "OMLX_PREFILL_TARGET_MS",
    file: "scheduler.prefill_target_ms",
    default: 100,
    schema: int(1, 250),
    value: "MS",
    doc: "Time that one piece of a prompt may take before running answers go on; twice that while none runs.",
  }),
  stallTimeoutMs: setting({
    flag: "--stall-timeout-ms",
    env: "OMLX_STALL_TIMEOUT_MS",
    file: "engine.stall_timeout_ms",
    default: 10_000,
    schema: int(100, hour),
    value: "MS",
    doc: "An engine that makes no step for so long while it has work is restarted.",
  }),
  loadTimeoutMs: setting({
    flag: "--load-timeout-ms",
    env: "OMLX_LOAD_TIMEOUT_MS",
    file: "engine.load_timeout_ms",
    default: 120_000,
    schema: int(100, hour),
    value: "MS",
    doc: "Loading a model fails when it makes no progress for so long.",
  }),
  keepAliveMs: setting({
    flag: "--keep-alive-ms",
    env: "OMLX_KEEP_ALIVE_MS",
    file: "server.keep_alive_ms",
    default: 5000,
    schema: int(10, 60_000),
    value: "MS",
    doc: "Silence after which a waiting client gets a sign of life.",
  }),
  mcpConfig: setting({
    flag: "--mcp-config",
    env: "OMLX_MCP_CONFIG",
    file: "mcp.config_path",
    default: "",
    schema: text,
    value: "FILE",
    doc: "JSON file of MCP servers, in the mcpServers shape of other clients.",
  }),
  mcpExposeTools: setting({
    flag: "--mcp-expose-tools",
    env: "OMLX_MCP_EXPOSE_TOOLS",
    file: "mcp.expose_tools",
    default: true,
    schema: onOff,
    value: "on|off",
    doc: "Models are offered the tools of MCP servers unless a request says otherwise.",
  }),
  mcpAutoExecute: setting({
    flag: "--mcp-auto-execute",
    env: "OMLX_MCP_AUTO_EXECUTE",
    file: "mcp.auto_execute",
    default: false,
    schema: onOff,
    value: "on|off",
    doc: "The server runs calls of MCP tools itself and goes on with their results.",
  }),
  mcpMaxToolCalls: setting({
    flag: "--mcp-max-tool-calls",
    env: "OMLX_MCP_MAX_TOOL_CALLS",
    file: "mcp.max_tool_calls",
    default: 10,
    schema: int(1, 1000),
    value: "N",
    doc: "Rounds of calls that the server runs for one request.",
  }),
  bodyLimit: setting({
    flag: "--body-limit",
    env: "OMLX_BODY_LIMIT",
    file: "server.body_limit",
    default: 256 * 2 ** 20,
    schema: size,
    value: "SIZE",
    doc: "Largest request body.",
  }),
} as const;

export type SettingName = keyof typeof SETTINGS;

/** Every setting's value. `basePath` and `modelDir` hold absolute paths, `modelDir` at least one. */
export type Settings = {
  readonly [K in SettingName]: (typeof SETTINGS)[K] extends Setting<infer T> ? T : never;
};

export const SETTING_NAMES = Object.keys(SETTINGS) as readonly SettingName[];
