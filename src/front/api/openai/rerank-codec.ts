import { invalidRequest } from "#core/contract";
import type { RerankRequest, RerankResult } from "#front/service";
import { RERANK_FIELDS, type RerankBody } from "./encode-schemas.ts";

export interface DecodedRerank {
  readonly request: RerankRequest;
  /** As the client sent them. */
  readonly documents: RerankBody["documents"];
  readonly topN: number;
  readonly returnsDocuments: boolean;
  /** Fields that changed nothing. */
  readonly ignored: readonly string[];
}

/**
 * Documents that are too long are cut unless the client says no: rerankers are asked with whatever a search found.
 *
 * @param returnsDocuments when the request does not say it
 * @throws {OmlxError} invalid_request
 */
export function decodeRerank(body: RerankBody, returnsDocuments: boolean): DecodedRerank {
  const { query, documents } = body;
  refuseImage(query, "query");
  documents.forEach((document, i) => {
    refuseImage(document, `documents[${i}]`);
  });
  const mayCut = body.truncate ?? body.truncation ?? true;
  return {
    request: {
      model: body.model || null,
      query: typeof query === "string" ? query : query.text,
      documents: documents.map((document) =>
        typeof document === "string" ? document : document.text,
      ),
      param: "documents",
      truncateAt: mayCut ? (body.max_tokens_per_doc ?? 0) : null,
      instruction: body.instruction ?? null,
    },
    documents,
    topN: Math.min(body.top_n ?? documents.length, documents.length),
    returnsDocuments: body.return_documents ?? returnsDocuments,
    ignored: Object.keys(body).filter((name) => !RERANK_FIELDS.has(name)),
  };
}

/** A score of the text alone would be another one than was asked for. */
function refuseImage(part: string | { readonly image?: unknown }, param: string): void {
  if (typeof part === "string" || part.image === undefined || part.image === null) return;
  throw invalidRequest("Cannot rank by an image: the model reads text only", param);
}

/** Jina's and Cohere's answer in one: the best documents first, equal ones in the order of the request. */
export function encodeRerank(
  id: string,
  apiVersion: string,
  { documents, topN, returnsDocuments }: DecodedRerank,
  { model, scores, promptTokens }: RerankResult,
  warnings: readonly string[],
) {
  const order = scores.map((score, index) => ({ score, index }));
  order.sort((a, b) => b.score - a.score || a.index - b.index);
  const documentOf = (index: number) => {
    const document = documents[index];
    return typeof document === "string" ? { text: document } : document;
  };
  return {
    id,
    model,
    results: order.slice(0, topN).map(({ score, index }) => ({
      index,
      relevance_score: score,
      ...(returnsDocuments ? { document: documentOf(index) } : {}),
    })),
    usage: { prompt_tokens: promptTokens, total_tokens: promptTokens },
    meta: {
      api_version: { version: apiVersion },
      billed_units: { search_units: Math.ceil(documents.length / 100) },
      tokens: { input_tokens: promptTokens, output_tokens: 0 },
      ...(warnings.length > 0 ? { warnings } : {}),
    },
  };
}
