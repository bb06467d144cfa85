import { describe, expect, test } from "bun:test";
import fc from "fast-check";
// The tree itself, not the room's door: the door also opens the native library.
import { PrefixTree } from "../../../src/device/cache/prefix-tree.ts";

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);

describe("PrefixTree.match()", () => {
  test("PrefixTree.match() returns whole blocks only", () => {
    const tree = new PrefixTree(4);
    tree.insert(range(0, 12), [10, 11, 12]);
    expect(tree.match(range(0, 100)).blocks).toEqual([10, 11, 12]);
    expect(tree.match(range(0, 11)).blocks).toEqual([10, 11]);
    expect(tree.match(range(0, 7)).blocks).toEqual([10]);
    expect(tree.match(range(0, 3)).blocks).toEqual([]);
    expect(tree.match([]).blocks).toEqual([]);
  });

  test("PrefixTree.match() never takes the last token", () => {
    const tree = new PrefixTree(4);
    tree.insert(range(0, 8), [1, 2]);
    expect(tree.match(range(0, 8)).blocks).toEqual([1]);
    expect(tree.match(range(0, 9)).blocks).toEqual([1, 2]);
  });

  test("PrefixTree.match() stops where the texts part", () => {
    const tree = new PrefixTree(2);
    tree.insert([1, 2, 3, 4, 5, 6], [1, 2, 3]);
    expect(tree.match([1, 2, 3, 9, 5, 6, 7]).blocks).toEqual([1]);
    expect(tree.match([9, 2, 3, 4, 5, 6, 7]).blocks).toEqual([]);
  });

  test("PrefixTree.match() keeps texts of different salts apart", () => {
    const tree = new PrefixTree(2);
    tree.insert([1, 2, 3, 4], [1, 2], "adapter a");
    tree.insert([1, 2, 3, 4], [3, 4], "adapter b");
    expect(tree.match([1, 2, 3, 4, 5], "adapter a").blocks).toEqual([1, 2]);
    expect(tree.match([1, 2, 3, 4, 5], "adapter b").blocks).toEqual([3, 4]);
    expect(tree.match([1, 2, 3, 4, 5]).blocks).toEqual([]);
  });

  test("PrefixTree.match() tells apart ids whose hashes collide", () => {
    const tree = new PrefixTree(2);
    // With FNV-1a, (0x811c9dc5 ^ a) * 0x01000193 ^ b is equal for both pairs.
    const first = Math.imul(0x811c9dc5 ^ 1, 0x01000193);
    const second = Math.imul(0x811c9dc5 ^ 2, 0x01000193);
    const a = [1, 5];
    const b = [2, first ^ second ^ 5];
    tree.insert(a, [1]);
    tree.insert(b, [2]);
    tree.check();
    expect(tree.match([...a, 0]).blocks).toEqual([1]);
    expect(tree.match([...b, 0]).blocks).toEqual([2]);
    expect(tree.evict(1)).toEqual([1]);
    expect(tree.match([...a, 0]).blocks).toEqual([]);
    expect(tree.match([...b, 0]).blocks).toEqual([2]);
  });
});

describe("PrefixTree.insert()", () => {
  test("PrefixTree.insert() gives back blocks whose ids are stored already", () => {
    const tree = new PrefixTree(2);
    expect(tree.insert([1, 2, 3, 4], [1, 2])).toEqual([]);
    expect(tree.insert([1, 2, 3, 4, 5, 6], [7, 8, 9])).toEqual([7, 8]);
    expect(tree.match([1, 2, 3, 4, 5, 6, 0]).blocks).toEqual([1, 2, 9]);
    expect([...tree.blocks()].sort()).toEqual([1, 2, 9]);
    tree.check();
  });
});

describe("PrefixTree.evict()", () => {
  test("PrefixTree.evict() takes leaves, least recently used first", () => {
    const tree = new PrefixTree(1);
    tree.insert([1, 2, 3], [11, 12, 13]);
    tree.insert([1, 5], [11, 15]);
    expect(tree.evict(1)).toEqual([13]);
    expect(tree.evict(1)).toEqual([12]);
    expect(tree.evict(9)).toEqual([15, 11]);
    expect(tree.numBlocks).toBe(0);
    tree.check();
  });

  test("PrefixTree.evict() treats a used text as new", () => {
    const tree = new PrefixTree(1);
    tree.insert([1, 2], [11, 12]);
    tree.insert([3, 4], [13, 14]);
    const { node } = tree.match([1, 2, 9]);
    tree.pin(node);
    tree.unpin(node);
    expect(tree.evict(3)).toEqual([14, 13, 12]);
    expect(tree.match([1, 2]).blocks).toEqual([11]);
  });

  test("PrefixTree.evict() never takes a pinned node or its ancestors", () => {
    const tree = new PrefixTree(1);
    tree.insert([1, 2, 3], [11, 12, 13]);
    const { node } = tree.match([1, 2, 9]);
    tree.pin(node);
    tree.pin(node);
    expect(tree.numEvictable).toBe(1);
    expect(tree.evict(9)).toEqual([13]);
    tree.unpin(node);
    expect(tree.evict(9)).toEqual([]);
    tree.unpin(node);
    expect(tree.numEvictable).toBe(2);
    expect(tree.evict(9)).toEqual([12, 11]);
    expect(() => tree.unpin(node)).toThrow("not pinned");
  });

  test("PrefixTree.extend() refuses a parent that was evicted", () => {
    const tree = new PrefixTree(1);
    tree.insert([1], [11]);
    const { node } = tree.match([1, 2]);
    tree.evict(1);
    expect(() => tree.extend(node, [1, 2], 1, 12)).toThrow("was evicted");
  });

  test("PrefixTree.prune() removes a text up to what others need", () => {
    const tree = new PrefixTree(1);
    tree.insert([1, 2, 3], [11, 12, 13]);
    tree.insert([1, 5], [11, 15]);
    expect(tree.prune(tree.match([1, 2, 3, 0]).node)).toEqual([13, 12]);
    expect([...tree.blocks()].sort()).toEqual([11, 15]);
    tree.check();
  });
});

describe("PrefixTree over many requests", () => {
  test("interleaved growing conversations reuse all their full blocks; the oldest pays first", () => {
    const tree = new PrefixTree(4);
    let nextBlock = 0;
    const texts = [range(0, 9), range(1000, 1009), range(2000, 2009)];
    for (let turn = 0; turn < 5; turn++) {
      for (const [i, text] of texts.entries()) {
        const { blocks, node } = tree.match(text);
        expect(blocks.length).toBe(turn === 0 ? 0 : Math.floor((text.length - 5) / 4));
        tree.pin(node);
        let at = node;
        for (let b = blocks.length; (b + 1) * 4 <= text.length; b++) {
          const child = tree.extend(at, text, b * 4, nextBlock++);
          tree.pinChild(child);
          at = child;
        }
        // Each sequence holds one pin on its deepest node and the ancestors.
        tree.check();
        tree.unpin(at);
        texts[i] = [...text, ...range(0, 5)];
      }
    }
    expect(tree.numEvictable).toBe(tree.numBlocks);
    const held = texts.map((text) => tree.match(text).blocks.length);
    expect(tree.evict(2)).toHaveLength(2);
    const [first = 0, second = 0, third = 0] = held;
    expect(texts.map((text) => tree.match(text).blocks.length)).toEqual([first - 2, second, third]);
  });

  test("any order of insert, match, pin and evict agrees with a naive map", () => {
    const P = 2;
    const text = fc.array(fc.nat(2), { maxLength: 9 });
    const step = fc.oneof(
      fc.record({ kind: fc.constant("insert" as const), text }),
      fc.record({ kind: fc.constant("match" as const), text }),
      fc.record({ kind: fc.constant("pin" as const), text }),
      fc.record({ kind: fc.constant("unpin" as const), pick: fc.nat() }),
      fc.record({ kind: fc.constant("evict" as const), count: fc.nat(4) }),
    );
    const keyOf = (ids: number[]) => ids.join(",");
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const tree = new PrefixTree(P);
        const naive = new Map<string, number>(); // path of ids → block
        const pins: { node: ReturnType<typeof tree.match>["node"]; key: string }[] = [];
        let nextBlock = 0;
        const matched = (ids: number[]) => {
          const blocks: number[] = [];
          for (let n = P; n < ids.length; n += P) {
            const block = naive.get(keyOf(ids.slice(0, n)));
            if (block === undefined) break;
            blocks.push(block);
          }
          return blocks;
        };
        for (const s of steps) {
          if (s.kind === "insert") {
            const blocks = range(0, Math.floor(s.text.length / P)).map(() => nextBlock++);
            const spare = tree.insert(s.text, blocks);
            const expected = blocks.filter((block, i) => {
              const key = keyOf(s.text.slice(0, (i + 1) * P));
              if (naive.has(key)) return true;
              naive.set(key, block);
              return false;
            });
            expect(spare).toEqual(expected);
          } else if (s.kind === "match" || s.kind === "pin") {
            const { blocks, node } = tree.match(s.text);
            expect(blocks).toEqual(matched(s.text));
            if (s.kind === "pin") {
              tree.pin(node);
              pins.push({ node, key: keyOf(s.text.slice(0, blocks.length * P)) });
            }
          } else if (s.kind === "unpin" && pins.length > 0) {
            const [pin] = pins.splice(s.pick % pins.length, 1) as [(typeof pins)[number]];
            tree.unpin(pin.node);
          } else if (s.kind === "evict") {
            const pinned = (key: string) =>
              pins.some((pin) => `${pin.key},`.startsWith(`${key},`) && pin.key !== "");
            const free = [...naive.keys()].filter((key) => !pinned(key));
            expect(tree.numEvictable).toBe(free.length);
            const gone = tree.evict(s.count);
            expect(gone.length).toBe(Math.min(s.count, free.length));
            for (const block of gone) {
              const key = [...naive].find(([, b]) => b === block)?.[0] as string;
              expect(pinned(key)).toBe(false);
              naive.delete(key);
              // A leaf: nothing stored continues it.
              expect([...naive.keys()].some((k) => k.startsWith(`${key},`))).toBe(false);
            }
          }
          tree.check();
          expect(tree.numBlocks).toBe(naive.size);
        }
      }),
      { numRuns: 300 },
    );
  });
});
