/** How fast the machine reads memory, and how much a model reads per token. */
import { existsSync, mkdirSync, readdirSync, renameSync } from "node:fs";
import { arch, cpus } from "node:os";
import { join } from "node:path";
import { cacheDir } from "../scripts/wheels.ts";

const SOURCE = join(import.meta.dir, "bandwidth.cpp");

/** Measures with this many threads: GB/s. The program is compiled for this CPU once. */
export class Bandwidth {
  readonly #program: string;
  readonly #threads: number;

  private constructor(program: string, threads: number) {
    this.#program = program;
    this.#threads = threads;
  }

  /** @throws {Error} without a C++ compiler */
  static async open(threads: number): Promise<Bandwidth> {
    const cpu = `${arch()} ${cpus()[0]?.model ?? ""}`;
    const stamp = Bun.hash(`${cpu}\n${await Bun.file(SOURCE).text()}`).toString(36);
    const folder = join(cacheDir(), "bench");
    const program = join(folder, `bandwidth-${stamp}`);
    if (existsSync(program)) return new Bandwidth(program, threads);
    mkdirSync(folder, { recursive: true });
    const fresh = `${program}.${process.pid}`;
    const flags = ["-O3", "-march=native", "-std=c++20", "-pthread"];
    const { success, stderr } = Bun.spawnSync(["c++", ...flags, SOURCE, "-o", fresh]);
    if (!success) throw new Error(`cannot compile bandwidth.cpp:\n${stderr.toString()}`);
    renameSync(fresh, program);
    return new Bandwidth(program, threads);
  }

  async measure(): Promise<number> {
    const child = Bun.spawn([this.#program, String(this.#threads)], { stderr: "ignore" });
    const speed = Number(await child.stdout.text());
    if ((await child.exited) !== 0 || !(speed > 0)) throw new Error("bandwidth.cpp failed");
    return speed;
  }
}

/** Bytes of weights that a step of one token reads: all, but of an embedding that is not also the head only one row. */
export async function bytesPerToken(folder: string): Promise<number> {
  const { tie_word_embeddings: isTied } = await Bun.file(join(folder, "config.json")).json();
  let total = 0;
  for (const name of readdirSync(folder).filter((file) => file.endsWith(".safetensors"))) {
    const file = Bun.file(join(folder, name));
    const length = new DataView(await file.slice(0, 8).arrayBuffer()).getBigUint64(0, true);
    const header: Record<string, { readonly data_offsets?: readonly [number, number] }> = await file
      .slice(8, 8 + Number(length))
      .json();
    for (const [tensor, { data_offsets: [begin, end] = [0, 0] }] of Object.entries(header)) {
      if (isTied || !tensor.includes("embed_tokens")) total += end - begin;
    }
  }
  return total;
}
