/** The OpenAPI document against the answers of a running server, and its page in a browser without a network. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { z } from "zod";
import { IS_LONG } from "../helpers/long.ts";
import { startServer, type TestServer } from "../helpers/server.ts";

const MODELS = join(import.meta.dir, "..", "fixtures", "models");

let server: TestServer;
beforeAll(async () => {
  server = await startServer({ modelDirs: [join(MODELS, "llama-f32")] });
});
afterAll(() => server.stop());

type Schema = Parameters<typeof z.fromJSONSchema>[0];
interface Document {
  paths: Record<
    string,
    Record<string, { responses: Record<string, { content: Record<string, { schema: Schema }> }> }>
  >;
}

describe("the OpenAPI document", () => {
  test("answers, chunks and errors of a conversation are as it says", async () => {
    const document = (await (await fetch(`${server.origin}/openapi.json`)).json()) as Document;
    const responses = document.paths["/v1/chat/completions"]?.["post"]?.responses;
    const schemaOf = (status: string, type: string) =>
      z.fromJSONSchema(responses?.[status]?.content[type]?.schema as Schema);
    const ask = (fields: object) =>
      fetch(`${server.baseURL}/chat/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({
          messages: [{ role: "user", content: "hi" }],
          max_tokens: 3,
          ...fields,
        }),
      });
    schemaOf("200", "application/json").parse(await (await ask({})).json());
    const stream = await (
      await ask({ stream: true, stream_options: { include_usage: true } })
    ).text();
    const frames = [...stream.matchAll(/^data: (\{.*)$/gm)];
    expect(frames.length).toBeGreaterThan(2);
    const chunk = schemaOf("200", "text/event-stream");
    for (const [, json] of frames) chunk.parse(JSON.parse(json ?? ""));
    schemaOf("default", "application/json").parse(await (await ask({ temperature: 9 })).json());
  });

  const browser = Bun.which("chromium");
  if (IS_LONG && browser !== null) {
    test("a browser that reaches this server alone shows every route", async () => {
      const child = Bun.spawn(
        [
          ...[browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"],
          ...[
            "--virtual-time-budget=20000",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
          ],
          `${server.origin}/docs`,
        ],
        { stdout: "pipe", stderr: "ignore" },
      );
      const dom = await new Response(child.stdout).text();
      const document = (await (await fetch(`${server.origin}/openapi.json`)).json()) as Document;
      for (const path of Object.keys(document.paths)) expect(dom).toContain(`data-path="${path}"`);
      expect(dom).not.toContain("errors-wrapper");
    }, 120_000);
  }

  test("the program carries the page's files", async () => {
    for (const file of ["swagger-ui.js", "swagger-ui.css"]) {
      const response = await fetch(`${server.origin}/docs/${file}`);
      expect(response.status).toBe(200);
      expect((await response.arrayBuffer()).byteLength).toBeGreaterThan(100_000);
    }
  });
});
