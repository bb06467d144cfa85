import { promisify } from "node:util";
import zlib from "node:zlib";
import { invalidRequest } from "#core/contract";
import { HttpError } from "./error-handler.ts";
import { findSyntaxFault } from "./json-syntax.ts";

/** Deeper than any sensible request; keeps everything that recurses over a body safe. */
const MAX_DEPTH = 200;

type Inflate = (data: Uint8Array, options: { maxOutputLength: number }) => Promise<Uint8Array>;

const DECODERS: Readonly<Record<string, Inflate>> = {
  gzip: promisify(zlib.gunzip) as Inflate,
  "x-gzip": promisify(zlib.gunzip) as Inflate,
  deflate: promisify(zlib.inflate) as Inflate,
  br: promisify(zlib.brotliDecompress) as Inflate,
  zstd: promisify(zlib.zstdDecompress) as Inflate,
};

/**
 * Reads a JSON body: any content encoding, a byte order mark, broken UTF-8 and lone surrogates (both become U+FFFD) are
 * dealt with; `__proto__` keys are gone.
 *
 * @param maxBytes bound of the body as sent and as decoded
 * @throws {HttpError} 413, 415
 * @throws {OmlxError} invalid_request, with the position of a syntax fault
 */
export async function readJson(request: Request, maxBytes: number): Promise<unknown> {
  const raw = await readBytes(request, maxBytes);
  const bytes = await decode(raw, request.headers.get("content-encoding") ?? "", maxBytes);
  const text = new TextDecoder().decode(bytes); // drops the byte order mark
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    const fault = findSyntaxFault(text);
    const where = fault ? `line ${fault.line}, column ${fault.column}: ${fault.reason}` : "";
    throw invalidRequest(`Cannot parse the request body as JSON: ${where}`);
  }
  return sanitize(value);
}

const tooLarge = (maxBytes: number): HttpError =>
  new HttpError(
    413,
    `Request body is larger than ${maxBytes} bytes`,
    "request_too_large",
    { connection: "close" }, // the rest of the body is not read
  );

async function readBytes(request: Request, maxBytes: number): Promise<Uint8Array> {
  const length = request.headers.get("content-length");
  if (length !== null && Number(length) > maxBytes) throw tooLarge(maxBytes);
  if (!request.body) return new Uint8Array(0);
  const chunks: Uint8Array[] = [];
  let size = 0;
  try {
    for await (const chunk of request.body as ReadableStream<Uint8Array>) {
      size += chunk.byteLength;
      if (size > maxBytes) break;
      chunks.push(chunk);
    }
  } catch (cause) {
    throw Object.assign(invalidRequest("Cannot read the request body to its end"), { cause });
  }
  if (size > maxBytes) throw tooLarge(maxBytes);
  return chunks.length === 1 ? (chunks[0] as Uint8Array) : Buffer.concat(chunks);
}

async function decode(raw: Uint8Array, header: string, maxBytes: number): Promise<Uint8Array> {
  const names = header
    .split(",")
    .map((name) => name.trim().toLowerCase())
    .filter((name) => name !== "" && name !== "identity");
  const encodings = names.length > 0 ? names : magic(raw);
  let bytes = raw;
  for (const name of encodings.reverse()) {
    const inflate = Object.hasOwn(DECODERS, name) ? DECODERS[name] : undefined;
    if (!inflate) {
      throw new HttpError(415, "Unknown content encoding", "unsupported_encoding", {
        "accept-encoding": "gzip, deflate, br, zstd",
      });
    }
    try {
      bytes = await inflate(bytes, { maxOutputLength: maxBytes });
    } catch (error) {
      if ((error as { code?: unknown }).code === "ERR_BUFFER_TOO_LARGE") throw tooLarge(maxBytes);
      throw invalidRequest(`Cannot decode the request body: it is not valid ${name}`);
    }
  }
  return bytes;
}

/** Proxies lose the header at times; no JSON text begins with these bytes. */
function magic(bytes: Uint8Array): string[] {
  if (bytes[0] === 0x28 && bytes[1] === 0xb5 && bytes[2] === 0x2f && bytes[3] === 0xfd)
    return ["zstd"];
  return bytes[0] === 0x1f && bytes[1] === 0x8b ? ["gzip"] : [];
}

/** Bounds the depth, removes `__proto__` keys and repairs lone surrogates, in place; keeps its own stack. */
function sanitize(root: unknown): unknown {
  if (typeof root === "string") return root.toWellFormed();
  if (typeof root !== "object" || root === null) return root;
  let level: object[] = [root];
  for (let depth = 1; level.length > 0; depth++) {
    if (depth > MAX_DEPTH) {
      throw invalidRequest(`The request body is nested deeper than ${MAX_DEPTH} levels`);
    }
    const next: object[] = [];
    for (const node of level) {
      if (Object.hasOwn(node, "__proto__")) Reflect.deleteProperty(node, "__proto__");
      const fields = node as Record<string, unknown>;
      for (const key in fields) {
        const child = fields[key];
        if (typeof child === "string") {
          if (!child.isWellFormed()) fields[key] = child.toWellFormed();
        } else if (typeof child === "object" && child !== null) next.push(child);
      }
    }
    level = next;
  }
  return root;
}
