import { freemem } from "node:os";
import { OmlxError } from "#core/contract";
import { type ModelConfig, readTensors, type TensorInfo } from "#core/formats";
import * as mx from "#device/mlx";
import type { Matrix } from "./kernels.ts";

/** What the models here can be made of. */
const DTYPES: ReadonlySet<string> = new Set(["float32", "float16", "bfloat16", "uint32", "uint8"]);

/**
 * The tensors of a model folder by name; mapped when taken.
 *
 * @throws {OmlxError} model_load when a header or a shard is broken
 */
export async function openWeights(path: string, config: ModelConfig): Promise<Weights> {
  return new Weights(path, config, withPlainNames(await readTensors(path)));
}

/**
 * Tensors by the names that a language model of its own has. A wrapper puts its own name before them
 * ("language_model.model.norm.weight", "model.language_model.norm.weight"), a model saved from its base class leaves
 * "model." out.
 */
function withPlainNames(tensors: ReadonlyMap<string, TensorInfo>): ReadonlyMap<string, TensorInfo> {
  const names = [...tensors.keys()];
  const begins = (start: string) => names.some((name) => name.startsWith(start));
  const renamed = (plain: (name: string) => string) =>
    new Map([...tensors].map(([name, info]) => [plain(name), info]));
  if (begins("model.language_model.")) {
    return renamed((name) => name.replace(/^model\.language_model\./, "model."));
  }
  if (begins("language_model.")) return renamed((name) => name.replace(/^language_model\./, ""));
  if (begins("model.")) return tensors;
  return renamed((name) => (name.startsWith("lm_head.") ? name : `model.${name}`));
}

/**
 * The tensors of a model folder over its files, mapped or read whole, and handed out by name.
 *
 * Every tensor must be taken or be known to be unused: `audit()` names what is left over, `take()` what is missing.
 */
export class Weights {
  readonly bytes: number;
  readonly #path: string;
  readonly #config: Pick<ModelConfig, "quantization">;
  readonly #tensors: ReadonlyMap<string, TensorInfo>;
  readonly #mappings = new Map<string, mx.Mapping>();
  readonly #taken = new Map<string, mx.MxArray>();
  #isInMemory = false;

  constructor(
    path: string,
    config: Pick<ModelConfig, "quantization">,
    tensors: ReadonlyMap<string, TensorInfo>,
  ) {
    this.#path = path;
    this.#config = config;
    this.#tensors = tensors;
    this.bytes = [...tensors.values()].reduce((sum, t) => sum + t.byteLength, 0);
  }

  /**
   * Has files read into memory with huge pages as their first tensor is taken, instead of mapped: decoding walks through
   * all weights for every token, and small pages cost it a tenth to a third of its speed. Files that do not fit twice
   * into the free memory stay mapped.
   */
  preferMemory(): void {
    this.#isInMemory = 2 * this.bytes <= freemem();
  }

  /** Whether matrices are quantized, any of them. */
  get isQuantized(): boolean {
    return [...this.#tensors.keys()].some((name) => name.endsWith(".scales"));
  }

  /** Takes mapped files out of this process's memory; what is read again comes back from the page cache. */
  releasePages(): void {
    for (const mapping of this.#mappings.values()) mx.releasePages(mapping);
  }

  has(name: string): boolean {
    return this.#tensors.has(name);
  }

  /**
   * The tensor over the mapped file; owned by this object.
   *
   * @param shape checked when given
   * @throws {OmlxError} model_load when it is missing, or its shape or dtype does not fit
   */
  take(name: string, shape?: readonly number[]): mx.MxArray {
    const info = this.#tensors.get(name);
    if (!info) throw this.#error(`tensor "${name}" is missing`);
    const known = this.#taken.get(name);
    if (known) return known;
    if (!DTYPES.has(info.dtype))
      throw this.#error(`tensor "${name}" has dtype ${info.dtype}, which is not supported`);
    if (shape && !sameShape(info.shape, shape)) {
      throw this.#error(`tensor "${name}" has shape [${info.shape}] where [${shape}] is expected`);
    }
    let mapping = this.#mappings.get(info.file);
    if (!mapping) {
      mapping = mx.openMapping(info.file, this.#isInMemory);
      this.#mappings.set(info.file, mapping);
    }
    const array = mx.keep(
      mx.mappedArray(mapping, info.byteOffset, info.shape, info.dtype as mx.Dtype),
    );
    this.#taken.set(name, array);
    return array;
  }

  /**
   * The matrix of `path` ("model.layers.0.self_attn.q_proj"), dense or quantized; bits and group size come from the
   * shapes, since tables in config files go stale.
   *
   * @param rows N
   * @param columns K
   */
  matrix(path: string, rows: number, columns: number): Matrix {
    if (!this.has(`${path}.scales`)) {
      const weight = this.take(`${path}.weight`, [rows, columns]);
      return { weight, scales: null, biases: null, bits: 0, groupSize: 0 };
    }
    const weight = this.take(`${path}.weight`);
    const scales = this.take(`${path}.scales`);
    const table = this.#config.quantization;
    const mode = (table?.byPath.get(path) ?? table?.default)?.mode ?? "affine";
    if (mode !== "affine" || scales.dtype === "uint8") {
      throw this.#error(
        `tensor "${path}.weight" is quantized as ${mode}; only affine is supported`,
      );
    }
    const biases = this.take(`${path}.biases`, scales.shape);
    const bits = ((weight.shape[1] ?? 0) * 32) / columns;
    const groupSize = columns / (scales.shape[1] ?? 0);
    if (weight.shape[0] !== rows || scales.shape[0] !== rows || weight.dtype !== "uint32") {
      throw this.#error(
        `tensor "${path}.weight" has shape [${weight.shape}] where ${rows} rows of uint32 are expected`,
      );
    }
    if (![2, 3, 4, 5, 6, 8].includes(bits) || !Number.isInteger(groupSize)) {
      throw this.#error(
        `tensor "${path}.weight" packs ${bits} bits in groups of ${groupSize}, which is not supported`,
      );
    }
    return { weight, scales, biases, bits, groupSize };
  }

  /** The linear's additive bias, when the model has one. */
  bias(path: string, rows: number): mx.MxArray | null {
    return this.has(`${path}.bias`) ? this.take(`${path}.bias`, [rows]) : null;
  }

  /** @throws {OmlxError} model_load naming the tensors that nothing took and no rule drops */
  audit(unused: readonly RegExp[]): void {
    const left = [...this.#tensors.keys()].filter(
      (name) => !this.#taken.has(name) && !unused.some((rule) => rule.test(name)),
    );
    if (left.length === 0) return;
    const names = left
      .slice(0, 5)
      .map((name) => `"${name}"`)
      .join(", ");
    const more = left.length > 5 ? ` and ${left.length - 5} more` : "";
    throw this.#error(`the model does not use tensor ${names}${more}`);
  }

  dispose(): void {
    for (const array of this.#taken.values()) mx.free(array);
    this.#taken.clear();
    for (const mapping of this.#mappings.values()) mx.closeMapping(mapping);
    this.#mappings.clear();
  }

  #error(found: string): OmlxError {
    return new OmlxError({
      code: "model_load",
      message: `Cannot load model "${this.#path.split("/").at(-1)}": ${found}`,
    });
  }
}

const sameShape = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((n, i) => n === b[i]);
