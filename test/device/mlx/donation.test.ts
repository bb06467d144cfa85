import { describe, expect, test } from "bun:test";
import * as mx from "#device/mlx";

const MB = 1 << 20;

/** Steps that write 64 rows into a buffer; returns the median step time and how far the peak rose above the buffer. */
function run(bytes: number, release: boolean): { ms: number; extraBytes: number } {
  const rows = bytes / 4 / 64;
  let buffer = mx.zeros([1, rows, 64], "float32");
  mx.evaluate(buffer);
  const times: number[] = [];
  const held = mx.memory.active();
  mx.memory.resetPeak();
  for (let step = 0; step < 5; step++) {
    const started = performance.now();
    mx.scope(() => {
      const update = mx.full([1, 64, 64], step, "float32");
      const start = step * 64;
      const next = mx.keep(mx.sliceUpdate(buffer, update, [0, start, 0], [1, start + 64, 64]));
      if (release) mx.free(buffer);
      mx.evaluate(next);
      mx.free(buffer);
      buffer = next;
    });
    times.push(performance.now() - started);
  }
  const extraBytes = mx.memory.peak() - held;
  const last = mx.slice(buffer, [0, 4 * 64, 0], [1, 4 * 64 + 1, 1]);
  expect(mx.itemFloat(last)).toBe(4);
  mx.free(last);
  mx.free(buffer);
  return { ms: times.sort((a, b) => a - b)[2] as number, extraBytes };
}

describe("sliceUpdate() of a buffer whose owner frees it before evaluation", () => {
  test("writes in place: neither memory nor time grows with the buffer", () => {
    mx.init();
    const small = run(4 * MB, true);
    const large = run(128 * MB, true);
    const copied = run(128 * MB, false);
    expect(large.extraBytes).toBeLessThan(MB);
    expect(small.extraBytes).toBeLessThan(MB);
    expect(copied.extraBytes).toBeGreaterThan(120 * MB);
    expect(large.ms).toBeLessThan(copied.ms / 4);
  });
});
