/** What the OpenAI routes answer, for the OpenAPI document; the tests hold real answers to these schemas. */
import { z } from "zod";

export const errorBody = z.object({
  error: z.object({
    message: z.string(),
    type: z.string(),
    param: z.string().nullable(),
    code: z.string().nullable(),
  }),
});

const count = z.int().min(0);

export const usage = z.object({
  prompt_tokens: count,
  completion_tokens: count,
  total_tokens: count,
  prompt_tokens_details: z.looseObject({ cached_tokens: count }),
  completion_tokens_details: z.looseObject({ reasoning_tokens: count }),
});

const finishReason = z.enum(["stop", "length", "tool_calls", "function_call"]);
const tokenLogprob = z.object({
  token: z.string(),
  logprob: z.number(),
  bytes: z.array(z.int()).nullable(),
});
const logprobs = z
  .looseObject({
    content: z.array(tokenLogprob.extend({ top_logprobs: z.array(tokenLogprob) })).nullable(),
  })
  .nullable();
const functionCall = z.object({ name: z.string(), arguments: z.string() });

const head = {
  id: z.string(),
  created: count,
  model: z.string(),
  system_fingerprint: z.string(),
};

export const chatCompletion = z.object({
  ...head,
  object: z.literal("chat.completion"),
  choices: z.array(
    z.object({
      index: count,
      message: z.looseObject({
        role: z.literal("assistant"),
        content: z.string().nullable(),
        refusal: z.string().nullable(),
        reasoning_content: z.string().optional(),
        tool_calls: z
          .array(z.object({ id: z.string(), type: z.literal("function"), function: functionCall }))
          .optional(),
        function_call: functionCall.optional(),
      }),
      logprobs,
      finish_reason: finishReason,
    }),
  ),
  usage,
});

export const chatCompletionChunk = z.object({
  ...head,
  object: z.literal("chat.completion.chunk"),
  choices: z.array(
    z.object({
      index: count,
      delta: z.looseObject({
        role: z.literal("assistant").optional(),
        content: z.string().nullable().optional(),
        reasoning_content: z.string().optional(),
        tool_calls: z
          .array(
            z.looseObject({
              index: count,
              id: z.string().optional(),
              function: functionCall.partial().optional(),
            }),
          )
          .optional(),
        function_call: functionCall.partial().optional(),
      }),
      logprobs,
      finish_reason: finishReason.nullable(),
    }),
  ),
  usage: usage.nullable().optional(),
});

const completionLogprobs = z.object({
  tokens: z.array(z.string()),
  token_logprobs: z.array(z.number().nullable()),
  top_logprobs: z.array(z.record(z.string(), z.number()).nullable()),
  text_offset: z.array(count).describe("In characters, from the beginning of the choice's text"),
});

/** Whole, or one event of a stream. */
export const textCompletion = z.object({
  ...head,
  object: z.literal("text_completion"),
  choices: z.array(
    z.object({
      index: count,
      text: z.string(),
      logprobs: completionLogprobs.nullable(),
      finish_reason: finishReason.nullable(),
    }),
  ),
  usage: usage.nullable().optional(),
});

export const model = z.object({
  id: z.string(),
  object: z.literal("model"),
  created: count.describe("Seconds since 1970 of the model's newest file"),
  owned_by: z.string(),
  kind: z.enum(["llm", "vlm", "embedding", "reranker"]).describe("What it is for"),
  max_model_len: count.nullable().describe("Tokens of prompt and answer together"),
  problem: z.string().optional().describe("Why it cannot be served"),
});

export const modelList = z.object({ object: z.literal("list"), data: z.array(model) });
