import type { ModelConfig } from "#core/formats";
import type { DecoderSpec } from "#device/nn";
import { base } from "./base.ts";

/** Qwen2 and Qwen2.5: biases on q, k and v (mlx-lm models/qwen2.py). */
export const qwen2 = (config: ModelConfig): DecoderSpec =>
  base(config, { attention: { bias: "qkv" } });
