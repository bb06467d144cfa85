/** Counts the requests that the server is working on, so that a shutdown can wait for them. */
export class OpenRequests {
  #count = 0;
  #waiters: (() => void)[] = [];

  get size(): number {
    return this.#count;
  }

  /** Counts one request until the returned value is disposed. */
  enter(): Disposable {
    this.#count++;
    let open = true;
    return {
      [Symbol.dispose]: () => {
        if (!open) return;
        open = false;
        if (--this.#count > 0) return;
        for (const wake of this.#waiters.splice(0)) wake();
      },
    };
  }

  /** Resolves as soon as no request is open. */
  async idle(): Promise<void> {
    if (this.#count === 0) return;
    await new Promise<void>((resolve) => this.#waiters.push(resolve));
  }
}
