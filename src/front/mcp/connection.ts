import type { Client } from "@modelcontextprotocol/sdk/client/index.js";
import type { Transport } from "@modelcontextprotocol/sdk/shared/transport.js";
import { log } from "#core/log";
import type { McpServerConfig, McpTarget } from "./config.ts";
import { boundedFetch } from "./fetch.ts";
import { failure, type McpResult, readResult } from "./result.ts";

type Sdk = typeof import("./sdk.ts");

export type McpState = "disconnected" | "connecting" | "connected" | "error";

/** A tool as its server describes it. */
export interface ServerTool {
  readonly name: string;
  readonly description: string;
  /** JSON schema of the arguments. */
  readonly inputSchema: unknown;
}

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (progress: McpProgress) => void;
}

export interface McpProgress {
  readonly progress: number;
  readonly total: number | undefined;
  readonly message: string | undefined;
}

const FIRST_RETRY_MS = 1000;
const LAST_RETRY_MS = 60_000;
/** A call waits so long for a server that is just connecting. */
const CONNECT_WAIT_MS = 10_000;
/** A call that shows progress may take so many times its timeout. */
const PROGRESS_FACTOR = 20;
/** Programs need a while to start, however impatient their calls are. */
const MIN_CONNECT_MS = 10_000;
const MAX_TOOLS = 2000;
/** Lines that are no message; a program that prints so many of them speaks another language. */
const MAX_NOISE = 100;

/** One server: connects, lists its tools, follows their changes, and connects again whenever it was lost. */
export class McpConnection {
  readonly config: McpServerConfig;
  readonly #version: string;
  #state: McpState = "disconnected";
  #error: string | undefined;
  #tools: readonly ServerTool[] = [];
  #client: Client | undefined;
  #retryMs = FIRST_RETRY_MS;
  #timer: Timer | undefined;
  #triedAtMs = 0;
  #isStopped = false;
  /** Resolves when the state changes next. */
  #changed = Promise.withResolvers<void>();

  constructor(config: McpServerConfig, version: string) {
    this.config = config;
    this.#version = version;
  }

  get state(): McpState {
    return this.#state;
  }

  /** Why it is not connected. */
  get error(): string | undefined {
    return this.#error;
  }

  /** Those that the configuration allows. */
  get tools(): readonly ServerTool[] {
    return this.#tools;
  }

  /** Begins to connect; never rejects, and goes on trying until stop(). */
  start(): void {
    const { target, problem, isEnabled } = this.config;
    if (!isEnabled) return;
    if (target === null) this.#become("error", problem);
    else void this.#connect(target);
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    const client = this.#client;
    this.#client = undefined;
    this.#become("disconnected", undefined);
    await client?.close().catch(() => {});
  }

  /** Calls a tool; never rejects: what goes wrong is the result. */
  async call(
    tool: string,
    args: Record<string, unknown>,
    options: CallOptions,
  ): Promise<McpResult> {
    const client = await this.#ready();
    if (!client) {
      const why = this.#error === undefined ? "" : `: ${this.#error}`;
      return failure(`MCP server "${this.config.name}" is not connected${why}`);
    }
    const { timeoutMs } = this.config;
    // The SDK listens for ever, and cancels also a call that has its result.
    const own = new AbortController();
    const onAbort = () => own.abort(options.signal?.reason);
    options.signal?.addEventListener("abort", onAbort);
    if (options.signal?.aborted) onAbort();
    try {
      const raw = await client.callTool({ name: tool, arguments: args }, undefined, {
        timeout: timeoutMs,
        resetTimeoutOnProgress: true,
        maxTotalTimeout: timeoutMs * PROGRESS_FACTOR,
        signal: own.signal,
        onprogress: ({ progress, total, message }) =>
          options.onProgress?.({ progress, total, message }),
      });
      return readResult(raw as Parameters<typeof readResult>[0]);
    } catch (error) {
      const message = messageOf(error);
      if (this.config.target?.transport !== "stdio" && isLost(error)) this.#lose(client, message);
      return failure(`MCP tool "${tool}" failed: ${message}`);
    } finally {
      options.signal?.removeEventListener("abort", onAbort);
    }
  }

  /** The client, as soon as it is connected; undefined after a while. */
  async #ready(): Promise<Client | undefined> {
    const { target } = this.config;
    const isWaiting = this.#state === "error" && target !== null && !this.#isStopped;
    if (isWaiting && performance.now() - this.#triedAtMs > FIRST_RETRY_MS) {
      clearTimeout(this.#timer); // someone needs it now
      void this.#connect(target);
    }
    const until = performance.now() + Math.min(CONNECT_WAIT_MS, this.config.timeoutMs);
    while (this.#state === "connecting") {
      const left = until - performance.now();
      if (left <= 0) break;
      let timer: Timer | undefined;
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, left);
      });
      await Promise.race([this.#changed.promise, late]);
      clearTimeout(timer);
    }
    return this.#state === "connected" ? this.#client : undefined;
  }

  async #connect(target: McpTarget): Promise<void> {
    this.#triedAtMs = performance.now();
    this.#become("connecting", this.#error);
    const sdk = await import("./sdk.ts");
    if (this.#isStopped) return;
    const client = new sdk.Client({ name: "omlx", version: this.#version });
    const timeout = Math.max(MIN_CONNECT_MS, this.config.timeoutMs);
    try {
      const transport = makeTransport(sdk, target);
      client.onclose = () => this.#lose(client, "the connection was closed");
      this.#watch(sdk, client, transport);
      await withinTime(client.connect(transport, { timeout }), timeout);
      if (this.#isStopped) throw new Error("stopped");
      const list = async () => {
        this.#tools = await this.#list(client);
      };
      if (client.getServerCapabilities()?.tools) {
        client.setNotificationHandler(sdk.ToolListChangedNotificationSchema, () => {
          list().catch((error: unknown) => this.#note("cannot list tools", messageOf(error)));
        });
        await list();
      }
      this.#client = client;
      this.#retryMs = FIRST_RETRY_MS;
      this.#become("connected", undefined);
      log.info("MCP server connected", { server: this.config.name, tools: this.#tools.length });
    } catch (error) {
      await client.close().catch(() => {});
      this.#retry(messageOf(error));
    }
  }

  /** What a server writes that is no message: logged for those who look, bounded for everybody. */
  #watch({ StdioClientTransport }: Sdk, client: Client, transport: Transport): void {
    let noise = 0;
    client.onerror = (error) => {
      this.#note("error", messageOf(error));
      if (!(transport instanceof StdioClientTransport) || ++noise !== MAX_NOISE) return;
      const { pid } = transport;
      if (pid !== null) process.kill(pid, "SIGKILL");
      this.#lose(
        client,
        "the program writes something else than MCP messages to its standard output",
      );
    };
    if (!(transport instanceof StdioClientTransport)) return;
    transport.stderr?.on("data", (chunk: Buffer) => {
      this.#note("stderr", chunk.subarray(0, 500).toString("utf8").trimEnd());
    });
  }

  async #list(client: Client): Promise<ServerTool[]> {
    const tools: ServerTool[] = [];
    let cursor: string | undefined;
    do {
      const page = await client.listTools(cursor === undefined ? {} : { cursor }, {
        timeout: this.config.timeoutMs,
      });
      for (const { name, description, inputSchema } of page.tools) {
        if (this.config.allows(name))
          tools.push({ name, description: description ?? "", inputSchema });
      }
      cursor = page.nextCursor;
    } while (cursor !== undefined && tools.length < MAX_TOOLS);
    return tools;
  }

  #lose(client: Client, reason: string): void {
    if (this.#isStopped || this.#client !== client) return;
    this.#client = undefined;
    client.close().catch(() => {});
    log.warning("MCP server lost", { server: this.config.name, reason });
    this.#retry(reason);
  }

  #retry(reason: string): void {
    if (this.#isStopped) return;
    this.#tools = [];
    this.#become("error", reason);
    const { target } = this.config;
    this.#timer = setTimeout(() => target && void this.#connect(target), this.#retryMs);
    this.#timer.unref();
    this.#retryMs = Math.min(LAST_RETRY_MS, this.#retryMs * 2);
  }

  #become(state: McpState, error: string | undefined): void {
    this.#state = state;
    this.#error = error;
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }

  #note(what: string, text: string): void {
    log.debug(`MCP server ${what}`, { server: this.config.name, text: text.slice(0, 500) });
  }
}

function makeTransport(sdk: Sdk, target: McpTarget): Transport {
  if (target.transport === "stdio") {
    const { command, args, env, cwd } = target;
    return new sdk.StdioClientTransport({
      command,
      args: [...args],
      env: { ...env },
      stderr: "pipe",
      ...(cwd === undefined ? {} : { cwd }),
    });
  }
  const url = new URL(target.url);
  const options = { requestInit: { headers: { ...target.headers } }, fetch: boundedFetch };
  return target.transport === "sse"
    ? new sdk.SSEClientTransport(url, options)
    : (new sdk.StreamableHTTPClientTransport(url, options) as Transport);
}

/** Whether a failed call says that the server is not there, rather than that the tool failed. */
function isLost(error: unknown): boolean {
  const { code } = (error ?? {}) as { code?: unknown };
  // JSON-RPC errors are answers; everything else comes from the wire. -32000: connection closed; 404: session unknown.
  return typeof code !== "number" || code === -32000 || code === 404;
}

async function withinTime<T>(work: Promise<T>, ms: number): Promise<T> {
  let timer: Timer | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${ms / 1000} s`)), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

const messageOf = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).slice(0, 1000);
