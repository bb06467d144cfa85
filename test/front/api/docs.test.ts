/** The OpenAPI document and its page, over an empty model folder. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Validator } from "@seriousme/openapi-schema-validator";
import { z } from "zod";
import { createApp, OpenRequests } from "#front/api";
import { loadSettings } from "#front/config";
import { createPool, type Pool } from "#front/pool";

let folder: string;
let pool: Pool;
let app: ReturnType<typeof createApp>;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "omlx-docs-"));
  const { settings } = loadSettings(new Map([["basePath", folder]]), {});
  pool = await createPool({ settings });
  app = createApp({
    pool,
    apiKey: "",
    version: "1.2.3",
    keepAliveMs: 60_000,
    responsesFolder: "/nonexistent/responses",
    mcp: null,
    bodyLimit: 1000,
    requests: new OpenRequests(),
    shutdown: new AbortController().signal,
  });
});
afterAll(async () => {
  await pool.stop();
  rmSync(folder, { recursive: true });
});

const get = async (path: string) => app.handle(new Request(`http://localhost${path}`));

interface Operation {
  readonly operationId?: string;
  readonly summary?: string;
  readonly tags?: readonly string[];
  readonly requestBody?: { content: Record<string, { schema: Record<string, unknown> }> };
  readonly responses: Record<string, { content: Record<string, { schema: object }> }>;
}
interface Document {
  readonly openapi: string;
  readonly info: { readonly version: string };
  readonly paths: Record<string, Record<string, Operation>>;
}

const documentOf = async () => (await (await get("/openapi.json")).json()) as Document;

describe("GET /openapi.json", () => {
  test("the document follows OpenAPI's own schema", async () => {
    const document = await documentOf();
    const result = await new Validator().validate({ ...document });
    expect(result.errors ?? []).toEqual([]);
    expect(result.valid).toBe(true);
    expect(document.info.version).toBe("1.2.3");
  });

  test("every route is there with words, schemas and a name of its own", async () => {
    const { paths } = await documentOf();
    const operations = Object.entries(paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
    );
    const bare = operations.filter(
      ({ operation: o }) => !o.summary || !o.tags?.length || !o.responses["200"]?.content,
    );
    expect(bare.map(({ method, path }) => `${method} ${path}`)).toEqual([]);
    const ids = operations.map(({ operation }) => operation.operationId);
    expect(new Set(ids).size).toBe(ids.length);

    const documented = operations.map(({ method, path }) => `${method.toUpperCase()} ${path}`);
    const hidden = ["/docs", "/openapi.json", "/models"];
    const routes = app.routes
      .filter(({ path }) => !hidden.some((h) => path === h || path.startsWith(`${h}/`)))
      .map(
        ({ method, path }) => `${method} ${path.replace("/*", "/{id}").replace(/:(\w+)/g, "{$1}")}`,
      );
    expect(documented.sort()).toEqual([...new Set(routes)].sort());
  });

  test("a body's schema is the one that requests are read with", async () => {
    const { paths } = await documentOf();
    const schema =
      paths["/v1/chat/completions"]?.["post"]?.requestBody?.content["application/json"]?.schema;
    expect(schema).toMatchObject({
      type: "object",
      required: ["messages"],
      properties: {
        messages: { type: "array", minItems: 1 },
        temperature: { anyOf: [{ type: "number", minimum: 0, maximum: 2 }, { type: "null" }] },
        max_tokens: { anyOf: [{ type: "integer", minimum: 1 }, { type: "null" }] },
      },
    });
    expect(JSON.stringify(paths)).not.toContain('"def":'); // zod's own form, which no client reads
  });

  test("answers are as their schemas say", async () => {
    const { paths } = await documentOf();
    const schemaOf = (path: string, status: string) => {
      const schema = paths[path]?.["get"]?.responses[status]?.content["application/json"]?.schema;
      return z.fromJSONSchema(schema as Parameters<typeof z.fromJSONSchema>[0]);
    };
    for (const path of ["/health", "/health/live", "/health/ready", "/v1/models"]) {
      schemaOf(path, "200").parse(await (await get(path)).json());
    }
    const error = await (await get("/v1/models/none")).json();
    schemaOf("/v1/models/{id}", "default").parse(error);
    expect(() => schemaOf("/v1/models/{id}", "200").parse(error)).toThrow();
  });
});

describe("GET /docs", () => {
  test("the page and its files come from this server alone", async () => {
    const response = await get("/docs");
    expect(response.headers.get("content-type")).toStartWith("text/html");
    expect(response.headers.get("content-security-policy")).toContain("default-src 'self'");
    const html = await response.text();
    expect(html).toContain('"url":"/openapi.json"');
    expect(html).not.toMatch(/https?:|\/\/[a-z]+\.[a-z]/i);
    const files = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, file]) => file ?? "");
    expect(files.sort()).toEqual(["/docs/swagger-ui.css", "/docs/swagger-ui.js"]);
    for (const file of files) {
      const answer = await get(file);
      expect(answer.status).toBe(200);
      const text = await answer.text();
      expect(text.length).toBeGreaterThan(100_000);
      if (file.endsWith(".css")) expect(text).not.toMatch(/url\(\s*["']?(?:https?:)?\/\/|@import/);
      else expect(text).toContain("SwaggerUIBundle");
    }
  });
});
