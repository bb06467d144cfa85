/** Damaged model files, through everything that reads them: an answer or one clear error, never a crash, never a wait. */
import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { OmlxError } from "#core/contract";
import { convertGguf, inspectGguf } from "#core/formats";
import { ForwardSession } from "../helpers/forward.ts";
import { sized } from "../helpers/long.ts";

const FIXTURES = join(import.meta.dir, "..", "fixtures");
const root = mkdtempSync(join(tmpdir(), "omlx-fuzz-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const RUNS = sized(60, 3000);
const MINUTE = 60_000;

/** Numbers in [0, 2^32) that are the same in every run of the tests (xorshift). */
function randomNumbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

/** Flips some bits of the first `reach` bytes; cuts some files off. */
function damage(bytes: Uint8Array, reach: number, random: (below: number) => number): Uint8Array {
  const out = Uint8Array.from(bytes);
  const flips = random(4);
  for (let i = 0; i <= flips; i++) {
    const at = random(Math.min(reach, out.length));
    out[at] = (out[at] ?? 0) ^ (1 << random(8));
  }
  return random(4) === 0 ? out.subarray(0, random(out.length)) : out;
}

/** Loads a folder and computes one step. @returns the refusal's text; undefined: it was served */
async function tryModel(folder: string): Promise<string | undefined> {
  let session: ForwardSession | undefined;
  try {
    session = await ForwardSession.open(folder, "native", { cacheTokens: 64 });
    session.run(session.start(), [5, 6, 7]);
    return undefined;
  } catch (error) {
    return refusalOf(error);
  } finally {
    session?.dispose();
  }
}

function refusalOf(error: unknown): string {
  if (!(error instanceof OmlxError)) throw error;
  expect(error.message).not.toBe("");
  expect(error.message.length).toBeLessThan(1100);
  return error.message;
}

describe("damaged files", () => {
  for (const name of ["llama-Q8_0", "llama-spm", "qwen3-Q4_0", "llama-Q4_K"]) {
    test(
      `${name}.gguf with flipped bits or cut off is converted and served, or refused`,
      async () => {
        const random = randomNumbers(name.length * 7919 + 1);
        const good = readFileSync(join(FIXTURES, "gguf", `${name}.gguf`));
        const source = join(root, "m.gguf");
        const folder = join(root, "converted");
        let served = 0;
        let refused = 0;
        for (let run = 0; run < RUNS; run++) {
          // names, sizes and the metadata before the vocabulary and after it: half of the damage each
          const reach = random(2) === 0 ? 400 : 16_000;
          writeFileSync(source, damage(good, reach, random));
          try {
            inspectGguf(source);
            convertGguf(source, folder);
          } catch (error) {
            refusalOf(error);
            refused++;
            continue;
          }
          if ((await tryModel(folder)) === undefined) served++;
          else refused++;
        }
        expect(served + refused).toBe(RUNS);
        expect(served).toBeGreaterThan(0); // damage to a word of the vocabulary is none to the model
        expect(refused).toBeGreaterThan(0);
      },
      sized(2, 20) * MINUTE,
    );
  }

  for (const [file, reach] of [
    ["model.safetensors", 3000],
    ["config.json", 1000],
  ] as const) {
    test(
      `a model whose ${file} has flipped bits or is cut off is served or refused`,
      async () => {
        const random = randomNumbers(file.length * 104_729);
        const folder = join(root, "plain");
        cpSync(join(FIXTURES, "models", "llama-f32"), folder, { recursive: true });
        const good = readFileSync(join(folder, file));
        let refused = 0;
        for (let run = 0; run < RUNS; run++) {
          writeFileSync(join(folder, file), damage(good, reach, random));
          if ((await tryModel(folder)) !== undefined) refused++;
        }
        expect(refused).toBeGreaterThan(RUNS / 10);
      },
      sized(2, 20) * MINUTE,
    );
  }
});
