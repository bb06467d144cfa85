import { heapStats } from "bun:jsc";
import { afterAll, describe, expect, test } from "bun:test";
import { invalidRequest } from "#core/contract";
import { endingOf } from "../../../src/front/api/disconnect.ts";
import { type Protocol, respond } from "../../../src/front/api/respond.ts";

const REQUESTS = 100;

const protocol: Protocol<string, string> = {
  head: "",
  frames: (event) => event,
  errorFrame: () => "error",
  tail: "",
  keepAlive: ":",
  async collect(events) {
    let all = "";
    for await (const event of events) all += event;
    return all;
  },
  whole: (all) => all,
  errorBody: () => "error",
};

const shutdown = new AbortController();

async function* answer(path: string): AsyncGenerator<string> {
  yield "a";
  if (path.endsWith("fails")) throw invalidRequest("as asked for");
  yield "b";
}

// A server that lives on, as ours does: its shutdown is a reason to end every request.
const server = Bun.serve({
  port: 0,
  fetch(request) {
    const { pathname } = new URL(request.url);
    const stream = pathname.startsWith("/stream");
    const { signal, abort } = endingOf(request, shutdown.signal);
    const options = { stream, keepAliveMs: 60_000, headers: () => ({}), signal, abort };
    return respond(answer(pathname), protocol, options);
  },
});
afterAll(() => server.stop(true));

/** Signals alive after requests to a path. */
async function signalsAfter(path: string): Promise<number> {
  for (let i = 0; i < REQUESTS; i++) await (await fetch(new URL(path, server.url))).text();
  await Bun.sleep(0); // the last response's own end
  Bun.gc(true);
  return heapStats().objectTypeCounts["AbortSignal"] ?? 0;
}

describe("endingOf()", () => {
  for (const path of ["/whole", "/whole-fails", "/stream", "/stream-fails"]) {
    test(`requests to ${path} leave nothing behind that waits for the shutdown`, async () => {
      const before = await signalsAfter(path);
      expect(await signalsAfter(path)).toBeLessThan(before + REQUESTS / 10);
    });
  }
});
