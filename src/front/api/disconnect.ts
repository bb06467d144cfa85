/** One request's end: the client left, the body's reader gave up, or the server shuts down. */
export interface Ending {
  readonly signal: AbortSignal;
  /**
   * Ends the work of this request. Whoever listens to the signal must call it, or take the listener back, when the work is
   * done: the shutdown's signal lives as long as the server, and keeps what listens through it.
   */
  abort(): void;
}

/** Joins every reason to stop working on `request` in one signal; null: whoever sent it need not wait for it. */
export function endingOf(request: Request | null, shutdown: AbortSignal): Ending {
  const own = new AbortController();
  return {
    signal: AbortSignal.any([...(request ? [request.signal] : []), shutdown, own.signal]),
    abort: () => own.abort(),
  };
}
