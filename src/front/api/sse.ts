/** A pause on the wire this long is filled, so that no proxy or client gives up on a slow answer. */
export const KEEP_ALIVE_MS = 5000;

const encoder = new TextEncoder();

export const SSE_HEADERS = {
  "content-type": "text/event-stream",
  "cache-control": "no-cache",
  "x-accel-buffering": "no", // proxies must pass each event on at once
} as const;

/** Server-sent events: one unnamed event per JSON text. */
export const sseFrame = (json: string): string => `data: ${json}\n\n`;
export const SSE_DONE = "data: [DONE]\n\n";
export const SSE_KEEP_ALIVE = ": keep-alive\n\n";

export interface TrickleOptions {
  /** Sent at once, with the headers. */
  readonly head: string;
  /** Sent whenever nothing was for keepAliveMs; a clock of its own drives it, whatever the source does. */
  readonly keepAlive: string;
  readonly keepAliveMs: number;
  readonly headers: Readonly<Record<string, string>>;
  /** The client left before the end. */
  readonly onLeave: () => void;
}

/**
 * A 200 response that is written while it is made. `source` is pulled only as fast as the client reads, and must not
 * throw: an error is text like everything else by now.
 */
export function trickle(source: AsyncGenerator<string>, options: TrickleOptions): Response {
  const { head, keepAlive, keepAliveMs, headers, onLeave } = options;
  let timer: Timer | undefined;
  let lastWrite = performance.now();

  const write = (controller: ReadableStreamDefaultController<Uint8Array>, text: string): void => {
    controller.enqueue(encoder.encode(text));
    lastWrite = performance.now();
  };

  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      write(controller, head);
      timer = setInterval(() => {
        const isQuiet = performance.now() - lastWrite >= keepAliveMs * 0.95;
        // A reader that is behind has bytes waiting already.
        if (isQuiet && (controller.desiredSize ?? 0) > 0) write(controller, keepAlive);
      }, keepAliveMs / 5);
    },
    async pull(controller) {
      const next = await source.next();
      if (timer === undefined) return; // cancelled meanwhile
      if (!next.done) return write(controller, next.value);
      clearInterval(timer);
      controller.close();
    },
    async cancel() {
      clearInterval(timer);
      timer = undefined;
      onLeave();
      await source.return(undefined);
    },
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
