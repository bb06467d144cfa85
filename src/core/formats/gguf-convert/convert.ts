import {
  closeSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  statfsSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { type JsonObject, loadError } from "../fields.ts";
import { readAt } from "../folder.ts";
import { type GgufFile, type GgufTensor, readGguf } from "../gguf.ts";
import { layoutSafetensors } from "../safetensors.ts";
import { type ConvertedConfig, convertConfig } from "./config.ts";
import { checkTokenizer, convertTokenizer } from "./tokenizer.ts";
import { type AffineForm, type ConvertedTensor, planTensor } from "./weights.ts";

/** Changes whenever the converter makes other files of the same source. */
export const GGUF_CONVERTER = "2";

/** Rows are read and converted in pieces of about so many bytes of the source. */
const PIECE_BYTES = 16 * 2 ** 20;

/** What a GGUF model is, as far as its header tells. */
export interface GgufSummary {
  readonly modelType: string;
  readonly maxPositions: number;
  /** Of the converted weights. */
  readonly weightBytes: number;
  /** How its weights will differ from the file's, a phrase each: "5 matrices of type Q6_K requantized to 8 bits". */
  readonly changes: readonly string[];
}

/**
 * Looks at a GGUF model's header and plans its conversion; reads no vocabulary and no weights.
 *
 * @throws {OmlxError} model_load for what cannot be converted
 */
export function inspectGguf(path: string): GgufSummary {
  const file = readGguf(path, { maxList: 64 });
  const config = convertConfig(file, null);
  checkTokenizer(file);
  const plans = plansOf(file, config);
  const bytes = plans.flatMap(({ plan }) => plan.outputs).reduce((n, t) => n + t.byteLength, 0);
  return {
    modelType: config.modelType,
    maxPositions: config.maxPositions,
    weightBytes: bytes,
    changes: changesOf(plans),
  };
}

/** How far a conversion is. */
export interface GgufProgress {
  readonly doneBytes: number;
  readonly totalBytes: number;
}

/**
 * Writes a GGUF file's model as a folder in MLX's format: config.json, model.safetensors, tokenizer.json,
 * tokenizer_config.json, generation_config.json and, if the file has one, chat_template.jinja. The folder appears whole or
 * not at all; an older one is replaced. Memory stays bounded, whatever the file's size.
 *
 * @returns how the weights differ from the file's, as in GgufSummary
 * @throws {OmlxError} model_load for what has no MLX form, or when the disk has no room for it
 */
export function convertGguf(path: string, folder: string): readonly string[] {
  const steps = convertGgufSteps(path, folder);
  for (;;) {
    const { done, value } = steps.next();
    if (done === true) return value;
  }
}

/** convertGguf() in steps, so that others get their turn in between. Leaving it early leaves nothing behind. */
export function* convertGgufSteps(
  path: string,
  folder: string,
): Generator<GgufProgress, readonly string[]> {
  const file = readGguf(path);
  const config = convertConfig(file, ropeFactors(file));
  const tokenizer = convertTokenizer(file);
  const plans = plansOf(file, config);
  const json = (value: unknown) => `${JSON.stringify(value, null, 2)}\n`;
  const staged = `${folder}.part-${process.pid}`;
  rmSync(staged, { recursive: true, force: true });
  mkdirSync(staged, { recursive: true });
  try {
    const write = (name: string, text: string) => writeFileSync(join(staged, name), text);
    const quantization = quantizationOf(plans.map(({ plan }) => plan));
    write("config.json", json({ ...config.json, ...quantization }));
    write(
      "generation_config.json",
      json({
        bos_token_id: config.bosId,
        eos_token_id: config.eosIds,
        pad_token_id: config.padId,
      }),
    );
    write("tokenizer.json", JSON.stringify(tokenizer.tokenizer));
    write("tokenizer_config.json", json(tokenizer.config));
    if (tokenizer.chatTemplate !== null) write("chat_template.jinja", tokenizer.chatTemplate);
    yield* writeWeights(plans, join(staged, "model.safetensors"));
    rmSync(folder, { recursive: true, force: true });
    renameSync(staged, folder);
  } finally {
    rmSync(staged, { recursive: true, force: true });
  }
  return changesOf(plans);
}

interface Plan {
  readonly tensor: GgufTensor;
  readonly plan: ConvertedTensor;
}

function* writeWeights(plans: readonly Plan[], path: string): Generator<GgufProgress> {
  const layout = layoutSafetensors(
    plans.flatMap(({ plan }) => plan.outputs),
    { format: "mlx" },
  );
  checkRoom(dirname(path), layout.fileBytes);
  const totalBytes = plans.reduce((n, { tensor }) => n + tensor.byteLength, 0);
  let doneBytes = 0;
  const inputs = new Map<string, number>();
  const output = openSync(path, "w");
  try {
    writeAt(output, layout.start, 0);
    for (const { tensor, plan } of plans) {
      const input = inputs.get(tensor.file) ?? openSync(tensor.file, "r");
      inputs.set(tensor.file, input);
      const steps = Math.max(1, Math.floor(PIECE_BYTES / (plan.rowBytes * plan.rowStep)));
      const pieceRows = steps * plan.rowStep;
      for (let row = 0; row < plan.rows; row += pieceRows) {
        const count = Math.min(pieceRows, plan.rows - row);
        const source = readAt(
          input,
          tensor.byteOffset + row * plan.rowBytes,
          count * plan.rowBytes,
        );
        if (source.byteLength !== count * plan.rowBytes) {
          throw loadError(
            `Cannot read ${basename(tensor.file)}: tensor "${tensor.name}" is cut off`,
          );
        }
        const parts = plan.convert(source, count);
        plan.outputs.forEach((part, i) => {
          const begin = layout.byteOffsets.get(part.name) ?? 0;
          const at = begin + (part.byteLength / plan.rows) * row;
          writeAt(output, parts[i] ?? new Uint8Array(), at);
        });
        doneBytes += source.byteLength;
        yield { doneBytes, totalBytes };
      }
    }
  } finally {
    for (const input of inputs.values()) closeSync(input);
    closeSync(output);
  }
}

/** @throws {OmlxError} model_load: better before than after minutes of writing */
function checkRoom(folder: string, bytes: number): void {
  const { bavail, bsize } = statfsSync(folder);
  const free = bavail * bsize;
  if (free >= bytes) return;
  const gb = (n: number) => `${(n / 2 ** 30).toFixed(1)} GB`;
  throw loadError(
    `Cannot convert the GGUF file: it needs ${gb(bytes)} in ${folder}, ${gb(free)} are free`,
  );
}

function writeAt(fd: number, bytes: Uint8Array, offset: number): void {
  for (let done = 0; done < bytes.byteLength; ) {
    done += writeSync(fd, bytes, done, bytes.byteLength - done, offset + done);
  }
}

/** "5 matrices of type Q6_K requantized to 8 bits", by type. */
function changesOf(plans: readonly Plan[]): readonly string[] {
  const counts = new Map<string, number>();
  for (const { tensor, plan } of plans) {
    if (plan.change === undefined) continue;
    const what = `of type ${tensor.type.name} ${plan.change}`;
    counts.set(what, (counts.get(what) ?? 0) + 1);
  }
  return [...counts].map(([what, n]) => `${n} ${n === 1 ? "matrix" : "matrices"} ${what}`);
}

/** The commonest form is the folder's default; every other quantized matrix has an entry of its own. */
function quantizationOf(plans: readonly ConvertedTensor[]): JsonObject {
  const counts = new Map<number, { form: AffineForm; count: number }>();
  for (const { form } of plans) {
    if (form === null) continue;
    counts.set(form.bits, { form, count: (counts.get(form.bits)?.count ?? 0) + 1 });
  }
  const common = [...counts.values()].sort((a, b) => b.count - a.count)[0]?.form;
  if (common === undefined) return {};
  const entry = (form: AffineForm) => ({
    group_size: form.groupSize,
    bits: form.bits,
    mode: "affine",
  });
  const others = plans.flatMap(({ path, form }) =>
    form === null || form.bits === common.bits ? [] : [[path, entry(form)] as const],
  );
  return { quantization: { ...entry(common), ...Object.fromEntries(others) } };
}

/** GGUF's names of a block's modules → ours. */
const BLOCK_MODULES: Readonly<Record<string, string>> = {
  attn_norm: "input_layernorm",
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
  attn_q_norm: "self_attn.q_norm",
  attn_k_norm: "self_attn.k_norm",
  ffn_norm: "post_attention_layernorm",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
};

const TOP_MODULES: Readonly<Record<string, string>> = {
  token_embd: "model.embed_tokens",
  output_norm: "model.norm",
  output: "lm_head",
};

/** Divisors of the rotary frequencies: part of the config, not of the weights. */
const ROPE_FACTORS = "rope_freqs.weight";

function ropeFactors(file: GgufFile): readonly number[] | null {
  const tensor = file.tensors.find(({ name }) => name === ROPE_FACTORS);
  if (tensor === undefined) return null;
  if (tensor.type.name !== "F32") {
    throw loadError(
      `Cannot convert tensor "${ROPE_FACTORS}": type ${tensor.type.name} is not read`,
    );
  }
  const fd = openSync(tensor.file, "r");
  try {
    const bytes = readAt(fd, tensor.byteOffset, tensor.byteLength);
    return [...new Float32Array(bytes.buffer, 0, bytes.byteLength / 4)];
  } finally {
    closeSync(fd);
  }
}

function plansOf(file: GgufFile, config: ConvertedConfig): readonly Plan[] {
  return file.tensors
    .filter(({ name }) => name !== ROPE_FACTORS)
    .map((tensor) => ({ tensor, plan: planOf(tensor, config) }));
}

function planOf(
  tensor: GgufTensor,
  config: { headDim: number; hasPairedRows: boolean },
): ConvertedTensor {
  const match = /^(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)$/.exec(tensor.name);
  const [, layer, module = "", parameter = ""] = match ?? [];
  const table = layer === undefined ? TOP_MODULES : BLOCK_MODULES;
  const known = Object.hasOwn(table, module) ? table[module] : undefined;
  if (known === undefined) {
    throw loadError(`Cannot convert tensor "${tensor.name}": its place in the model is not known`);
  }
  const path = layer === undefined ? known : `model.layers.${layer}.${known}`;
  const isPaired = config.hasPairedRows && (module === "attn_q" || module === "attn_k");
  return planTensor(tensor, path, parameter, isPaired ? config.headDim : null);
}
