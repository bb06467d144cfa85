import type { TokenOutput } from "#core/contract";
import type { ModelConfig } from "#core/formats";
import * as mx from "#device/mlx";
import { buildLinear, buildNorm, type EncoderParts, scoped } from "./encoder-parts.ts";
import type { EncoderSpec, HeadMatrixSpec, HeadSpec } from "./encoder-spec.ts";
import type { Matrix } from "./kernels.ts";
import { normalizeRow, poolRows } from "./pooling.ts";
import { Weights } from "./weights.ts";

/** What makes one row of numbers out of each text's token rows. */
export interface Head {
  readonly width: number;
  /**
   * @param states (T, E) of all texts
   * @param ends   text i ends before row ends[i]
   * @returns (texts, width)
   */
  rows(states: Float32Array, ends: Int32Array): Float32Array;
  /** What there is for single tokens. */
  readonly tokens: ReadonlyMap<TokenOutput, TokenHead>;
  dispose(): void;
}

export interface TokenHead {
  readonly width: number;
  /** (T, E) → (T, width) */
  rows(states: Float32Array): Float32Array;
}

const NO_TOKENS: ReadonlyMap<TokenOutput, TokenHead> = new Map();

type Stage = (x: mx.MxArray) => mx.MxArray;

export function buildHead(spec: EncoderSpec, parts: EncoderParts): Head {
  switch (spec.head.kind) {
    case "vector":
      return vectorHead(spec.head, spec, parts);
    case "labels":
      return labelsHead(spec.head, spec, parts);
    case "nextToken":
      return nextTokenHead(spec.head, spec, parts);
  }
}

function vectorHead(
  { pooling, dense, normalizes, tokens }: Extract<HeadSpec, { kind: "vector" }>,
  { hidden }: EncoderSpec,
  parts: EncoderParts,
): Head {
  const opened: Weights[] = [];
  const stages = dense.map((matrix) => matrixStage(matrix, parts, opened));
  const pooled = pooling.length * hidden;
  const width = dense.at(-1)?.outputs ?? pooled;
  return {
    width,
    rows(states, ends) {
      const out = through(stages, pool(states, ends, hidden, pooling), pooled);
      if (normalizes) normalizeRows(out, width);
      return out;
    },
    tokens: new Map(
      tokens.map((spec): [TokenOutput, TokenHead] => [
        spec.output,
        tokenHead(matrixStage(spec, parts, opened), spec.inputs, spec.outputs, spec.normalizes),
      ]),
    ),
    dispose() {
      for (const weights of opened) weights.dispose();
    },
  };
}

function tokenHead(stage: Stage, inputs: number, width: number, normalizes: boolean): TokenHead {
  return {
    width,
    rows(states) {
      const out = through([stage], states, inputs);
      if (normalizes) normalizeRows(out, width);
      return out;
    },
  };
}

function normalizeRows(rows: Float32Array, width: number): void {
  for (let at = 0; at < rows.length; at += width) normalizeRow(rows.subarray(at, at + width));
}

/** sigmoid of the only label's logit, or softmax's share of the last label. */
function labelsHead(
  { pooling, layers }: Extract<HeadSpec, { kind: "labels" }>,
  spec: EncoderSpec,
  parts: EncoderParts,
): Head {
  let inputs = spec.hidden;
  const stages = layers.map(({ path, outputs, activation, norm }): Stage => {
    const linear = buildLinear(path, outputs, inputs, parts);
    const normalize = buildNorm(norm, outputs, spec, parts);
    inputs = outputs;
    return (x) => {
      const y = parts.more.activate(activation, linear(x));
      return normalize ? normalize(y) : y;
    };
  });
  const labels = inputs;
  return {
    width: 1,
    rows(states, ends) {
      const logits = through(stages, pool(states, ends, spec.hidden, [pooling]), spec.hidden);
      return Float32Array.from({ length: ends.length }, (_, i) =>
        shareOfLast(logits.subarray(i * labels, (i + 1) * labels)),
      );
    },
    tokens: NO_TOKENS,
    dispose() {},
  };
}

function shareOfLast(logits: Float32Array): number {
  const last = logits.at(-1) as number;
  if (logits.length === 1) return 1 / (1 + Math.exp(-last));
  return 1 / logits.reduce((sum, logit) => sum + Math.exp(logit - last), 0);
}

/** Share of the token "yes" against "no" at the last position. */
function nextTokenHead(
  { yes, no }: Extract<HeadSpec, { kind: "nextToken" }>,
  spec: EncoderSpec,
  { weights, kernels, owned }: EncoderParts,
): Head {
  const whole = weights.matrix(spec.lmHead, spec.vocab, spec.hidden);
  const pick = (array: mx.MxArray): mx.MxArray => {
    const ids = () => mx.array([no, yes], [2], "int32");
    const [rows] = scoped(() => [mx.take(array, ids(), 0)]) as [mx.MxArray];
    owned.push(rows);
    return rows;
  };
  const matrix: Matrix = {
    ...whole,
    weight: pick(whole.weight),
    scales: whole.scales && pick(whole.scales),
    biases: whole.biases && pick(whole.biases),
  };
  const linear = kernels.linear(matrix, null);
  return {
    width: 1,
    rows(states, ends) {
      const last = pool(states, ends, spec.hidden, ["lastToken"]);
      const logits = through([linear], last, spec.hidden);
      return Float32Array.from({ length: ends.length }, (_, i) =>
        shareOfLast(logits.subarray(2 * i, 2 * i + 2)),
      );
    },
    tokens: NO_TOKENS,
    dispose() {},
  };
}

function pool(
  states: Float32Array,
  ends: Int32Array,
  hidden: number,
  modes: Parameters<typeof poolRows>[2],
): Float32Array {
  const width = modes.length * hidden;
  const out = new Float32Array(ends.length * width);
  let begin = 0;
  ends.forEach((end, i) => {
    const rows = states.subarray(begin * hidden, end * hidden);
    poolRows(rows, hidden, modes, out.subarray(i * width, (i + 1) * width));
    begin = end;
  });
  return out;
}

function through(stages: readonly Stage[], rows: Float32Array, width: number): Float32Array {
  if (stages.length === 0) return rows;
  return mx.scope(() => {
    let x = mx.array(rows, [rows.length / width, width], "float32");
    for (const stage of stages) x = stage(x);
    return mx.toFloat32(x);
  });
}

function matrixStage(spec: HeadMatrixSpec, parts: EncoderParts, opened: Weights[]): Stage {
  let { weights } = parts;
  if (spec.tensors) {
    weights = new Weights(spec.path, NO_CONFIG, spec.tensors);
    opened.push(weights);
  }
  const linear = buildLinear(spec.path, spec.outputs, spec.inputs, { ...parts, weights });
  if (spec.tensors) weights.audit([]);
  return (x) => parts.more.activate(spec.activation, linear(x));
}

/** Such files say nothing of quantization. */
const NO_CONFIG: Pick<ModelConfig, "quantization"> = { quantization: null };
