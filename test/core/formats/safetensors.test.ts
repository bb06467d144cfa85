import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { OmlxError } from "#core/contract";
import { listWeightFiles, parseSafetensorsHeader, readTensors } from "#core/formats";
import { sized } from "../../helpers/long.ts";

const root = mkdtempSync(join(tmpdir(), "omlx-formats-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let folders = 0;
function folderOf(files: Record<string, Uint8Array | string>): string {
  const folder = join(root, String(folders++));
  mkdirSync(folder);
  for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
  return folder;
}

/** A file with the given header text and so many bytes of data. */
function fileOf(header: unknown, dataBytes: number, stated?: bigint): Uint8Array {
  const text = new TextEncoder().encode(
    typeof header === "string" ? header : JSON.stringify(header),
  );
  const bytes = new Uint8Array(8 + text.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, stated ?? BigInt(text.length), true);
  bytes.set(text, 8);
  return bytes;
}

const entry = (shape: unknown, begin: number, end: number, dtype = "F32") => ({
  dtype,
  shape,
  data_offsets: [begin, end],
});

const parse = (bytes: Uint8Array) => parseSafetensorsHeader(bytes, bytes.length, "a.safetensors");

function messageOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof OmlxError && error.code === "model_load") return error.message;
    throw error;
  }
  return "no error";
}

describe("parseSafetensorsHeader()", () => {
  test("gives each tensor its place in the file", () => {
    const header = {
      a: entry([2, 3], 0, 24),
      b: entry([4], 24, 32, "BF16"),
      __metadata__: { k: "v" },
    };
    const bytes = fileOf(header, 32);
    const { tensors, metadata } = parse(bytes);
    const start = bytes.length - 32;
    expect(tensors).toEqual([
      {
        name: "a",
        dtype: "float32",
        shape: [2, 3],
        file: "a.safetensors",
        byteOffset: start,
        byteLength: 24,
      },
      {
        name: "b",
        dtype: "bfloat16",
        shape: [4],
        file: "a.safetensors",
        byteOffset: start + 24,
        byteLength: 8,
      },
    ]);
    expect(metadata).toEqual({ k: "v" });
  });

  test("takes scalars and empty tensors", () => {
    const { tensors } = parse(fileOf({ s: entry([], 0, 4), e: entry([0, 7], 4, 4) }, 4));
    expect(tensors.map((t) => t.byteLength)).toEqual([4, 0]);
  });

  const cases: readonly [what: string, bytes: Uint8Array, message: RegExp][] = [
    ["an empty file", new Uint8Array(0), /0 bytes are too few/],
    ["a header length of 2^60", fileOf({}, 0, 2n ** 60n), /header of 1152921504606846976 bytes/],
    ["a header longer than the file", fileOf({}, 10, 100n), /header of 100 bytes, the file has 20/],
    ["a header that is no JSON", fileOf("{]", 0), /not valid JSON/],
    ["a header that is a list", fileOf("[]", 0), /expected a JSON object/],
    ["a tensor that is no object", fileOf({ a: 1 }, 0), /"a" has no description/],
    ["an unknown dtype", fileOf({ a: entry([1], 0, 4, "F3") }, 4), /"a" has an unknown dtype "F3"/],
    ["an inherited dtype name", fileOf({ a: entry([1], 0, 4, "toString") }, 4), /unknown dtype/],
    ["a negative size", fileOf({ a: entry([-1], 0, 4) }, 4), /invalid shape \[-1\]/],
    ["a fractional size", fileOf({ a: entry([1.5], 0, 4) }, 4), /invalid shape/],
    ["a shape that is too large", fileOf({ a: entry([2 ** 40, 2 ** 40], 0, 4) }, 4), /too large/],
    ["offsets that are backwards", fileOf({ a: entry([1], 4, 0) }, 4), /offsets span -4/],
    ["negative offsets", fileOf({ a: entry([1], -4, 0) }, 4), /invalid offsets/],
    [
      "offsets beyond the file",
      fileOf({ a: entry([2], 0, 8) }, 4),
      /the file has \d+: it is cut off/,
    ],
    ["offsets that do not fit the shape", fileOf({ a: entry([2], 0, 4) }, 4), /needs 8 bytes/],
    [
      "overlapping tensors",
      fileOf({ a: entry([2], 0, 8), b: entry([2], 4, 12) }, 12),
      /"a" and "b" overlap/,
    ],
  ];
  for (const [what, bytes, message] of cases) {
    test(`refuses ${what}`, () => {
      expect(messageOf(() => parse(bytes))).toMatch(message);
    });
  }

  test("ends with tensors inside the file or a load error, whatever bytes it gets", () => {
    const good = fileOf({ a: entry([2, 3], 0, 24), b: entry([4], 24, 32, "BF16") }, 32);
    const change = fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 8 });
    fc.assert(
      fc.property(change, fc.nat(good.length), (changes, length) => {
        const bytes = good.slice(0, length);
        for (const [at, value] of changes) if (at < length) bytes[at] = value;
        try {
          for (const t of parse(bytes).tensors) {
            expect(t.byteOffset + t.byteLength).toBeLessThanOrEqual(length);
          }
        } catch (error) {
          if (!(error instanceof OmlxError)) throw error;
        }
      }),
      { numRuns: sized(2000, 100_000) },
    );
  });

  test("refuses made-up entries of every kind with a load error", () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (header) => {
        const bytes = fileOf(header, 16);
        expect(messageOf(() => parse(bytes))).toMatch(/^(?:no error|Cannot read a\.safetensors)/);
      }),
    );
  });
});

describe("readTensors()", () => {
  const one = (name: string) => fileOf({ [name]: entry([1], 0, 4) }, 4);
  const index = (map: unknown) => JSON.stringify({ weight_map: map });

  test("reads the shards that the index names", () => {
    const folder = folderOf({
      "x-00001-of-00002.safetensors": one("a"),
      "x-00002-of-00002.safetensors": one("b"),
      "other.safetensors": one("c"),
      "model.safetensors.index.json": index({
        a: "x-00001-of-00002.safetensors",
        b: "x-00002-of-00002.safetensors",
      }),
    });
    const tensors = readTensors(folder);
    expect([...tensors.keys()]).toEqual(["a", "b"]);
  });

  test("without an index prefers model*.safetensors and leaves adapters out", () => {
    const both = folderOf({ "model.safetensors": one("a"), "z.safetensors": one("b") });
    expect([...readTensors(both).keys()]).toEqual(["a"]);
    const odd = folderOf({ "weights.safetensors": one("a"), "adapters.safetensors": one("b") });
    expect(listWeightFiles(odd).map((f) => f.path)).toEqual([join(odd, "weights.safetensors")]);
  });

  for (const path of ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", 7]) {
    test(`refuses an index that names ${JSON.stringify(path)}`, () => {
      const folder = folderOf({ "model.safetensors.index.json": index({ a: path }) });
      expect(messageOf(() => readTensors(folder))).toMatch(/expected a file of the folder/);
    });
  }

  test("names a missing shard, with and without an index", () => {
    const indexed = folderOf({ "model.safetensors.index.json": index({ a: "m.safetensors" }) });
    expect(messageOf(() => readTensors(indexed))).toMatch(/m\.safetensors is missing/);
    const bare = folderOf({ "model-00001-of-00002.safetensors": one("a") });
    expect(messageOf(() => readTensors(bare))).toMatch(/model-00002-of-00002\.safetensors is/);
  });

  test("names a tensor that the index promises and no shard holds", () => {
    const folder = folderOf({
      "m.safetensors": one("a"),
      "model.safetensors.index.json": index({ a: "m.safetensors", b: "m.safetensors" }),
    });
    expect(messageOf(() => readTensors(folder))).toMatch(/"b" is missing in m\.safetensors/);
  });

  test("refuses a tensor that two files hold", () => {
    const folder = folderOf({ "model-a.safetensors": one("a"), "model-b.safetensors": one("a") });
    expect(messageOf(() => readTensors(folder))).toMatch(/"a" is in more than one file/);
  });

  test("refuses a loop of links and a folder in a file's place", () => {
    const loop = folderOf({});
    symlinkSync(join(loop, "model.safetensors"), join(loop, "model.safetensors"));
    expect(messageOf(() => readTensors(loop))).toMatch(/ELOOP/);
    const nested = folderOf({});
    mkdirSync(join(nested, "model.safetensors"));
    expect(messageOf(() => readTensors(nested))).toMatch(/is not a file/);
  });

  test("refuses a folder without weights and an index that is no JSON", () => {
    expect(messageOf(() => readTensors(folderOf({})))).toMatch(/no safetensors file/);
    const broken = folderOf({ "model.safetensors.index.json": "{" });
    expect(messageOf(() => readTensors(broken))).toMatch(/not valid JSON/);
  });
});
