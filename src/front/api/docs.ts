import { swagger } from "@elysiajs/swagger";
import { Elysia } from "elysia";
import style from "swagger-ui-dist/swagger-ui.css" with { type: "file" };
// as files: the binary carries them, so the page needs no other server
import script from "swagger-ui-dist/swagger-ui-bundle.js" with { type: "file" };
import { MODEL_DETAIL } from "./openai/models.ts";

const PAGE = "/docs";
const DOCUMENT = "/openapi.json";
const SCRIPT = `${PAGE}/swagger-ui.js`;
const STYLE = `${PAGE}/swagger-ui.css`;

/** Whatever the page's code tries, the browser lets it reach this server only. */
const POLICY =
  "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:";

const DAY_S = 86_400;

/** GET /openapi.json: what every route takes and answers; GET /docs: the same as a page to read and try. */
export function docsRoutes(version: string) {
  const options = {
    provider: "swagger-ui" as const,
    path: PAGE,
    specPath: DOCUMENT,
    theme: STYLE,
    swaggerOptions: {
      url: DOCUMENT,
      // else the page would have the document judged by a server on the internet
      validatorUrl: null as unknown as string,
      tryItOutEnabled: true,
    },
    documentation: {
      openapi: "3.1.0", // JSON schemas as zod writes them
      info: {
        title: "oMLX",
        version,
        description: "A private AI server on this machine.",
      },
      // the plugin leaves out paths with a wildcard
      paths: { "/v1/models/{id}": { get: { operationId: "getV1ModelsById", ...MODEL_DETAIL } } },
      components: {
        securitySchemes: {
          bearer: { type: "http" as const, scheme: "bearer" },
          header: { type: "apiKey" as const, in: "header", name: "x-api-key" },
        },
      },
      security: [{ bearer: [] }, { header: [] }, {}],
    },
  };
  let page: Promise<string> | undefined;
  return new Elysia({ name: "docs" })
    .use(swagger(options))
    .get(
      PAGE,
      async () => {
        page ??= offlinePage(swagger(options));
        return new Response(await page, {
          headers: {
            "content-type": "text/html; charset=utf-8",
            "content-security-policy": POLICY,
          },
        });
      },
      { detail: { hide: true } },
    )
    .get(SCRIPT, () => asset(script, "text/javascript"), { detail: { hide: true } })
    .get(STYLE, () => asset(style, "text/css"), { detail: { hide: true } });
}

/** The plugin's page; where it would load its script from the internet it loads ours. */
async function offlinePage(plugin: ReturnType<typeof swagger>): Promise<string> {
  const response = await plugin.handle(new Request(`http://localhost${PAGE}`));
  const html = await response.text();
  return html.replace(/"https?:[^"]*swagger-ui-bundle\.js"/, JSON.stringify(SCRIPT));
}

const asset = (path: string, type: string): Response =>
  new Response(Bun.file(path), {
    headers: {
      "content-type": `${type}; charset=utf-8`,
      "cache-control": `public, max-age=${DAY_S}`,
    },
  });
