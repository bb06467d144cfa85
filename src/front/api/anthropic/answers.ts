/** What the Anthropic routes answer: the types that are encoded to, and the schemas of the OpenAPI document. */
import { z } from "zod";

export const errorBody = z.strictObject({
  type: z.literal("error"),
  error: z.strictObject({
    type: z.string(),
    message: z.string(),
    details: z.looseObject({ error_code: z.string() }).optional(),
  }),
  request_id: z.string(),
});

const count = z.int().min(0);

export const modelInfo = z.strictObject({
  type: z.literal("model"),
  id: z.string(),
  display_name: z.string(),
  created_at: z.string().describe("When the model's newest file was written"),
  max_input_tokens: count.nullable(),
  max_tokens: count.nullable(),
  capabilities: z.null(),
  lifecycle: z.literal("active"),
  line: z.null(),
  deprecated_at: z.null(),
  retires_at: z.null(),
});

export const modelPage = z.strictObject({
  data: z.array(modelInfo),
  has_more: z.boolean(),
  first_id: z.string().nullable(),
  last_id: z.string().nullable(),
});

export const tokenCount = z.strictObject({ input_tokens: count });

/** The three input counts add up to the prompt. */
const counts = {
  input_tokens: count,
  cache_creation_input_tokens: count,
  cache_read_input_tokens: count,
  output_tokens: count,
  output_tokens_details: z.strictObject({ thinking_tokens: count }),
  server_tool_use: z.null(),
};
const deltaUsage = z.strictObject(counts);
export type DeltaUsage = z.output<typeof deltaUsage>;

const usage = z.strictObject({
  ...counts,
  cache_creation: z.strictObject({
    ephemeral_5m_input_tokens: count,
    ephemeral_1h_input_tokens: count,
  }),
  inference_geo: z.null(),
  service_tier: z.literal("standard"),
  speed: z.null(),
});

const block = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("text"), text: z.string(), citations: z.null() }),
  z.strictObject({ type: z.literal("thinking"), thinking: z.string(), signature: z.string() }),
  z.strictObject({
    type: z.literal("tool_use"),
    id: z.string(),
    name: z.string(),
    input: z.record(z.string(), z.unknown()),
    caller: z.strictObject({ type: z.literal("direct") }),
  }),
  // calls that this server ran itself
  z.strictObject({
    type: z.literal("mcp_tool_use"),
    id: z.string(),
    name: z.string(),
    server_name: z.string(),
    input: z.record(z.string(), z.unknown()),
  }),
  z.strictObject({
    type: z.literal("mcp_tool_result"),
    tool_use_id: z.string(),
    is_error: z.boolean(),
    content: z.array(
      z.strictObject({ type: z.literal("text"), text: z.string(), citations: z.null() }),
    ),
  }),
]);
export type Block = z.output<typeof block>;

const delta = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("text_delta"), text: z.string() }),
  z.strictObject({ type: z.literal("thinking_delta"), thinking: z.string() }),
  z.strictObject({ type: z.literal("signature_delta"), signature: z.string() }),
  z.strictObject({ type: z.literal("input_json_delta"), partial_json: z.string() }),
]);
export type Delta = z.output<typeof delta>;

const stopReason = z.enum(["end_turn", "max_tokens", "stop_sequence", "tool_use"]);
export type StopReason = z.output<typeof stopReason>;

const end = {
  stop_reason: stopReason.nullable(),
  stop_sequence: z.string().nullable(),
  stop_details: z.null(),
  container: z.null(),
};
const ending = z.strictObject(end);
export type Ending = z.output<typeof ending>;

export const message = z.strictObject({
  id: z.string(),
  type: z.literal("message"),
  role: z.literal("assistant"),
  model: z.string(),
  content: z.array(block),
  ...end,
  diagnostics: z.null(),
  usage,
});
export type Message = z.output<typeof message>;

/** One server-sent event of a streamed answer; errors come as `errorBody`. */
export const messageEvent = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("message_start"), message }),
  z.strictObject({ type: z.literal("ping") }),
  z.strictObject({
    type: z.literal("content_block_start"),
    index: count,
    content_block: block,
  }),
  z.strictObject({ type: z.literal("content_block_delta"), index: count, delta }),
  z.strictObject({ type: z.literal("content_block_stop"), index: count }),
  z.strictObject({ type: z.literal("message_delta"), delta: ending, usage: deltaUsage }),
  z.strictObject({ type: z.literal("message_stop") }),
]);
export type MessageEvent = z.output<typeof messageEvent>;
