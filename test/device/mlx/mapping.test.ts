import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as mx from "#device/mlx";
import { native } from "../../../src/device/mlx/library.ts";

const dir = mkdtempSync(join(tmpdir(), "omlx-mapping-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const COUNT = 4096;
const path = join(dir, "weights.bin");
writeFileSync(
  path,
  Float32Array.from({ length: COUNT }, (_, i) => i),
);

/** Mapped file pages that this process holds; 0 where the system does not tell. */
function residentFileBytes(): number {
  if (process.platform !== "linux") return 0;
  const status = readFileSync("/proc/self/status", "utf8");
  return Number(/^RssFile:\s+(\d+) kB/m.exec(status)?.[1]) * 1024;
}

let mappings = 0;
beforeEach(() => {
  mx.init();
  mappings = mx.liveMappings();
});

describe("openMapping()", () => {
  test("arrays over a file are the file's pages, not copies", () => {
    const mapping = mx.openMapping(path);
    expect(mapping.bytes).toBe(COUNT * 4);
    const base = native().omlx_mapping_data(mapping.ptr) as number;
    const active = mx.memory.active();
    mx.scope(() => {
      const whole = mx.mappedArray(mapping, 0, [COUNT], "float32");
      const part = mx.mappedArray(mapping, 400, [10, 2], "float32");
      expect(mx.dataPointer(whole)).toBe(base);
      expect(mx.dataPointer(part)).toBe(base + 400);
      expect(mx.memory.active()).toBe(active);
      expect(mx.itemFloat(mx.sum(whole, 0))).toBe((COUNT * (COUNT - 1)) / 2);
      expect(Array.from(mx.toFloat32(mx.sum(part, 1))).slice(0, 2)).toEqual([201, 205]);
      expect(mx.toBytes(mx.mappedArray(mapping, 4, [4], "uint8"))).toEqual(
        new Uint8Array(Float32Array.of(1).buffer),
      );
    });
    mx.closeMapping(mapping);
    expect(mx.liveMappings()).toBe(mappings);
  });

  test("releasePages() takes a mapped file out of the process, and reading brings it back", () => {
    const big = join(dir, "big.bin");
    const bytes = new Uint8Array(16 * 2 ** 20).fill(7);
    writeFileSync(big, bytes);
    for (const isInMemory of [false, true]) {
      const mapping = mx.openMapping(big, isInMemory);
      mx.scope(() => {
        const array = mx.mappedArray(mapping, 0, [bytes.length], "uint8");
        expect(Buffer.compare(mx.toBytes(array), bytes)).toBe(0);
        const before = residentFileBytes();
        mx.releasePages(mapping);
        const released = before - residentFileBytes();
        if (process.platform === "linux" && !isInMemory) {
          expect(released).toBeGreaterThan(0.9 * bytes.length);
        }
        expect(Buffer.compare(mx.toBytes(array), bytes)).toBe(0);
      });
      mx.closeMapping(mapping);
    }
  });

  test("a file read into memory holds the same bytes, on a huge page's border, and is no longer the file", () => {
    const copy = join(dir, "changing.bin");
    const bytes = Uint8Array.from(
      { length: 20 * 2 ** 20 + 3 },
      (_, i) => (i * 31 + (i >> 12)) & 255,
    );
    writeFileSync(copy, bytes);
    const mapping = mx.openMapping(copy, true);
    expect(mapping.bytes).toBe(bytes.length);
    writeFileSync(copy, "short");
    mx.scope(() => {
      const array = mx.mappedArray(mapping, 0, [bytes.length], "uint8");
      expect(mx.dataPointer(array) % 2 ** 21).toBe(0);
      expect(Buffer.compare(mx.toBytes(array), bytes)).toBe(0);
    });
    mx.closeMapping(mapping);
    expect(mx.liveMappings()).toBe(mappings);
    expect(() => mx.openMapping(join(dir, "none.bin"), true)).toThrow("none.bin");
  });

  test("the file stays mapped while an array over it lives, also in a graph", () => {
    const mapping = mx.openMapping(path);
    const a = mx.mappedArray(mapping, 16, [4], "float32");
    const sum = mx.add(a, 0.5);
    mx.closeMapping(mapping);
    mx.free(a);
    expect(mx.liveMappings()).toBe(mappings + 1);
    expect(Array.from(mx.toFloat32(sum))).toEqual([4.5, 5.5, 6.5, 7.5]);
    mx.free(sum);
    expect(mx.liveMappings()).toBe(mappings);
    expect(() => mx.mappedArray(mapping, 0, [1], "float32")).toThrow("closed");
  });

  test("an operation never writes into the file", () => {
    const mapping = mx.openMapping(path);
    for (let i = 0; i < 3; i++) {
      // the handle is freed before evaluation, when MLX would reuse a buffer of its own
      const a = mx.mappedArray(mapping, 0, [COUNT], "float32");
      const next = mx.sliceUpdate(a, mx.full([1], -1, "float32"), [0], [1]);
      mx.free(a);
      expect(mx.toFloat32(next)[0]).toBe(-1);
      mx.free(next);
      const again = mx.mappedArray(mapping, 0, [2], "float32");
      expect(Array.from(mx.toFloat32(again))).toEqual([0, 1]);
      mx.free(again);
    }
    mx.closeMapping(mapping);
  });

  test("bytes at no multiple of the element size are copied", () => {
    const odd = join(dir, "odd.bin");
    writeFileSync(
      odd,
      Buffer.concat([Buffer.from([7]), Buffer.from(Float32Array.of(1, 2).buffer)]),
    );
    const mapping = mx.openMapping(odd);
    const a = mx.mappedArray(mapping, 1, [2], "float32");
    expect(Array.from(mx.toFloat32(a))).toEqual([1, 2]);
    mx.closeMapping(mapping);
    expect(mx.liveMappings()).toBe(mappings);
    mx.free(a);
  });

  test("refuses what is outside of the file, and files that are none", () => {
    const mapping = mx.openMapping(path);
    expect(() => mx.mappedArray(mapping, COUNT * 4 - 4, [2], "float32")).toThrow("beyond the end");
    expect(() => mx.mappedArray(mapping, -4, [1], "float32")).toThrow("beyond the end");
    expect(() => mx.mappedArray(mapping, 0, [2 ** 30, 2 ** 30], "float32")).toThrow(
      "beyond the end",
    );
    expect(() => mx.mappedArray(mapping, 0, [-1], "float32")).toThrow("negative");
    mx.closeMapping(mapping);
    expect(() => mx.openMapping(join(dir, "none"))).toThrow(/openMapping: cannot open .*none/);
    expect(() => mx.openMapping(dir)).toThrow("no file, or empty");
    writeFileSync(join(dir, "empty"), "");
    expect(() => mx.openMapping(join(dir, "empty"))).toThrow("no file, or empty");
    expect(mx.liveMappings()).toBe(mappings);
  });
});
