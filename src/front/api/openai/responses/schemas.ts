import { z } from "zod";
import { anything, integer, within } from "../../fields.ts";
import { mcpField } from "../../mcp/wishes.ts";

const contentPart = z.looseObject({ type: z.string() });
export type ContentPart = z.output<typeof contentPart>;

const content = z.union([z.string(), z.array(contentPart)]);

/** One item of the input. Kinds that are not known pass, as long as they are objects. */
const inputItem = z.looseObject({
  type: z.string().nullish(),
  id: z.string().nullish(),
  role: z.string().nullish(),
  content: content.nullish(),
  call_id: z.string().nullish(),
  name: z.string().nullish(),
  namespace: z.string().nullish(),
});
export type InputItem = z.output<typeof inputItem>;

const tool = z.looseObject({
  type: z.string(),
  name: z.string().nullish(),
  description: z.string().nullish(),
  strict: z.boolean().nullish(),
});
export type WireTool = z.output<typeof tool>;

const toolChoice = z.union([z.string(), z.looseObject({ type: z.string() })]);
export type WireToolChoice = z.output<typeof toolChoice>;

const format = z.looseObject({
  type: z.enum(["text", "json_object", "json_schema"]),
  schema: anything,
  strict: z.boolean().nullish(),
});

/** Fields that change nothing about the answer: taken without a word. */
const accepted = {
  background: z.boolean().nullish(),
  client_metadata: anything,
  include: z.array(z.string()).nullish(),
  metadata: z.record(z.string(), z.unknown()).nullish(),
  moderation: anything,
  prompt_cache_key: anything,
  prompt_cache_options: anything,
  prompt_cache_retention: anything,
  safety_identifier: anything,
  stream_options: anything,
  truncation: z.enum(["auto", "disabled"]).nullish(),
  user: anything,
};

/** POST /v1/responses, as far as it is known here; other fields pass and are named in a warning. */
export const responsesBody = z.looseObject({
  model: z.string().nullish(),
  input: z.union([z.string(), z.array(inputItem)]).nullish(),
  instructions: z.string().nullish(),
  previous_response_id: z.string().nullish(),
  store: z.boolean().nullish(),
  stream: z.boolean().nullish(),
  max_output_tokens: integer(1).nullish(),
  tools: z.array(tool).nullish(),
  tool_choice: toolChoice.nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  max_tool_calls: integer(1).nullish(),
  text: z.looseObject({ format: format.nullish(), verbosity: z.string().nullish() }).nullish(),
  reasoning: z
    .looseObject({ effort: z.string().nullish(), summary: z.string().nullish() })
    .nullish(),
  temperature: within(0, 2).nullish(),
  top_p: within(0, 1).nullish(),
  top_k: integer(-1).nullish(),
  min_p: within(0, 1).nullish(),
  repetition_penalty: z.number().gt(0).max(10).nullish(),
  presence_penalty: within(-2, 2).nullish(),
  frequency_penalty: within(-2, 2).nullish(),
  seed: z.number().refine(Number.isInteger, "expected an integer").nullish(),
  top_logprobs: integer(0).max(20).nullish(),
  service_tier: z.string().nullish(),
  chat_template_kwargs: z.record(z.string(), z.unknown()).nullish(),
  mcp: mcpField,
  // would change the answer and are not served: refused unless null
  conversation: anything,
  prompt: anything,
  ...accepted,
});
export type ResponsesBody = z.output<typeof responsesBody>;

export const RESPONSES_FIELDS: ReadonlySet<string> = new Set(Object.keys(responsesBody.shape));
