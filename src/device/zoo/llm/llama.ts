import type { ModelConfig } from "#core/formats";
import type { DecoderSpec } from "#device/nn";
import { base } from "./base.ts";

/** Llama 1–3, SmolLM2, and Mistral as long as no window is shorter than the text (mlx-lm models/llama.py). */
export const llama = (config: ModelConfig): DecoderSpec =>
  base(config, { attention: { bias: config.attentionBias ? "all" : "none" } });
