import { describe, expect, test } from "bun:test";
import {
  GREEDY,
  OmlxError,
  type ToDevice,
  type TokenEvent,
  type TokenRequest,
} from "#core/contract";
import { Client } from "../../../src/front/engine/client.ts";

const request = (id: string, promptIds: readonly number[] = [id.charCodeAt(0)]): TokenRequest => ({
  id,
  promptIds,
  maxTokens: 10,
  minTokens: 0,
  stopIds: [],
  sampling: GREEDY,
  lane: "interactive",
  topLogprobs: null,
  constraint: null,
  thinkingBudget: null,
});

const tokens = (...ids: number[]): TokenEvent => ({ kind: "tokens", ids });
const finish: TokenEvent = {
  kind: "finish",
  reason: "stop",
  usage: { promptTokens: 1, cachedTokens: 0, completionTokens: 1 },
};
const death = new OmlxError({ code: "engine_dead", message: "died" });
const never = new AbortController().signal;

/** A client and the messages that it sent, as "kind id". */
function begin(limit = 100) {
  const sent: string[] = [];
  const client = new Client(limit);
  const connect = () =>
    client.connect((message: ToDevice) => {
      if (message.kind === "generate") sent.push(`generate ${message.request.id}`);
      else if (message.kind === "cancel") sent.push(`cancel ${message.id}`);
      else sent.push(message.kind);
    });
  const step = (id: string, ...events: TokenEvent[]) =>
    client.receive({ kind: "step", events: [{ id, events }] });
  connect();
  return { client, sent, connect, step };
}

/** Reads a request to its end: its events, or the code of its error. Pulls at once. */
async function read(client: Client, r: TokenRequest, signal = never) {
  const events: TokenEvent[] = [];
  try {
    for await (const event of client.generate(r, signal)) events.push(event);
    return events;
  } catch (error) {
    if (error instanceof OmlxError) return error.code;
    throw error;
  }
}

describe("Client.generate()", () => {
  test("hands on a request's events and ends after finish", async () => {
    const { client, sent, step } = begin();
    const answer = read(client, request("a"));
    step("a", { kind: "prefill", done: 1, total: 1 });
    step("other", tokens(9));
    step("a", tokens(1, 2), finish);
    expect(await answer).toEqual([{ kind: "prefill", done: 1, total: 1 }, tokens(1, 2), finish]);
    expect(sent).toEqual(["generate a"]);
    expect(client.size).toBe(0);
  });

  test("sends nothing before the first pull", () => {
    const { client, sent } = begin();
    client.generate(request("a"), never);
    expect(sent).toEqual([]);
    expect(client.size).toBe(0);
  });

  test("cancels when the loop is left, and once only", async () => {
    const { client, sent, step } = begin();
    const abort = new AbortController();
    const leave = (async () => {
      for await (const _ of client.generate(request("a"), abort.signal)) break;
    })();
    step("a", tokens(1));
    await leave;
    abort.abort();
    expect(sent).toEqual(["generate a", "cancel a"]);
    expect(client.isWaiting).toBe(false);
    step("a", tokens(2));
    client.receive({ kind: "cancelled", id: "a" });
    expect(client.size).toBe(0);
  });

  test("ends with cancelled at once when the signal aborts, without an answer of the engine", async () => {
    const { client, sent } = begin();
    const abort = new AbortController();
    const answer = read(client, request("a"), abort.signal);
    abort.abort();
    expect(await answer).toBe("cancelled");
    expect(sent).toEqual(["generate a", "cancel a"]);
    expect(await read(client, request("b"), abort.signal)).toBe("cancelled");
    expect(sent).toHaveLength(2);
  });

  test("gives the engine's error to its request and leaves the others alone", async () => {
    const { client, step } = begin();
    const [a, b] = [read(client, request("a")), read(client, request("b"))];
    client.receive({ kind: "failed", id: "a", error: { code: "context_length", message: "no" } });
    step("b", finish);
    expect(await a).toBe("context_length");
    expect(await b).toEqual([finish]);
  });

  test("refuses what does not fit into the queue, until something ends", async () => {
    const { client, step } = begin(2);
    const [a, b] = [read(client, request("a")), read(client, request("b"))];
    expect(await read(client, request("c"))).toBe("overloaded");
    step("a", finish);
    const d = read(client, request("d"));
    step("b", finish);
    step("d", finish);
    expect(await Promise.all([a, b, d])).toEqual([[finish], [finish], [finish]]);
  });

  test("holds requests while there is no engine, first come first served", async () => {
    const { client, sent, connect, step } = begin();
    client.disconnect(death, 0);
    const a = read(client, request("a"));
    const gone = new AbortController();
    const b = read(client, request("b"), gone.signal);
    const c = read(client, request("c"));
    gone.abort();
    expect(await b).toBe("cancelled");
    expect(sent).toEqual([]);
    connect();
    expect(sent).toEqual(["generate a", "generate c"]);
    step("a", finish);
    step("c", finish);
    await Promise.all([a, c]);
  });
});

describe("Client.disconnect()", () => {
  test("teaches each engine the vocabulary once, before its first request with a constraint", async () => {
    const { client, sent, connect, step } = begin();
    client.teach({ bytes: new Uint8Array(), offsets: new Uint32Array(1), addedIds: [] });
    const constrained = (id: string): TokenRequest => ({
      ...request(id),
      constraint: { grammar: { kind: "regex", pattern: "a" }, strict: true, after: null },
    });
    const plain = read(client, request("a"));
    const first = read(client, constrained("b"));
    const second = read(client, constrained("c"));
    expect(sent).toEqual(["generate a", "vocabulary", "generate b", "generate c"]);
    for (const id of ["a", "b", "c"]) step(id, finish);
    await Promise.all([plain, first, second]);

    sent.length = 0;
    client.disconnect(death, 0);
    connect();
    const again = read(client, constrained("b"));
    expect(sent).toEqual(["vocabulary", "generate b"]);
    step("b", finish);
    await again;
  });

  test("ends every open request with the error, after the events that came before", async () => {
    const { client, step } = begin();
    const seen: TokenEvent[] = [];
    const a = (async () => {
      for await (const event of client.generate(request("a"), never)) seen.push(event);
    })();
    const b = read(client, request("b"));
    step("a", tokens(1));
    client.disconnect(death, 2);
    await expect(a).rejects.toThrow("died");
    expect(await b).toBe("engine_dead");
    expect(seen).toEqual([tokens(1)]);
  });

  test("makes the retries of a step's requests run alone, in turn, with newcomers behind them", async () => {
    const { client, sent, connect, step } = begin();
    const first = ["a", "b"].map((id) => read(client, request(id)));
    client.disconnect(death, 2);
    expect(await Promise.all(first)).toEqual(["engine_dead", "engine_dead"]);
    connect();
    sent.length = 0;
    const retries = [
      read(client, request("a2", request("a").promptIds)),
      read(client, request("b2", request("b").promptIds)),
      read(client, request("new")),
    ];
    expect(sent).toEqual(["generate a2"]);
    step("a2", finish);
    expect(sent).toEqual(["generate a2", "generate b2"]);
    step("b2", finish);
    expect(sent).toEqual(["generate a2", "generate b2", "generate new"]);
    step("new", finish);
    await Promise.all(retries);
    const again = read(client, request("a3", request("a").promptIds));
    const other = read(client, request("z"));
    expect(sent.slice(3)).toEqual(["generate a3", "generate z"]);
    step("a3", finish);
    step("z", finish);
    await Promise.all([again, other]);
  });

  test("lets others join a suspect that got further than its death", async () => {
    const { client, sent, connect, step } = begin();
    const first = read(client, request("a"));
    step("a", tokens(1, 2, 3));
    client.disconnect(death, 1);
    expect(await first).toBe("engine_dead");
    connect();
    const retry = read(client, request("a"));
    const other = read(client, request("b"));
    step("a", tokens(...Array(19).fill(1)));
    expect(sent).toEqual(["generate a", "generate a"]);
    step("a", tokens(1));
    expect(sent).toEqual(["generate a", "generate a", "generate b"]);
    step("a", finish);
    step("b", finish);
    await Promise.all([retry, other]);
  });

  test("suspects only requests that had begun when the step held no more of them", async () => {
    const { client, sent, connect, step } = begin();
    const first = ["a", "b"].map((id) => read(client, request(id)));
    step("a", tokens(1));
    client.disconnect(death, 1);
    await Promise.all(first);
    connect();
    sent.length = 0;
    const retries = ["b", "c"].map((id) => read(client, request(id)));
    expect(sent).toEqual(["generate b", "generate c"]);
    client.fail(death);
    expect(await Promise.all(retries)).toEqual(["engine_dead", "engine_dead"]);
  });

  test("refuses a request that killed three engines alone, and only that", async () => {
    const { client, connect, step } = begin();
    for (let i = 0; i < 3; i++) {
      const answer = read(client, request("a"));
      client.disconnect(death, 1);
      expect(await answer).toBe("engine_dead");
      connect();
    }
    expect(await read(client, request("a"))).toBe("invalid_request");
    const other = read(client, request("b"));
    step("b", finish);
    expect(await other).toEqual([finish]);
  });

  test("forgives a request that ends well", async () => {
    const { client, connect, step } = begin();
    for (let i = 0; i < 6; i++) {
      const answer = read(client, request("a"));
      if (i % 2 === 0) client.disconnect(death, 1);
      else step("a", finish);
      expect(await answer).toEqual(i % 2 === 0 ? "engine_dead" : [finish]);
      connect();
    }
  });
});

test("Client.fail() ends what is open and what comes later", async () => {
  const { client } = begin();
  const a = read(client, request("a"));
  client.fail(death);
  expect(await a).toBe("engine_dead");
  expect(await read(client, request("b"))).toBe("engine_dead");
});
