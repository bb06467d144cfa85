/** Bodies and answers of the routes that embed and rerank. */
import { z } from "zod";
import { anything, integer } from "../fields.ts";

/** As OpenAI; more would make one answer of a hundred megabytes. */
const MAX_INPUTS = 2048;
const MAX_DOCUMENTS = 10_000;

const text = z.string().min(1, "must not be empty");
const tokens = z.array(integer(0)).min(1, "must not be empty");
const many = <T extends z.ZodType>(item: T) =>
  z.array(item).min(1, "must not be empty").max(MAX_INPUTS, `takes at most ${MAX_INPUTS} texts`);

/** POST /v1/embeddings, as far as it is known here. */
export const embeddingBody = z.looseObject({
  model: z.string().nullish(),
  input: z.union([text, tokens, many(text), many(tokens)]).nullish(),
  items: many(z.looseObject({ text: text.nullish(), image: anything })).nullish(),
  encoding_format: z.enum(["float", "base64"]).nullish(),
  dimensions: integer(1).nullish(),
  truncate: z.union([z.boolean(), z.enum(["NONE", "END", "none", "end"])]).nullish(),
  truncation: z.boolean().nullish(),
  truncate_prompt_tokens: integer(-1).nullish(),
  max_length: integer(1).nullish(),
  prompt_name: z.string().nullish(),
  input_type: z.string().nullish(),
  return_sparse: z.boolean().nullish(),
  return_colbert_vecs: z.boolean().nullish(),
  user: anything,
});
export type EmbeddingBody = z.output<typeof embeddingBody>;
export const EMBEDDING_FIELDS: ReadonlySet<string> = new Set(Object.keys(embeddingBody.shape));

const count = z.int().min(0);
const vector = z.union([
  z.array(z.number()),
  z.string().describe("base64 of little-endian float32"),
]);
const warnings = z.array(z.string()).optional();

export const embeddingAnswer = z.object({
  object: z.literal("list"),
  data: z.array(
    z.object({
      object: z.literal("embedding"),
      index: count,
      embedding: vector,
      lexical_weights: z.record(z.string(), z.number()).optional(),
      colbert_vecs: z.array(vector).optional(),
    }),
  ),
  model: z.string(),
  usage: z.object({ prompt_tokens: count, total_tokens: count }),
  warnings,
});

const document = z.union([z.string(), z.looseObject({ text: z.string(), image: anything })]);

/** POST /v1/rerank and /v2/rerank, as far as it is known here. */
export const rerankBody = z.looseObject({
  model: z.string().nullish(),
  query: z.union([text, z.looseObject({ text, image: anything })]),
  documents: z
    .array(document)
    .min(1, "must not be empty")
    .max(MAX_DOCUMENTS, `takes at most ${MAX_DOCUMENTS} documents`),
  top_n: integer(1).nullish(),
  return_documents: z.boolean().nullish(),
  truncate: z.boolean().nullish(),
  truncation: z.boolean().nullish(),
  max_tokens_per_doc: integer(1).nullish(),
  instruction: z.string().nullish(),
  max_chunks_per_doc: anything,
  rank_fields: anything,
  priority: anything,
  user: anything,
});
export type RerankBody = z.output<typeof rerankBody>;
export const RERANK_FIELDS: ReadonlySet<string> = new Set(Object.keys(rerankBody.shape));

export const rerankAnswer = z.object({
  id: z.string(),
  model: z.string(),
  results: z.array(
    z.object({
      index: count,
      relevance_score: z.number().min(0).max(1),
      document: z.looseObject({ text: z.string() }).optional(),
    }),
  ),
  usage: z.object({ prompt_tokens: count, total_tokens: count }),
  meta: z.object({
    api_version: z.object({ version: z.string() }),
    billed_units: z.object({ search_units: count }),
    tokens: z.object({ input_tokens: count, output_tokens: count }),
    warnings,
  }),
});

/** POST /v1/score, as vLLM has it. */
export const scoreBody = z.looseObject({
  model: z.string().nullish(),
  text_1: z.union([text, z.array(text).min(1).max(1, "takes one text")]),
  text_2: z.union([text, z.array(text).min(1).max(MAX_DOCUMENTS)]),
  truncate_prompt_tokens: integer(-1).nullish(),
  user: anything,
});

export const scoreAnswer = z.object({
  id: z.string(),
  object: z.literal("list"),
  created: count,
  model: z.string(),
  data: z.array(
    z.object({ index: count, object: z.literal("score"), score: z.number().min(0).max(1) }),
  ),
  usage: z.object({ prompt_tokens: count, total_tokens: count }),
  warnings,
});
