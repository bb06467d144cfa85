import { describe, expect, test } from "bun:test";
import { settlesWithin, trickle } from "../../../src/front/api/sse.ts";

/** A response whose source yields what the test pushes, and the pieces that arrive on the wire. */
function open(keepAliveMs: number) {
  const items: PromiseWithResolvers<string | null>[] = [];
  const seen = { left: 0, returned: false };
  async function* source() {
    try {
      for (;;) {
        const item = Promise.withResolvers<string | null>();
        items.push(item);
        const text = await item.promise;
        if (text === null) return;
        yield text;
      }
    } finally {
      seen.returned = true;
    }
  }
  const response = trickle(source(), {
    head: "head",
    keepAlive: ":",
    keepAliveMs,
    headers: { "content-type": "text/plain" },
    onLeave: () => {
      seen.left++;
      items.at(-1)?.resolve(null); // as an aborted engine ends its events
    },
  });
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  const read = async () => {
    const { value, done } = await reader.read();
    return done ? null : new TextDecoder().decode(value);
  };
  return {
    response,
    reader,
    read,
    seen,
    push: (text: string | null) => items.at(-1)?.resolve(text),
  };
}

describe("trickle()", () => {
  test("trickle() sends the head before the source has anything", async () => {
    const stream = open(60_000);
    expect(stream.response.headers.get("content-type")).toBe("text/plain");
    expect(await stream.read()).toBe("head");
    await stream.reader.cancel();
  });

  test("trickle() fills silence by its own clock, again and again", async () => {
    const stream = open(20);
    const start = performance.now();
    expect([await stream.read(), await stream.read(), await stream.read()]).toEqual([
      "head",
      ":",
      ":",
    ]);
    expect(performance.now() - start).toBeGreaterThan(30);
    stream.push("text");
    let next = await stream.read();
    while (next === ":") next = await stream.read();
    expect(next).toBe("text");
    await stream.reader.cancel();
  });

  test("trickle() passes the source on and closes after it", async () => {
    const stream = open(60_000);
    expect(await stream.read()).toBe("head");
    stream.push("a");
    expect(await stream.read()).toBe("a");
    stream.push("b");
    expect(await stream.read()).toBe("b");
    stream.push(null);
    expect(await stream.read()).toBeNull();
    expect(stream.seen).toEqual({ left: 0, returned: true });
  });

  test("trickle() tells that the reader left and ends the source", async () => {
    const stream = open(60_000);
    expect(await stream.read()).toBe("head");
    await stream.reader.cancel();
    expect(stream.seen).toEqual({ left: 1, returned: true });
  });

  test("trickle() pulls no faster than the reader reads", async () => {
    let made = 0;
    async function* source() {
      for (;;) yield `${made++}`;
    }
    const response = trickle(source(), {
      head: "head",
      keepAlive: ":",
      keepAliveMs: 60_000,
      headers: {},
      onLeave: () => {},
    });
    const reader = (response.body as ReadableStream<Uint8Array>).getReader();
    for (let i = 0; i < 10; i++) await reader.read();
    expect(made).toBeLessThan(20);
    await reader.cancel();
  });
});

describe("trickle() and a client that does not read", () => {
  test("trickle() gives up a client that takes no byte for too long", async () => {
    const left = Promise.withResolvers<void>();
    async function* source() {
      for (;;) yield "text";
    }
    const response = trickle(source(), {
      head: "head",
      keepAlive: ":",
      keepAliveMs: 10,
      headers: {},
      onLeave: left.resolve,
      patienceMs: 30,
    });
    await left.promise;
    const reader = (response.body as ReadableStream<Uint8Array>).getReader();
    await expect(reader.read()).rejects.toThrow("does not read");
  });
});

describe("settlesWithin()", () => {
  test("settlesWithin() tells early work from late work and passes failures on", async () => {
    expect(await settlesWithin(Promise.resolve(1), 60_000)).toBe(true);
    expect(await settlesWithin(new Promise(() => {}), 1)).toBe(false);
    await expect(settlesWithin(Promise.reject(new Error("no")), 60_000)).rejects.toThrow("no");
  });
});
