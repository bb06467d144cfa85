import { z } from "zod";
import { errorBody } from "./openai/answers.ts";

/** A schema for people and machines, or an example where no schema says it. */
type JsonSchema = Readonly<Record<string, unknown>>;

export interface RouteDoc {
  /** The group that the documentation page shows it under. */
  readonly tag: "Chat" | "Text" | "Embeddings" | "Models" | "Tools" | "Health" | "Admin";
  /** One line, in the imperative: "Answer a conversation". */
  readonly summary: string;
  /** Markdown. */
  readonly description?: string;
  /** What the JSON body must be; the same schema that the route validates with. */
  readonly body?: z.ZodType;
  /** Parameters of the path and the query, by name. */
  readonly path?: Readonly<Record<string, z.ZodType>>;
  readonly query?: Readonly<Record<string, z.ZodType>>;
  /** What the route answers with status 200. */
  readonly answer: z.ZodType;
  /** What a streamed answer's `data:` lines hold, if the route streams. */
  readonly stream?: z.ZodType;
  /** Answers with other statuses than 200 that are no errors, by status. */
  readonly others?: Readonly<Record<number, { readonly description: string; answer: z.ZodType }>>;
  /** The protocol's error body; OpenAI's by default. */
  readonly errors?: z.ZodType;
  /** Answers without a key. */
  readonly isOpen?: boolean;
}

/**
 * What a route does, for the OpenAPI document:
 *
 *     .post("/v1/rerank", handler, { parse: "none", detail: routeDetail({ tag: …, summary: …, body, answer }) })
 *
 * A route without it is in the document with its path only; the tests refuse that.
 */
export function routeDetail(doc: RouteDoc) {
  const { tag, summary, description, body, answer, stream, others = {}, errors = errorBody } = doc;
  const parameters = [
    ...parametersIn("path", doc.path ?? {}),
    ...parametersIn("query", doc.query ?? {}),
  ];
  return {
    tags: [tag],
    summary,
    ...(description === undefined ? {} : { description }),
    ...(parameters.length > 0 ? { parameters } : {}),
    ...(body === undefined
      ? {}
      : {
          requestBody: {
            required: true,
            content: { "application/json": lazily(body, "input") },
          },
        }),
    responses: {
      200: {
        description: stream === undefined ? "The answer" : "The answer, whole or streamed",
        content: {
          "application/json": lazily(answer, "output"),
          ...(stream === undefined ? {} : { "text/event-stream": lazily(stream, "output") }),
        },
      },
      ...Object.fromEntries(
        Object.entries(others).map(([status, { description, answer }]) => [
          status,
          {
            description,
            content: { "application/json": lazily(answer, "output") },
          },
        ]),
      ),
      default: {
        description: "An error",
        content: { "application/json": lazily(errors, "output") },
      },
    },
    ...(doc.isOpen === true ? { security: [] } : {}),
  };
}

function parametersIn(place: "path" | "query", schemas: Readonly<Record<string, z.ZodType>>) {
  return Object.entries(schemas).map(([name, schema]) => ({
    name,
    in: place,
    required: place === "path" || !schema.safeParse(undefined).success,
    schema: jsonSchema(schema, "input"),
  }));
}

/** The schema is made when the document is asked for: all of them together take as long as the rest of a start. */
function lazily(schema: z.ZodType, io: "input" | "output"): { readonly schema: JsonSchema } {
  let made: JsonSchema | undefined;
  return {
    get schema() {
      made ??= jsonSchema(schema, io);
      return made;
    },
  };
}

function jsonSchema(schema: z.ZodType, io: "input" | "output"): JsonSchema {
  // what has no JSON schema (a transform's result) is "anything", so that a document never fails for it
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io, unrepresentable: "any" });
  return rest;
}
