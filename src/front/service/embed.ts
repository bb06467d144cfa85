import { invalidRequest, OmlxError, type TokenOutput } from "#core/contract";
import type { Lease, Pool } from "#front/pool";
import { encodeRows } from "./encode.ts";

export interface EmbedRequest {
  /** null: the first embedding model. */
  readonly model: string | null;
  /** Texts, or token ids that are taken as they are. Not empty. */
  readonly inputs: readonly (string | readonly number[])[];
  /** The request field that holds them. */
  readonly param: string;
  /** Name of the model's prompt to put before each text; null: what the model does by itself. */
  readonly promptName: string | null;
  /** What the texts are, "query" or "document": chooses the prompt if the model has one for it. */
  readonly inputType: string | null;
  /** Tokens after which texts are cut; 0: at the model's window; null: a text that is too long is an error. */
  readonly truncateAt: number | null;
  /** Numbers that are kept of each vector; null: all. */
  readonly dimensions: number | null;
  /** What to give beside the vectors; the model must have a head for it. */
  readonly tokenOutputs: readonly TokenOutput[];
}

/** How much a text is about each of its tokens, by token id. */
export type LexicalWeights = ReadonlyMap<number, number>;

export interface EmbedResult {
  readonly model: string;
  readonly vectors: readonly Float32Array[];
  /** For each text; null: not asked for. */
  readonly lexicalWeights: readonly LexicalWeights[] | null;
  /** For each text a vector of every token but the first; null: not asked for. */
  readonly tokenVectors: readonly (readonly Float32Array[])[] | null;
  readonly promptTokens: number;
}

/**
 * Turns texts into vectors.
 *
 * @param onRead called with the texts that were cut, before the model sees them
 * @throws {OmlxError} model_not_found, invalid_request, context_length, bad_output, overloaded, model_load, engine_dead, cancelled …
 */
export async function embed(
  pool: Pool,
  request: EmbedRequest,
  signal: AbortSignal,
  onRead?: (cut: readonly number[]) => void,
): Promise<EmbedResult> {
  using lease = await pool.lease(request.model ?? undefined, signal, "embed");
  const width = lease.engine.info.rowWidth ?? 0;
  const { dimensions, param } = request;
  if (dimensions !== null && dimensions > width) {
    throw invalidRequest(
      `Cannot give ${dimensions} dimensions: the vectors of "${lease.entry.id}" have ${width}`,
      "dimensions",
    );
  }
  const { tokenOutputs } = request;
  for (const name of tokenOutputs) checkHead(lease, name);
  const { cut, ...texts } = await tokenize(lease, request);
  onRead?.(cut);
  checkSize(lease, request, texts.ids.length);
  const { rows, tokens } = await encodeRows(lease, { ...texts, tokenOutputs }, param, signal);
  const { ids, ends } = texts;
  const { wordlessIds } = lease.text;
  const weights = tokens.get("lexical");
  const tokenRows = tokens.get("colbert");
  const isCut = dimensions !== null && dimensions < width;
  return {
    model: lease.entry.id,
    vectors: isCut ? rows.map((row) => shorten(row, dimensions)) : rows,
    lexicalWeights:
      weights?.map((w, i) =>
        lexicalWeights(ids.subarray(ends[i - 1] ?? 0, ends[i]), w, wordlessIds),
      ) ?? null,
    tokenVectors: tokenRows?.map((part) => vectorsOf(lease, part)) ?? null,
    promptTokens: ids.length,
  };
}

const REQUEST_FIELDS: Readonly<Record<TokenOutput, string>> = {
  lexical: "return_sparse",
  colbert: "return_colbert_vecs",
};
const HEADS: Readonly<Record<TokenOutput, string>> = {
  lexical: "sparse_linear",
  colbert: "colbert_linear",
};

function checkHead({ engine, entry }: Lease, name: TokenOutput): void {
  if (engine.info.tokenWidths?.[name] !== undefined) return;
  throw invalidRequest(
    `Model "${entry.id}" gives one vector for each text only: its folder has no ${HEADS[name]}`,
    REQUEST_FIELDS[name],
  );
}

/** Numbers of token vectors in one answer: those of a text that fills BGE-M3's window, which are 170 MB as JSON. */
const MAX_TOKEN_NUMBERS = 1 << 23;

function checkSize({ engine }: Lease, { tokenOutputs }: EmbedRequest, numTokens: number): void {
  if (!tokenOutputs.includes("colbert")) return;
  const maxTokens = Math.floor(MAX_TOKEN_NUMBERS / (engine.info.tokenWidths?.colbert ?? 1));
  if (numTokens <= maxTokens) return;
  throw invalidRequest(
    `Cannot give a vector for each of ${numTokens} tokens: ${maxTokens} is the most for one request`,
    REQUEST_FIELDS.colbert,
  );
}

/** The largest weight of each token of a text; those that frame it or mean nothing have none, as in FlagEmbedding. */
function lexicalWeights(
  ids: Int32Array,
  weights: Float32Array,
  wordless: ReadonlySet<number>,
): LexicalWeights {
  const largest = new Map<number, number>();
  weights.forEach((weight, i) => {
    const id = ids[i] as number;
    if (weight > (largest.get(id) ?? 0) && !wordless.has(id)) largest.set(id, weight);
  });
  return largest;
}

/** Without the first token, which stands for the whole text. */
function vectorsOf({ engine }: Lease, rows: Float32Array): Float32Array[] {
  const width = engine.info.tokenWidths?.colbert ?? 1;
  return Array.from({ length: rows.length / width - 1 }, (_, i) =>
    rows.subarray((i + 1) * width, (i + 2) * width),
  );
}

/** The first numbers of a vector, with length 1 again (arXiv:2205.13147). */
function shorten(row: Float32Array, dimensions: number): Float32Array {
  const kept = row.slice(0, dimensions);
  const length = Math.max(Math.hypot(...kept), 1e-12);
  return kept.map((x) => x / length);
}

interface Tokenized {
  readonly ids: Int32Array;
  readonly ends: Int32Array;
  readonly seconds: null;
  readonly cut: readonly number[];
}

/** Texts by the model's tokenizer, token ids as they are, in the order given. */
async function tokenize(lease: Lease, request: EmbedRequest): Promise<Tokenized> {
  const { inputs, param, truncateAt } = request;
  const { contextWindow, vocabSize } = lease.engine.info;
  const maxTokens = truncateAt ? Math.min(truncateAt, contextWindow) : contextWindow;
  const mayCut = truncateAt !== null;
  const texts = inputs.filter((input) => typeof input === "string");
  const encoded = await lease.text.encodeTexts({
    kind: "texts",
    texts,
    prompt: promptOf(lease, request),
    maxTokens,
    mayCut,
    param,
  });
  if (texts.length === inputs.length) {
    return { ids: encoded.ids, ends: encoded.ends, seconds: null, cut: [...encoded.cut] };
  }
  const cut: number[] = [];
  const all: Int32Array[] = [];
  let nextText = 0;
  inputs.forEach((input, i) => {
    if (typeof input === "string") {
      if (encoded.cut.includes(nextText)) cut.push(i);
      all.push(encoded.ids.subarray(encoded.ends[nextText - 1] ?? 0, encoded.ends[nextText]));
      nextText++;
      return;
    }
    const place = `${param}[${i}]`;
    const bad = input.findIndex((id) => id < 0 || id >= vocabSize);
    if (bad >= 0) {
      throw invalidRequest(
        `Cannot read token ${input[bad]} in ${place}: the model has ${vocabSize} tokens`,
        `${place}[${bad}]`,
      );
    }
    if (input.length > maxTokens && !mayCut) throw tooLong(place, input.length, maxTokens);
    if (input.length > maxTokens) cut.push(i);
    all.push(Int32Array.from(input.slice(0, maxTokens)));
  });
  const ends = new Int32Array(all.length);
  const ids = new Int32Array(all.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  all.forEach((part, i) => {
    ids.set(part, at);
    at += part.length;
    ends[i] = at;
  });
  return { ids, ends, seconds: null, cut };
}

function tooLong(place: string, numTokens: number, maxTokens: number): OmlxError {
  return new OmlxError({
    code: "context_length",
    message: `${place} is too long: ${numTokens} tokens > ${maxTokens} maximum; "truncate": true cuts it`,
    param: place,
    data: { numTokens, maxTokens },
  });
}

/** Names under which models keep their prompts for what a text is. */
const PROMPT_NAMES: Readonly<Record<string, readonly string[]>> = {
  query: ["query", "search_query", "web_search_query"],
  document: ["document", "passage", "search_document"],
};

function promptOf({ text, entry }: Lease, { promptName, inputType }: EmbedRequest): string {
  const { prompts, defaultPrompt } = text;
  if (promptName !== null) {
    const prompt = prompts.get(promptName);
    if (prompt !== undefined) return prompt;
    const names = [...prompts.keys()].map((name) => JSON.stringify(name)).join(", ") || "none";
    throw invalidRequest(
      `Model "${entry.id}" has no prompt ${JSON.stringify(promptName.slice(0, 100))}; it has ${names}`,
      "prompt_name",
    );
  }
  const names = inputType === null ? [] : [inputType, ...(PROMPT_NAMES[inputType] ?? [])];
  const found = names.map((name) => prompts.get(name)).find((prompt) => prompt !== undefined);
  return found ?? defaultPrompt ?? "";
}
