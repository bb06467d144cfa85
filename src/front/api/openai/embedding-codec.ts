import { invalidRequest, type TokenOutput } from "#core/contract";
import type { EmbedRequest, EmbedResult } from "#front/service";
import { EMBEDDING_FIELDS, type EmbeddingBody } from "./encode-schemas.ts";

export type EncodingFormat = "float" | "base64";

export interface DecodedEmbedding {
  readonly request: EmbedRequest;
  readonly format: EncodingFormat;
  /** Fields that changed nothing. */
  readonly ignored: readonly string[];
}

/** @throws {OmlxError} invalid_request */
export function decodeEmbedding(body: EmbeddingBody): DecodedEmbedding {
  const { inputs, param } = inputsOf(body);
  return {
    request: {
      model: body.model || null,
      inputs,
      param,
      promptName: body.prompt_name ?? null,
      inputType: inputTypeOf(body.input_type),
      truncateAt: truncateAtOf(body),
      dimensions: body.dimensions ?? null,
      tokenOutputs: tokenOutputsOf(body),
    },
    format: body.encoding_format ?? "float",
    ignored: [
      ...Object.keys(body).filter((name) => !EMBEDDING_FIELDS.has(name)),
      ...(body.items ?? []).flatMap((item, i) =>
        Object.keys(item)
          .filter((name) => name !== "text" && name !== "image")
          .map((name) => `items[${i}].${name}`),
      ),
    ],
  };
}

function inputsOf({ input, items }: EmbeddingBody): Pick<EmbedRequest, "inputs" | "param"> {
  const hasInput = input !== null && input !== undefined;
  const hasItems = items !== null && items !== undefined;
  if (hasInput && hasItems) {
    throw invalidRequest('Give either "input" or "items", not both', "items");
  }
  if (hasItems) {
    const inputs = items.map(({ text, image }, i) => {
      if (image !== null && image !== undefined) {
        throw invalidRequest("Cannot embed an image: the model reads text only", `items[${i}]`);
      }
      if (text) return text;
      throw invalidRequest('An item needs a "text"', `items[${i}]`);
    });
    return { inputs, param: "items" };
  }
  if (!hasInput) throw invalidRequest('Invalid value for "input": it is missing', "input");
  if (typeof input === "string") return { inputs: [input], param: "input" };
  const isOneText = typeof input[0] === "number";
  return {
    inputs: isOneText ? [input as number[]] : (input as (string | number[])[]),
    param: "input",
  };
}

function tokenOutputsOf(body: EmbeddingBody): TokenOutput[] {
  return [
    ...(body.return_sparse ? (["lexical"] as const) : []),
    ...(body.return_colbert_vecs ? (["colbert"] as const) : []),
  ];
}

/** Cohere's, Voyage's, Jina's and NVIDIA's words for it. */
const INPUT_TYPES: Readonly<Record<string, string>> = {
  search_query: "query",
  "retrieval.query": "query",
  search_document: "document",
  passage: "document",
  "retrieval.passage": "document",
};

const inputTypeOf = (name: string | null | undefined): string | null =>
  name ? (INPUT_TYPES[name] ?? name) : null;

/** 0: at the model's window; null: a text that is too long is an error. */
function truncateAtOf(body: EmbeddingBody): number | null {
  const limit = body.truncate_prompt_tokens ?? body.max_length;
  if (limit === -1) return 0;
  if (limit === 0) throw invalidRequest("Cannot cut texts to nothing", "truncate_prompt_tokens");
  if (limit !== null && limit !== undefined) return body.truncation === false ? null : limit;
  const asked = body.truncate ?? body.truncation ?? false;
  return asked === true || asked === "END" || asked === "end" ? 0 : null;
}

/** Work on numbers between two looks at what else waits. */
const SLICE_MS = 8;

/** OpenAI's list of embeddings as JSON text; written bit by bit, since a list may have millions of numbers. */
export async function encodeEmbeddings(
  { model, vectors, lexicalWeights, tokenVectors, promptTokens }: EmbedResult,
  format: EncodingFormat,
  warnings: readonly string[],
): Promise<string> {
  const usage = { prompt_tokens: promptTokens, total_tokens: promptTokens };
  const rest = { model, usage, ...(warnings.length > 0 ? { warnings } : {}) };
  const parts: string[] = ['{"object":"list","data":['];
  let since = performance.now();
  const giveWay = async () => {
    if (performance.now() - since <= SLICE_MS) return;
    await new Promise((resolve) => setImmediate(resolve));
    since = performance.now();
  };
  for (const [index, vector] of vectors.entries()) {
    const embedding = writeVector(vector, format);
    parts.push(
      `${index > 0 ? "," : ""}{"object":"embedding","index":${index},"embedding":${embedding}`,
    );
    const weights = lexicalWeights?.[index];
    if (weights) {
      parts.push(`,"lexical_weights":${JSON.stringify(Object.fromEntries(weights))}`);
    }
    const rows = tokenVectors?.[index];
    if (rows) {
      parts.push(',"colbert_vecs":[');
      for (const [i, row] of rows.entries()) {
        parts.push(i > 0 ? "," : "", writeVector(row, format));
        await giveWay();
      }
      parts.push("]");
    }
    parts.push("}");
    await giveWay();
  }
  parts.push("],", JSON.stringify(rest).slice(1));
  return parts.join("");
}

const writeVector = (vector: Float32Array, format: EncodingFormat): string =>
  JSON.stringify(format === "base64" ? base64Of(vector) : Array.from(vector));

/** Of little-endian float32; every machine that we run on is little-endian. */
function base64Of(vector: Float32Array): string {
  return Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength).toString("base64");
}
