import { join } from "node:path";
import { invalidRequest, OmlxError } from "#core/contract";
import { log } from "#core/log";
import { createApp, OpenRequests } from "#front/api";
import { expandPath, type Settings } from "#front/config";
import { McpManager, readMcpConfig } from "#front/mcp";
import type { McpTools } from "#front/service";
import type { CliContext } from "./commands.ts";
import { greeting } from "./greeting.ts";
import { openPool } from "./open.ts";

/** How long open requests may go on after the server was asked to end. */
const DRAIN_MS = 8000;
/** How long the last bytes may take to reach their clients. */
const FLUSH_MS = 1000;

/** `omlx serve`: serves until a signal ends it. */
export async function serve(args: readonly string[], context: CliContext): Promise<number> {
  const { settings, pool, words } = await openPool(args, context);
  if (words.length > 0) {
    throw invalidRequest(`Unknown argument ${JSON.stringify(words[0])}: serve takes flags only`);
  }
  const { version } = context;
  const mcp = startMcp(settings, version);
  const requests = new OpenRequests();
  const shutdown = new AbortController();
  const app = createApp({
    pool,
    apiKey: settings.apiKey,
    version,
    keepAliveMs: settings.keepAliveMs,
    bodyLimit: settings.bodyLimit,
    responsesFolder: join(settings.basePath, "responses"),
    mcp,
    requests,
    shutdown: shutdown.signal,
  });
  const ending = endSignal();
  const server = listen(app.compile().fetch, settings);
  app.server = server; // routes lift the idle timeout through it
  process.stdout.write(greeting({ settings, origin: originOf(server), pool, version }));

  const signal = await ending;
  log.info("server ends", { signal, open: requests.size });
  const flushed = server.stop();
  await within(DRAIN_MS, requests.idle());
  shutdown.abort(new OmlxError({ code: "overloaded", message: "The server is shutting down" }));
  await within(FLUSH_MS, flushed);
  await Promise.all([pool.stop(), mcp?.manager.stop()]);
  await server.stop(true);
  return 0;
}

/** Connects to the MCP servers of the configuration; null: there is none. */
function startMcp(settings: Settings, version: string): McpTools | null {
  if (settings.mcpConfig === "") return null;
  return {
    manager: new McpManager(readMcpConfig(expandPath(settings.mcpConfig)), version),
    expose: settings.mcpExposeTools,
    autoExecute: settings.mcpAutoExecute,
    maxRounds: settings.mcpMaxToolCalls,
  };
}

type Fetch = (request: Request, server: Bun.Server<unknown>) => Response | Promise<Response>;

/** @throws {Error} in words for the user, if the address cannot be had */
function listen(fetch: Fetch, { host, port }: Settings): Bun.Server<unknown> {
  try {
    return Bun.serve({
      hostname: host,
      port,
      fetch,
      idleTimeout: 10, // seconds; ends unfinished requests, and is lifted for each one that was read
      maxRequestBodySize: Number.MAX_SAFE_INTEGER, // the routes have a limit of their own, with an answer
    });
  } catch (error) {
    const code = (error as { code?: unknown }).code;
    const place = `${host}:${port}`;
    if (code === "EADDRINUSE") {
      throw new Error(
        `Cannot listen on ${place}: the port is in use; end the other program or choose another --port`,
        { cause: error },
      );
    }
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`Cannot listen on ${place}: ${reason}`, { cause: error });
  }
}

function originOf(server: Bun.Server<unknown>): string {
  const name = server.hostname ?? "127.0.0.1";
  return `http://${name.includes(":") ? `[${name}]` : name}:${server.port}`;
}

/** A terminal and a parent process may both pass on one Ctrl-C; nobody presses twice as fast. */
const REPEAT_MS = 300;

/** The first signal that asks this process to end. A second one ends it at once. */
function endSignal(): Promise<NodeJS.Signals> {
  const first = Promise.withResolvers<NodeJS.Signals>();
  let firstAt: number | undefined;
  const onSignal = (signal: NodeJS.Signals): void => {
    firstAt ??= performance.now();
    if (performance.now() - firstAt > REPEAT_MS) process.exit(130);
    first.resolve(signal);
  };
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(name, onSignal);
  return first.promise;
}

async function within(ms: number, work: Promise<unknown>): Promise<void> {
  const timer = Promise.withResolvers<void>();
  const timeout = setTimeout(timer.resolve, ms);
  await Promise.race([work, timer.promise]);
  clearTimeout(timeout);
}
