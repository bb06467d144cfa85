import type { ModelConfig } from "#core/formats";
import type { DecoderSpec } from "#device/nn";
import { base } from "./base.ts";

/** Qwen3 dense: RMS norm on each head's query and key (mlx-lm models/qwen3.py). */
export const qwen3 = (config: ModelConfig): DecoderSpec =>
  base(config, {
    attention: { bias: config.attentionBias ? "all" : "none", qkNorm: true },
  });
