import { join } from "node:path";

/** Formats: scripts/golden/README.md. */
const FIXTURES = join(import.meta.dir, "..", "fixtures");

export interface TinyGolden {
  readonly model: string;
  readonly path: string;
  readonly weights: string;
  readonly prompts: readonly { readonly ids: number[]; readonly greedy: number[] }[];
  /** Logits at the last position of each prompt. */
  readonly last: readonly Float32Array[];
  readonly fullPrompt: number;
  /** Logits at every position of that prompt. */
  readonly full: readonly Float32Array[];
}

export function tinyNames(): string[] {
  const folder = join(FIXTURES, "golden", "tiny");
  return [...new Bun.Glob("*.json").scanSync(folder)].map((name) => name.slice(0, -5)).sort();
}

export async function readTiny(name: string): Promise<TinyGolden> {
  const stem = join(FIXTURES, "golden", "tiny", name);
  const meta = await Bun.file(`${stem}.json`).json();
  const values = new Float32Array(await Bun.file(`${stem}.bin`).arrayBuffer());
  const rows = Array.from({ length: values.length / meta.vocabulary }, (_, i) =>
    values.subarray(i * meta.vocabulary, (i + 1) * meta.vocabulary),
  );
  return {
    ...meta,
    path: join(FIXTURES, "models", name),
    last: rows.slice(0, meta.prompts.length),
    full: rows.slice(meta.prompts.length),
  };
}

/** What the reference expects after each position of a text. */
export interface Passage {
  readonly name: string;
  readonly ids: readonly number[];
  /** Per position the most probable tokens, descending. */
  readonly top: readonly {
    readonly ids: Uint16Array;
    readonly logprobs: Float32Array;
    /** Logarithm of the mass outside of `ids`. */
    readonly rest: number;
    /** Between the two most probable tokens. */
    readonly margin: number;
  }[];
}

export async function readPassages(): Promise<Passage[]> {
  const folder = join(FIXTURES, "golden", "smollm2");
  const { positions, top, passages } = await Bun.file(join(folder, "passages.json")).json();
  return Promise.all(
    Object.entries<number[]>(passages).map(async ([name, ids]) => {
      const data = await Bun.file(join(folder, `${name}.bin`)).arrayBuffer();
      const tokens = new Uint16Array(data, 0, positions * top);
      const floats = new Float32Array(data, tokens.byteLength);
      const rest = floats.subarray(positions * top);
      return {
        name,
        ids,
        top: Array.from({ length: positions }, (_, i) => ({
          ids: tokens.subarray(i * top, (i + 1) * top),
          logprobs: floats.subarray(i * top, (i + 1) * top),
          rest: rest[i] ?? Number.NaN,
          margin: rest[positions + i] ?? Number.NaN,
        })),
      };
    }),
  );
}

export interface ChatGolden {
  readonly messages: readonly {
    readonly role: "system" | "user" | "assistant";
    readonly content: string;
  }[];
  /** The rendered template. */
  readonly prompt: string;
  readonly ids: readonly number[];
  /** 128 tokens, going on after EOS. */
  readonly greedy: readonly number[];
  /** Between the two largest logits. */
  readonly margins: readonly number[];
  /** The tokens before the first EOS, as text. */
  readonly answer: string;
}

export function readChats(): Promise<ChatGolden[]> {
  return Bun.file(join(FIXTURES, "golden", "smollm2", "chats.json")).json();
}

export function readStrings(): Promise<{ text: string; ids: number[] }[]> {
  return Bun.file(join(FIXTURES, "golden", "smollm2", "strings.json")).json();
}
