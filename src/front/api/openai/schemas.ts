import { z } from "zod";
import { anything, integer, within } from "../fields.ts";
import { mcpField } from "../mcp/wishes.ts";

const MAX_STOPS = 64;
const MAX_CHOICES = 128;
const MAX_PROMPTS = 2048;
const MAX_LOGPROBS = 20;
const MAX_STOP_CHARS = 4096;
const stopString = z.string().max(MAX_STOP_CHARS);

const toolCall = z.looseObject({
  id: z.string().nullish(),
  type: z.string().nullish(),
  function: z.looseObject({ name: z.string(), arguments: anything }).nullish(),
  custom: z.looseObject({ name: z.string(), input: anything }).nullish(),
});

const part = z.looseObject({ type: z.string() });
export type WirePart = z.output<typeof part>;

const message = z.looseObject({
  role: z.enum(["system", "developer", "user", "assistant", "tool", "function"]),
  content: z.union([z.string(), z.array(part)]).nullish(),
  name: z.string().nullish(),
  reasoning_content: z.string().nullish(),
  reasoning: z.string().nullish(),
  refusal: z.string().nullish(),
  tool_calls: z.array(toolCall).nullish(),
  tool_call_id: z.string().nullish(),
  function_call: z.looseObject({ name: z.string(), arguments: anything }).nullish(),
  partial: z.boolean().nullish(),
});
export type WireMessage = z.output<typeof message>;

/** Fields of every route that generates text. */
export const answerFields = {
  n: integer(1).max(MAX_CHOICES).nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
  max_tokens: integer(1).nullish(),
  min_tokens: integer(0).nullish(),
  ignore_eos: z.boolean().nullish(),
  stop: z.union([stopString, z.array(stopString).max(MAX_STOPS)]).nullish(),
  temperature: within(0, 2).nullish(),
  top_p: within(0, 1).nullish(),
  top_k: integer(-1).nullish(),
  min_p: within(0, 1).nullish(),
  xtc_probability: within(0, 1).nullish(),
  xtc_threshold: within(0, 0.5).nullish(),
  repetition_penalty: z.number().gt(0).max(10).nullish(),
  repetition_context_size: integer(1).nullish(),
  presence_penalty: within(-2, 2).nullish(),
  frequency_penalty: within(-2, 2).nullish(),
  logit_bias: z
    .record(z.string().regex(/^\d{1,9}$/, "expected a token id"), within(-100, 100))
    .nullish(),
  seed: z.number().refine(Number.isInteger, "expected an integer").nullish(),
  service_tier: z.string().nullish(),
  user: anything, // changes nothing
};

const functionTool = z.looseObject({
  name: z.string(),
  description: z.string().nullish(),
  parameters: z.union([z.record(z.string(), z.unknown()), z.boolean()]).nullish(),
  strict: z.boolean().nullish(),
});

const tool = z.looseObject({ type: z.string().nullish(), function: functionTool.nullish() });
export type WireTool = z.output<typeof tool>;

const toolReference = z.looseObject({
  type: z.string().nullish(),
  function: z.looseObject({ name: z.string() }).nullish(),
});

/** What may be called, and what the text must be. */
const shaping = {
  tools: z.array(tool).nullish(),
  tool_choice: z
    .union([
      z.string(),
      toolReference.extend({
        name: z.string().nullish(),
        allowed_tools: z
          .looseObject({ mode: z.string().nullish(), tools: z.array(toolReference).nullish() })
          .nullish(),
      }),
    ])
    .nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  functions: z.array(functionTool).nullish(),
  function_call: z.union([z.string(), z.looseObject({ name: z.string() })]).nullish(),
  tool_parser: z.enum(["auto", "none"]).nullish(),
  response_format: z
    .looseObject({
      type: z.string(),
      json_schema: z.looseObject({ schema: anything, strict: z.boolean().nullish() }).nullish(),
      schema: anything,
      strict: z.boolean().nullish(),
    })
    .nullish(),
  structured_outputs: z
    .looseObject({
      json: anything,
      json_schema: anything,
      json_object: z.boolean().nullish(),
      regex: z.string().nullish(),
      choice: z.array(z.string()).nullish(),
      grammar: z.string().nullish(),
    })
    .nullish(),
  guided_json: anything,
  guided_regex: z.string().nullish(),
  guided_choice: z.array(z.string()).nullish(),
  guided_grammar: z.string().nullish(),
};

/** How much the model should think. */
const thinking = {
  reasoning_effort: z.union([z.string(), z.number()]).nullish(),
  thinking_budget: integer(0).nullish(),
  enable_thinking: z.boolean().nullish(),
};

/** Fields that change nothing about the answer: taken without a word. */
const accepted = {
  metadata: anything,
  store: anything,
  safety_identifier: anything,
  prompt_cache_key: anything,
  prompt_cache_retention: anything,
  prompt_cache_options: anything,
  prediction: anything,
};

/** Fields that would change the answer and are not served: refused unless neutral (see chat-codec.ts). */
const unserved = {
  modalities: anything,
  audio: anything,
  web_search_options: anything,
  moderation: anything,
};

/** POST /v1/chat/completions, as far as it is known here; other fields pass and are named in a warning. */
export const chatBody = z.looseObject({
  model: z.string().nullish(),
  messages: z.array(message).min(1),
  max_completion_tokens: integer(1).nullish(),
  logprobs: z.boolean().nullish(),
  top_logprobs: integer(0).max(MAX_LOGPROBS).nullish(),
  ...answerFields,
  mcp: mcpField,
  ...thinking,
  chat_template_kwargs: z.record(z.string(), z.unknown()).nullish(),
  ...shaping,
  ...accepted,
  ...unserved,
});
export type ChatBody = z.output<typeof chatBody>;

export const CHAT_FIELDS: ReadonlySet<string> = new Set(Object.keys(chatBody.shape));
export const MESSAGE_FIELDS: ReadonlySet<string> = new Set(Object.keys(message.shape));

const tokenIds = z.array(integer(0)).min(1);

/** POST /v1/completions. */
export const completionBody = z.looseObject({
  model: z.string().nullish(),
  prompt: z.union([
    z.string(),
    tokenIds,
    z.array(z.string()).min(1).max(MAX_PROMPTS),
    z.array(tokenIds).min(1).max(MAX_PROMPTS),
  ]),
  echo: z.boolean().nullish(),
  logprobs: integer(0).max(MAX_LOGPROBS).nullish(),
  best_of: integer(1).nullish(),
  suffix: z.string().nullish(),
  ...answerFields,
  max_tokens: integer(0).nullish(),
});
export type CompletionBody = z.output<typeof completionBody>;

export const COMPLETION_FIELDS: ReadonlySet<string> = new Set(Object.keys(completionBody.shape));
