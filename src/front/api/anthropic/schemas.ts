import { z } from "zod";
import { anything, integer, within } from "../fields.ts";
import { mcpField } from "../mcp/wishes.ts";

const MAX_STOPS = 64;
const MAX_STOP_CHARS = 4096;

/** A content block of any kind, also of kinds that do not exist yet. */
const block = z.looseObject({ type: z.string() });
export type WireBlock = z.output<typeof block>;

const content = z.union([z.string(), z.array(block)]).nullish();

const message = z.looseObject({ role: z.string(), content });
export type WireMessage = z.output<typeof message>;

/** A tool of the client's own, or one that Anthropic's servers or clients bring with them. */
export const toolSchema = z.looseObject({
  type: z.string().nullish(),
  name: z.string().nullish(),
  description: z.string().nullish(),
  input_schema: z.union([z.record(z.string(), z.unknown()), z.boolean()]).nullish(),
  strict: z.boolean().nullish(),
  defer_loading: z.boolean().nullish(),
});
export type WireTool = z.output<typeof toolSchema>;

const toolChoice = z.looseObject({
  type: z.enum(["auto", "any", "tool", "none"]),
  name: z.string().nullish(),
  disable_parallel_tool_use: z.boolean().nullish(),
});

/** What makes the prompt: the same for an answer and for counting its tokens. */
const prompt = {
  model: z.string().nullish(),
  messages: z.array(message).min(1),
  system: content,
  tools: z.array(toolSchema).nullish(),
  tool_choice: toolChoice.nullish(),
  thinking: z
    .looseObject({
      type: z.string(),
      budget_tokens: integer(1).nullish(),
      display: z.string().nullish(),
    })
    .nullish(),
  output_config: z
    .looseObject({
      effort: z.union([z.string(), z.number()]).nullish(),
      format: z.looseObject({ type: z.string(), schema: anything }).nullish(),
    })
    .nullish(),
  /** The place of output_config.format before it had one. */
  output_format: z.looseObject({ type: z.string(), schema: anything }).nullish(),
  /** Nothing is edited here; edits that keep everything ask for nothing. */
  context_management: z
    .looseObject({ edits: z.array(z.looseObject({ keep: anything })).nullish() })
    .nullish(),
  /** Conversations that the server would hold; refused, see threads.ts. */
  thread: z.looseObject({ type: z.string() }).nullish(),
  chat_template_kwargs: z.record(z.string(), z.unknown()).nullish(),
  cache_control: anything,
  mcp: mcpField,
};

/** Fields that change nothing about the answer: taken without a word. */
const accepted = {
  metadata: anything,
  container: anything,
  inference_geo: anything,
  speed: anything,
  diagnostics: anything,
  user_profile_id: anything,
  workspace_id: anything,
  betas: anything,
};

/** POST /v1/messages/count_tokens; other fields pass and are named in a warning. */
export const countBody = z.looseObject({ ...prompt, ...accepted });
export type CountBody = z.output<typeof countBody>;

/** POST /v1/messages, as far as it is known here; other fields pass and are named in a warning. */
export const messagesBody = z.looseObject({
  ...prompt,
  max_tokens: integer(1),
  stream: z.boolean().nullish(),
  stop_sequences: z.array(z.string().max(MAX_STOP_CHARS)).max(MAX_STOPS).nullish(),
  temperature: within(0, 2).nullish(),
  top_p: within(0, 1).nullish(),
  top_k: integer(-1).nullish(),
  service_tier: z.string().nullish(),
  ...accepted,
});
export type MessagesBody = z.output<typeof messagesBody>;

export const MESSAGES_FIELDS: ReadonlySet<string> = new Set(Object.keys(messagesBody.shape));
