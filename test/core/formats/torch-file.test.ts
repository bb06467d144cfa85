/** Files of torch.save(): BGE-M3's heads as FlagEmbedding writes them, and what must not be read. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { OmlxError } from "#core/contract";
import { readTorchTensors } from "../../../src/core/formats/torch-file.ts";
import { ENCODER_MODELS } from "../../helpers/encoders.ts";
import { sized } from "../../helpers/long.ts";

const HEAD = join(ENCODER_MODELS, "bge-m3", "colbert_linear.pt");
const root = mkdtempSync(join(tmpdir(), "omlx-torch-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

function messageOf(bytes: Uint8Array | string): string {
  const path = join(root, "a.pt");
  writeFileSync(path, bytes);
  try {
    readTorchTensors(path);
  } catch (error) {
    if (error instanceof OmlxError && error.code === "model_load") return error.message;
    throw error;
  }
  return "no error";
}

/** A zip archive of stored files. */
function zipOf(files: Readonly<Record<string, Uint8Array>>, method = 0): Uint8Array {
  const local: Buffer[] = [];
  const directory: Buffer[] = [];
  let at = 0;
  for (const [name, data] of Object.entries(files)) {
    const header = Buffer.alloc(30);
    header.writeUInt32LE(0x04034b50, 0);
    header.writeUInt16LE(name.length, 26);
    const entry = Buffer.alloc(46);
    entry.writeUInt32LE(0x02014b50, 0);
    entry.writeUInt16LE(method, 10);
    entry.writeUInt32LE(data.length, 20);
    entry.writeUInt32LE(data.length, 24);
    entry.writeUInt16LE(name.length, 28);
    entry.writeUInt32LE(at, 42);
    local.push(header, Buffer.from(name), Buffer.from(data));
    directory.push(entry, Buffer.from(name));
    at += 30 + name.length + data.length;
  }
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt32LE(Buffer.concat(directory).length, 12);
  end.writeUInt32LE(at, 16);
  return Buffer.concat([...local, ...directory, end]);
}

const pickled = (code: string, method = 0) =>
  zipOf({ "a/data.pkl": Buffer.from(code, "latin1"), "a/data/0": Buffer.alloc(16) }, method);

const STORAGE = "(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ";
const tensor = (offset: string, shape: string, strides: string) =>
  `\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n(${STORAGE}${offset}${shape}${strides}tRs.`;

describe("readTorchTensors()", () => {
  test("finds the tensors of a head where torch put them", () => {
    const tensors = readTorchTensors(HEAD);
    const facts = [...tensors.values()].map(({ name, dtype, shape, byteLength }) => [
      name,
      dtype,
      shape,
      byteLength,
    ]);
    expect(facts).toEqual([
      ["weight", "float16", [40, 32], 40 * 32 * 2],
      ["bias", "float16", [40], 80],
    ]);
    const { byteOffset = 0 } = tensors.get("weight") ?? {};
    expect(byteOffset % 64).toBe(0);
    const bytes = readFileSync(HEAD);
    const values = new Float16Array(bytes.buffer, bytes.byteOffset + byteOffset, 40 * 32);
    // rows of 32 numbers whose variance is 1/32
    const power = values.reduce((sum, x) => sum + x * x, 0);
    expect(power / 40).toBeCloseTo(1, 0);
  });

  test("takes a tensor that begins inside its storage", () => {
    writeFileSync(join(root, "part.pt"), pickled(tensor("K\x01", "K\x03\x85", "K\x01\x85")));
    const whole = readTorchTensors(join(root, "part.pt")).get("w");
    expect(whole).toMatchObject({ dtype: "float32", shape: [3], byteLength: 12 });
  });

  test.each([
    ["a program", pickled("cos\nsystem\n(X\x02\0\0\0lstR."), "os system"],
    ["a call by another opcode", pickled("\x80\x02cos\nsystem\n)\x81."), "opcode 129"],
    ["a number", pickled("\x80\x02K\x01."), "it is no dictionary"],
    ["a dictionary of numbers", pickled("\x80\x02}X\x01\0\0\0aK\x01s."), "more than tensors"],
    ["numbers of another kind", pickled(STORAGE.replace("FloatStorage", "LongStorage")), "LongSto"],
    ["a tensor beyond its data", pickled(tensor("K\x01", "K\x04\x85", "K\x01\x85")), "cut off"],
    [
      "a transposed tensor",
      pickled(tensor("K\0", "K\x02K\x02\x86", "K\x01K\x02\x86")),
      "one piece",
    ],
    ["compressed data", pickled("\x80\x02}.", 8), "compressed"],
    ["a zip without a pickle", zipOf({ "a/version": Buffer.from("3") }), "torch did not write it"],
    ["a text", "PK, but no archive", "no zip archive"],
    ["nothing", "", "no zip archive"],
  ])("%s is refused", (_, bytes, found) => {
    const message = messageOf(bytes);
    expect(message).toStartWith("Cannot read a.pt: ");
    expect(message).toContain(found);
  });

  test("a damaged file gives tensors inside it or a clear error", () => {
    const bytes = readFileSync(HEAD);
    const path = join(root, "damaged.pt");
    const spots = fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.nat(255)), { minLength: 1 });
    fc.assert(
      fc.property(spots, fc.nat(bytes.length), (changes, cut) => {
        const damaged = Buffer.from(bytes);
        for (const [at, value] of changes) damaged[at] = value;
        const kept = cut % 4 === 0 ? damaged.subarray(0, cut) : damaged;
        writeFileSync(path, kept);
        try {
          for (const t of readTorchTensors(path).values()) {
            expect(t.byteOffset + t.byteLength).toBeLessThanOrEqual(kept.length);
          }
        } catch (error) {
          if (!(error instanceof OmlxError)) throw error;
          expect(error.code).toBe("model_load");
        }
      }),
      { numRuns: sized(200, 5000) },
    );
  });
});
