/** A client that takes no byte for so long is gone, even if its connection is not. */
const PATIENCE_MS = 300_000;

const encoder = new TextEncoder();

export const SSE_HEADERS = {
  "content-type": "text/event-stream",
  "cache-control": "no-cache",
  "x-accel-buffering": "no", // proxies must pass each event on at once
} as const;

/** Server-sent events: one unnamed event per JSON text. */
export const sseFrame = (json: string): string => `data: ${json}\n\n`;
/** Server-sent events with names, as some protocols want them. */
export const sseEvent = (name: string, json: string): string => `event: ${name}\n${sseFrame(json)}`;
export const SSE_DONE = "data: [DONE]\n\n";
export const SSE_KEEP_ALIVE = ": keep-alive\n\n";

export interface TrickleOptions {
  /** Sent at once, with the headers; may be empty. */
  readonly head: string;
  /** Sent whenever nothing was for keepAliveMs; a clock of its own drives it, whatever the source does. */
  readonly keepAlive: string | (() => string);
  readonly keepAliveMs: number;
  readonly headers: Readonly<Record<string, string>>;
  /** The client left before the end. */
  readonly onLeave: () => void;
  /** Time that bytes may wait for the client; then it counts as gone. */
  readonly patienceMs?: number;
}

/**
 * A 200 response that is written while it is made. `source` is pulled only as fast as the client reads, and must not
 * throw: an error is text like everything else by now.
 */
export function trickle(source: AsyncGenerator<string>, options: TrickleOptions): Response {
  const { head, keepAlive, keepAliveMs, headers, onLeave } = options;
  const patienceMs = options.patienceMs ?? PATIENCE_MS;
  let timer: Timer | undefined;
  let lastWrite = performance.now();

  const write = (controller: ReadableStreamDefaultController<Uint8Array>, text: string): void => {
    controller.enqueue(encoder.encode(text));
    lastWrite = performance.now();
  };

  const leave = async (): Promise<void> => {
    clearInterval(timer);
    timer = undefined;
    onLeave();
    await source.return(undefined);
  };

  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      if (head !== "") write(controller, head);
      timer = setInterval(() => {
        const quietMs = performance.now() - lastWrite;
        const isBehind = (controller.desiredSize ?? 0) <= 0; // bytes wait for the client
        if (!isBehind && quietMs >= keepAliveMs * 0.95) {
          write(controller, typeof keepAlive === "string" ? keepAlive : keepAlive());
        }
        if (!isBehind || quietMs < patienceMs) return;
        controller.error(new Error("The client does not read"));
        void leave();
      }, keepAliveMs / 5);
    },
    async pull(controller) {
      const next = await source.next();
      if (timer === undefined) return; // cancelled meanwhile
      if (!next.done) return write(controller, next.value);
      clearInterval(timer);
      controller.close();
    },
    cancel: () => leave(),
  });
  return new Response(body, { headers });
}

/** Resolves true as soon as `work` settles well, false after `ms`; rejects as `work` does. */
export async function settlesWithin(work: Promise<unknown>, ms: number): Promise<boolean> {
  const late = Promise.withResolvers<boolean>();
  const timer = setTimeout(late.resolve, ms, false);
  try {
    return await Promise.race([work.then(() => true), late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
