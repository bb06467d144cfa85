/** Texts of several requests through one encoder: fair shares, cancelling, and what a request asked for alone. */
import { afterEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { EncodeRequest, TokenOutput } from "#core/contract";
import * as mx from "#device/mlx";
import { EncodeDesk } from "../../../src/device/runner/encode.ts";
import { EncodeQueue } from "../../../src/device/runner/encode-queue.ts";
import { loadEncoder } from "../../../src/device/runner/load.ts";
import { ENCODER_MODELS } from "../../helpers/encoders.ts";

/** Texts of given lengths. */
function request(
  id: string,
  lengths: readonly number[],
  tokenOutputs: readonly TokenOutput[] = [],
): EncodeRequest {
  let at = 0;
  const ends = Int32Array.from(lengths, (length) => {
    at += length;
    return at;
  });
  const ids = Int32Array.from({ length: at }, (_, i) => 5 + ((i * 7) % 300));
  return { id, ids, ends, seconds: null, tokenOutputs };
}

const many = (count: number, length: number) => Array<number>(count).fill(length);

describe("EncodeQueue", () => {
  const tokensBy = (batch: ReturnType<EncodeQueue["next"]>) => {
    const sums: Record<string, number> = {};
    for (const { request: r, ids } of batch) sums[r.id] = (sums[r.id] ?? 0) + ids.length;
    return sums;
  };

  test("a single text goes with the next batch, however many wait", () => {
    const queue = new EncodeQueue();
    queue.submit(request("many", many(10_000, 100)));
    expect(tokensBy(queue.next(1000))).toEqual({ many: 1000 });
    queue.submit(request("one", [20]));
    expect(tokensBy(queue.next(1000))).toEqual({ many: 900, one: 20 });
  });

  test("requests get equal shares of a batch in tokens, not in texts", () => {
    const queue = new EncodeQueue();
    queue.submit(request("long", many(50, 100)));
    queue.submit(request("short", many(500, 10)));
    queue.submit(request("middle", many(100, 50)));
    for (let i = 0; i < 5; i++) {
      const sums = tokensBy(queue.next(900));
      for (const id of ["long", "short", "middle"]) {
        expect(sums[id]).toBeGreaterThanOrEqual(250);
        expect(sums[id]).toBeLessThanOrEqual(350);
      }
    }
  });

  test("what one request does not use goes to the others", () => {
    const queue = new EncodeQueue();
    queue.submit(request("few", [10, 10]));
    queue.submit(request("many", many(100, 10)));
    expect(tokensBy(queue.next(500))).toEqual({ few: 20, many: 480 });
  });

  test("long texts of a request go first, one that fills a batch goes alone, and none is lost", () => {
    const queue = new EncodeQueue();
    const lengths = [3, 700, 40, 2000, 41, 5];
    queue.submit(request("a", lengths));
    const batches: number[][] = [];
    for (let batch = queue.next(500); batch.length > 0; batch = queue.next(500)) {
      batches.push(batch.map(({ ids }) => ids.length));
    }
    expect(batches).toEqual([[2000], [700], [41, 40, 5, 3]]);
    expect(queue.waiting).toBe(0);
    expect(queue.settle("a", 5)).toBe(false);
    expect(queue.settle("a", 1)).toBe(true);
    expect(queue.isIdle).toBe(true);
  });

  test("a request that leaves takes its texts along", () => {
    const queue = new EncodeQueue();
    queue.submit(request("stays", many(10, 10)));
    queue.submit(request("leaves", many(10, 10)));
    expect(queue.remove("leaves")).toBe(true);
    expect(queue.remove("leaves")).toBe(false);
    expect(tokensBy(queue.next(1000))).toEqual({ stays: 100 });
  });
});

describe("EncodeDesk", () => {
  let desk: EncodeDesk;
  afterEach(() => desk.dispose());

  async function open(name: string): Promise<void> {
    const { encoder, info } = await loadEncoder(
      {
        modelPath: join(ENCODER_MODELS, name),
        kernels: "native",
        threads: 1,
        contextWindow: 0,
        cacheBytes: 0,
        maxRunning: 1,
        prefillTargetMs: 100,
        heartbeatPath: "",
      },
      "embedding",
    );
    const { contextWindow } = info;
    desk = new EncodeDesk({ encoder, contextWindow, targetMs: 1, onUnit: () => {} });
  }

  /** Rows that each request got, request by request, until nothing is open; `onTurn` may add to it. */
  function run(onTurn: (done: readonly string[]) => void = () => {}) {
    const rows = new Map<string, Map<number, Float32Array>>();
    const tokens: Record<string, readonly string[]> = {};
    const done: string[] = [];
    while (!desk.isIdle) {
      for (const { id, events } of desk.turn().events) {
        for (const event of events) {
          if (event.kind === "done") {
            done.push(id);
            continue;
          }
          tokens[id] = Object.keys(event.tokens);
          const mine = rows.get(id) ?? new Map<number, Float32Array>();
          rows.set(id, mine);
          const width = event.values.length / event.texts.length;
          event.texts.forEach((text, i) => {
            expect(mine.has(text)).toBe(false);
            mine.set(text, event.values.slice(i * width, (i + 1) * width));
          });
        }
      }
      onTurn(done);
    }
    return { rows, tokens, done };
  }

  test("one text overtakes two thousand that were asked for before", async () => {
    await open("bert");
    desk.submit(request("many", many(2000, 20)));
    let turns = 0;
    let isAsked = false;
    const { rows, done } = run(() => {
      turns++;
      if (!isAsked && turns === 3) {
        desk.submit(request("one", [20]));
        isAsked = true;
      }
    });
    expect(done).toEqual(["one", "many"]);
    expect(rows.get("many")?.size).toBe(2000);
    // the batch under way and the next one; two thousand texts are about forty
    expect(desk.stats.steps).toBeGreaterThan(20);
    expect(rows.get("one")?.get(0)).toEqual(rows.get("many")?.get(0) as Float32Array);
  });

  test("a request that leaves in the middle of a batch frees what it held, and others go on", async () => {
    await open("bert");
    const before = mx.liveArrays();
    desk.submit(request("leaves", many(500, 100)));
    desk.turn();
    expect(desk.isIdle).toBe(false);
    expect(desk.cancel("leaves")).toBe(true);
    expect(desk.cancel("leaves")).toBe(false);
    expect(desk.isIdle).toBe(true);
    expect(mx.liveArrays()).toBe(before);

    desk.submit(request("leaves", many(30, 100)));
    desk.submit(request("stays", many(30, 100)));
    desk.turn();
    desk.cancel("leaves");
    const { rows, done } = run();
    expect(done).toEqual(["stays"]);
    expect([...rows.keys()]).toEqual(["stays"]);
    expect(mx.liveArrays()).toBe(before);
  });

  test("every request of a shared batch gets what it asked for of its tokens, and no more", async () => {
    await open("bge-m3");
    desk.submit(request("plain", [5, 9]));
    desk.submit(request("sparse", [9, 5], ["lexical"]));
    desk.submit(request("both", [7], ["lexical", "colbert"]));
    const { tokens, done } = run();
    expect(done.toSorted()).toEqual(["both", "plain", "sparse"]);
    expect(tokens).toEqual({ plain: [], sparse: ["lexical"], both: ["lexical", "colbert"] });
  });

  test.each([
    ["a head that the model has not", request("a", [5], ["lexical"]), "lexical"],
    ["a text without tokens", request("a", [5, 0]), "without tokens"],
    ["a text over the window", request("a", [129]), "129 tokens > 128"],
    ["a token behind the vocabulary", { ...request("a", [1]), ids: Int32Array.of(400) }, "400"],
    ["a token below the vocabulary", { ...request("a", [1]), ids: Int32Array.of(-1) }, "-1"],
  ])("%s is refused, and nothing is open then", async (_, bad, found) => {
    await open("bert");
    expect(() => desk.submit(bad)).toThrow(found);
    expect(desk.isIdle).toBe(true);
  });
});
