import { describe, expect, test } from "bun:test";
import zlib from "node:zlib";
import { OmlxError } from "#core/contract";
import { readJson } from "../../../src/front/api/body.ts";
import { HttpError } from "../../../src/front/api/error-handler.ts";

type Body = ConstructorParameters<typeof Response>[0];

const LIMIT = 10_000;

function read(body: Body, headers: Record<string, string> = {}): Promise<unknown> {
  return readJson(new Request("http://localhost/", { method: "POST", body, headers }), LIMIT);
}

async function failure(body: Body, headers: Record<string, string> = {}) {
  try {
    await read(body, headers);
  } catch (error) {
    if (error instanceof HttpError) return `${error.status} ${error.message}`;
    if (error instanceof OmlxError) return `${error.code}: ${error.message}`;
    throw error;
  }
  throw new Error("the body was taken");
}

describe("readJson()", () => {
  test("readJson() tells where a text stops being JSON", async () => {
    expect(await failure('{"a":NaN}')).toBe(
      "invalid_request: Cannot parse the request body as JSON: line 1, column 6: expected a value",
    );
    expect(await failure("")).toContain("it is empty");
    expect(await failure(null)).toContain("it is empty");
  });

  test("readJson() drops a byte order mark", async () => {
    expect(await read('\ufeff{"a":1}')).toEqual({ a: 1 });
  });

  test("readJson() replaces broken UTF-8 and lone surrogates", async () => {
    expect(await read(new Uint8Array([0x22, 0xff, 0x22]))).toBe("\ufffd");
    expect(await read('{"a":["\\ud800x"]}')).toEqual({ a: ["\ufffdx"] });
    expect(await read('"\\udc00"')).toBe("\ufffd");
  });

  test("readJson() removes __proto__ keys at every depth", async () => {
    const value = (await read('{"__proto__":{"p":1},"x":[{"__proto__":{"p":1},"y":2}]}')) as object;
    expect(JSON.stringify(value)).toBe('{"x":[{"y":2}]}');
    expect((value as { p?: number }).p).toBeUndefined();
    expect(({} as { p?: number }).p).toBeUndefined();
  });

  test("readJson() refuses deep nesting without recursing", async () => {
    const deep = 4000;
    expect(await failure("[".repeat(deep) + "]".repeat(deep))).toContain("deeper than 200");
    const objects = '{"a":'.repeat(1000) + 1 + "}".repeat(1000);
    expect(await failure(objects)).toContain("deeper than 200");
    const shallow = "[".repeat(200) + "]".repeat(200);
    expect(JSON.stringify(await read(shallow))).toBe(shallow);
  });

  test("readJson() refuses 200,000 nested brackets", async () => {
    const text = "[".repeat(200_000) + "]".repeat(200_000);
    const request = new Request("http://localhost/", { method: "POST", body: text });
    await expect(readJson(request, 1_000_000)).rejects.toThrow("deeper than 200");
  });

  test("readJson() refuses a body over the limit, declared or not", async () => {
    const large = JSON.stringify("x".repeat(LIMIT));
    expect(await failure(large)).toBe(`413 Request body is larger than ${LIMIT} bytes`);
    let sent = 0;
    const endless = new ReadableStream({
      pull(controller) {
        sent += 1000;
        controller.enqueue(new Uint8Array(1000).fill(0x20));
      },
    });
    expect(await failure(endless)).toContain("413");
    expect(sent).toBeLessThan(LIMIT * 3);
  });

  const encoders: Record<string, (text: string) => Uint8Array> = {
    gzip: zlib.gzipSync,
    "x-gzip": zlib.gzipSync,
    deflate: zlib.deflateSync,
    br: zlib.brotliCompressSync,
    zstd: zlib.zstdCompressSync,
  };
  for (const [name, encode] of Object.entries(encoders)) {
    test(`readJson() decodes ${name}, bounds it and names a corrupt one`, async () => {
      const headers = { "content-encoding": name };
      expect(await read(encode('{"a":1}'), headers)).toEqual({ a: 1 });
      expect(await failure(encode(" ".repeat(5_000_000)), headers)).toContain("413");
      expect(await failure(encode('{"a":1}').slice(0, -4), headers)).toContain("invalid_request");
      expect(await failure("garbage garbage", headers)).toContain(`not valid ${name}`);
    });
  }

  test("readJson() knows gzip and zstd by their first bytes when the header is lost", async () => {
    expect(await read(zlib.zstdCompressSync('{"a":1}'))).toEqual({ a: 1 });
    expect(await read(zlib.gzipSync('{"a":1}'))).toEqual({ a: 1 });
  });

  test("readJson() undoes several encodings and refuses unknown ones", async () => {
    const twice = zlib.gzipSync(zlib.zstdCompressSync("[1]"));
    expect(await read(twice, { "content-encoding": "zstd, gzip" })).toEqual([1]);
    expect(await failure("[1]", { "content-encoding": "compress" })).toContain("415");
    expect(await failure("[1]", { "content-encoding": "constructor" })).toContain("415");
    expect(await read("[1]", { "content-encoding": "identity" })).toEqual([1]);
  });
});
