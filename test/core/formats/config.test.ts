import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { OmlxError } from "#core/contract";
import { normalizeConfig, parseJsonObject, readModelFolder } from "#core/formats";

const base = {
  model_type: "llama",
  hidden_size: 64,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  intermediate_size: 128,
  vocab_size: 384,
};

describe("normalizeConfig()", () => {
  test("fills what a plain decoder leaves out", () => {
    expect(normalizeConfig(base)).toMatchObject({
      modelType: "llama",
      numKvHeads: 4,
      headDim: 16,
      eps: 1e-6,
      hiddenAct: "silu",
      rope: { theta: 10000, dims: 16, scaling: { kind: "default" } },
      slidingRope: null,
      tieWordEmbeddings: false,
      attentionBias: false,
      mlpBias: false,
      slidingWindow: null,
      layerTypes: null,
      maxPositions: 2048,
      quantization: null,
      eosIds: [],
      dtype: null,
    });
  });

  test("reads both dialects of rope to the same record", () => {
    const yarn = { factor: 4, original_max_position_embeddings: 1024 };
    const old = { ...base, rope_theta: 5e5, rope_scaling: { type: "yarn", ...yarn } };
    const fresh = { ...base, rope_parameters: { rope_theta: 5e5, rope_type: "yarn", ...yarn } };
    const expected = {
      theta: 5e5,
      dims: 16,
      scaling: {
        kind: "yarn",
        factor: 4,
        originalMaxPositions: 1024,
        betaFast: 32,
        betaSlow: 1,
        truncate: true,
        mscale: undefined,
        mscaleAllDim: undefined,
        attentionFactor: undefined,
      },
    } as const;
    expect(normalizeConfig(old).rope).toEqual(expected);
    expect(normalizeConfig(fresh).rope).toEqual(expected);
  });

  test("reads llama3, linear, dynamic and unknown scaling", () => {
    const of = (rope_scaling: unknown) => normalizeConfig({ ...base, rope_scaling }).rope.scaling;
    expect(
      of({
        rope_type: "llama3",
        factor: 8,
        low_freq_factor: 1,
        high_freq_factor: 4,
        original_max_position_embeddings: 8192,
      }),
    ).toEqual({
      kind: "llama3",
      factor: 8,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalMaxPositions: 8192,
    });
    expect(of({ type: "linear", factor: 2 })).toEqual({ kind: "linear", factor: 2 });
    expect(of({ type: "dynamic", factor: 2 })).toEqual({
      kind: "dynamic",
      factor: 2,
      originalMaxPositions: 2048,
    });
    expect(of({ rope_type: "odd" })).toMatchObject({ kind: "other", name: "odd" });
    expect(of({ rope_type: "default" })).toEqual({ kind: "default" });
  });

  test("reads one rope record per layer type", () => {
    const config = normalizeConfig({
      ...base,
      rope_parameters: {
        full_attention: { rope_type: "linear", factor: 8, rope_theta: 1e6 },
        sliding_attention: { rope_type: "default", rope_theta: 1e4 },
      },
    });
    expect(config.rope).toEqual({ theta: 1e6, dims: 16, scaling: { kind: "linear", factor: 8 } });
    expect(config.slidingRope).toEqual({ theta: 1e4, dims: 16, scaling: { kind: "default" } });
  });

  test("merges text_config and keeps facts of both levels", () => {
    const config = normalizeConfig({
      model_type: "wrapper",
      tie_word_embeddings: true,
      eos_token_id: [1, 106],
      quantization: { group_size: 32, bits: 8 },
      text_config: { ...base, model_type: "inner", eos_token_id: 1, dtype: "bfloat16" },
    });
    expect(config).toMatchObject({
      modelType: "inner",
      tieWordEmbeddings: true,
      eosIds: [1, 106],
      dtype: "bfloat16",
    });
    expect(config.quantization?.default).toMatchObject({ groupSize: 32, bits: 8, mode: "affine" });
  });

  test("keeps the quantization of each path", () => {
    const { quantization } = normalizeConfig({
      ...base,
      quantization: {
        group_size: 64,
        bits: 4,
        "model.embed_tokens": { bits: 8 },
        "model.layers.0.mlp.up_proj": false,
        lm_head: true,
      },
    });
    expect(quantization?.byPath.get("model.embed_tokens")).toEqual({
      groupSize: 64,
      bits: 8,
      mode: "affine",
    });
    expect(quantization?.byPath.get("model.layers.0.mlp.up_proj")).toBeNull();
    expect(quantization?.byPath.get("lm_head")).toEqual({ groupSize: 64, bits: 4, mode: "affine" });
  });

  test("tells MLX's quantization_config from another library's", () => {
    const mlx = normalizeConfig({ ...base, quantization_config: { group_size: 32, bits: 4 } });
    expect([mlx.quantization?.default.groupSize, mlx.quantMethod]).toEqual([32, null]);
    const fp8 = normalizeConfig({ ...base, quantization_config: { quant_method: "fp8", bits: 8 } });
    expect([fp8.quantization, fp8.quantMethod]).toEqual([null, "fp8"]);
  });

  test("drops a sliding window that is switched off", () => {
    const off = { ...base, sliding_window: 4096, use_sliding_window: false };
    expect(normalizeConfig(off).slidingWindow).toBeNull();
    expect(normalizeConfig({ ...base, sliding_window: 4096 }).slidingWindow).toBe(4096);
  });

  test("derives layer types from a pattern or from max_window_layers", () => {
    const types = (extra: object) =>
      normalizeConfig({ ...base, sliding_window: 8, ...extra })
        .layerTypes?.map((t) => t[0])
        .join("");
    expect(types({ sliding_window_pattern: 2 })).toBe("sfsf");
    expect(types({ sliding_window_pattern: "LLG" })).toBe("ssfs");
    expect(types({ use_sliding_window: true, max_window_layers: 1 })).toBe("fsss");
    expect(types({ layer_types: ["full_attention", "x", "y", "z"] })).toBe("fxyz");
  });

  const bad: readonly [object, RegExp][] = [
    [{ model_type: undefined }, /"model_type" is missing/],
    [{ hidden_size: undefined }, /"hidden_size" is missing/],
    [{ hidden_size: "64" }, /"hidden_size" must be a whole number of at least 1, got "64"/],
    [{ num_hidden_layers: 0 }, /"num_hidden_layers" must be/],
    [{ num_hidden_layers: 2 ** 40 }, /"num_hidden_layers" must be/],
    [{ num_key_value_heads: 3 }, /4 attention heads cannot share 3/],
    [{ rope_theta: -1 }, /rope_theta must be > 0/],
    [{ rope_scaling: { type: "linear", factor: 0 } }, /factor must be > 0/],
    [{ head_dim: 7 }, /7 of 7 head dimensions cannot rotate/],
    [{ layer_types: ["full_attention"] }, /1 entries for 4 layers/],
    [{ quantization: { bits: 0 } }, /"bits" must be/],
  ];
  for (const [change, message] of bad) {
    test(`refuses ${JSON.stringify(change, (_, value) => value ?? "nothing")}`, () => {
      expect(() => normalizeConfig({ ...base, ...change })).toThrow(message);
    });
  }

  test("ends with a config or a load error, whatever the fields hold", () => {
    const keys = [
      ...Object.keys(base),
      "head_dim",
      "rope_scaling",
      "rope_parameters",
      "quantization",
    ];
    const changes = fc.dictionary(
      fc.constantFrom(...keys, "layer_types", "text_config"),
      fc.jsonValue(),
    );
    fc.assert(
      fc.property(changes, (change) => {
        try {
          expect(normalizeConfig({ ...base, ...change }).numLayers).toBeGreaterThan(0);
        } catch (error) {
          if (!(error instanceof OmlxError && error.code === "model_load")) throw error;
        }
      }),
      { numRuns: 1000 },
    );
  });
});

describe("parseJsonObject()", () => {
  test("takes a byte order mark, Infinity and NaN as Python writes them", () => {
    const text = '\uFEFF{"a": Infinity, "b": [-Infinity, NaN], "c": "NaN, \\" Infinity"}';
    expect(parseJsonObject(text, "x.json")).toEqual({
      a: Number.POSITIVE_INFINITY,
      b: [Number.NEGATIVE_INFINITY, null],
      c: 'NaN, " Infinity',
    });
  });

  test("names the file of broken text", () => {
    expect(() => parseJsonObject("{", "config.json")).toThrow(
      /Cannot read config\.json: it is not/,
    );
    expect(() => parseJsonObject("3", "config.json")).toThrow(/expected a JSON object/);
  });
});

describe("readModelFolder()", () => {
  test("joins the eos ids of both files and reads the sampling defaults", () => {
    const folder = mkdtempSync(join(tmpdir(), "omlx-config-"));
    writeFileSync(join(folder, "config.json"), JSON.stringify({ ...base, eos_token_id: 2 }));
    writeFileSync(
      join(folder, "generation_config.json"),
      JSON.stringify({ eos_token_id: [3, 2], temperature: 0.6, top_p: 0.95, top_k: 20 }),
    );
    const { eosIds, generation } = readModelFolder(folder);
    expect(eosIds).toEqual([2, 3]);
    expect(generation).toMatchObject({ temperature: 0.6, topP: 0.95, topK: 20 });
    rmSync(folder, { recursive: true });
  });

  test("names a missing config.json", () => {
    const folder = mkdtempSync(join(tmpdir(), "omlx-config-"));
    expect(() => readModelFolder(folder)).toThrow(/config\.json is missing/);
    rmSync(folder, { recursive: true });
  });
});
