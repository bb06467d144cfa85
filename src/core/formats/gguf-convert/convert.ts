import {
  closeSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { basename, join } from "node:path";
import { type JsonObject, loadError } from "../fields.ts";
import { readAt } from "../folder.ts";
import { type GgufFile, type GgufTensor, readGguf } from "../gguf.ts";
import { layoutSafetensors } from "../safetensors.ts";
import { convertConfig } from "./config.ts";
import { convertTokenizer } from "./tokenizer.ts";
import { type AffineForm, type ConvertedTensor, planTensor } from "./weights.ts";

/**
 * Writes a GGUF file's model as a folder in MLX's format: config.json, model.safetensors, tokenizer.json,
 * tokenizer_config.json, generation_config.json and, if the file has one, chat_template.jinja. Every weight keeps its
 * exact value. The folder appears whole or not at all; an older one is replaced.
 *
 * @throws {OmlxError} model_load for what has no exact form
 */
export function convertGguf(path: string, folder: string): void {
  const file = readGguf(path);
  const config = convertConfig(file);
  const tokenizer = convertTokenizer(file);
  const plans = file.tensors.map((tensor) => ({ tensor, plan: planOf(tensor, config) }));
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
    writeWeights(file, plans, join(staged, "model.safetensors"));
    rmSync(folder, { recursive: true, force: true });
    renameSync(staged, folder);
  } catch (error) {
    rmSync(staged, { recursive: true, force: true });
    throw error;
  }
}

interface Plan {
  readonly tensor: GgufTensor;
  readonly plan: ConvertedTensor;
}

function writeWeights(file: GgufFile, plans: readonly Plan[], path: string): void {
  const layout = layoutSafetensors(
    plans.flatMap(({ plan }) => plan.outputs),
    { format: "mlx" },
  );
  const input = openSync(file.path, "r");
  const output = openSync(path, "w");
  try {
    writeAt(output, layout.start, 0);
    for (const { tensor, plan } of plans) {
      const source = readAt(input, tensor.byteOffset, tensor.byteLength);
      if (source.byteLength !== tensor.byteLength) {
        throw loadError(`Cannot read ${basename(file.path)}: tensor "${tensor.name}" is cut off`);
      }
      const parts = plan.convert(source);
      plan.outputs.forEach((part, i) => {
        writeAt(output, parts[i] ?? new Uint8Array(), layout.byteOffsets.get(part.name) ?? 0);
      });
    }
  } finally {
    closeSync(input);
    closeSync(output);
  }
}

function writeAt(fd: number, bytes: Uint8Array, offset: number): void {
  for (let done = 0; done < bytes.byteLength; ) {
    done += writeSync(fd, bytes, done, bytes.byteLength - done, offset + done);
  }
}

/** The commonest form is the folder's default; every other quantized matrix has an entry of its own. */
function quantizationOf(plans: readonly ConvertedTensor[]): JsonObject {
  const counts = new Map<string, { form: AffineForm; count: number }>();
  for (const { form } of plans) {
    if (form === null) continue;
    const key = `${form.bits}/${form.groupSize}`;
    counts.set(key, { form, count: (counts.get(key)?.count ?? 0) + 1 });
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
