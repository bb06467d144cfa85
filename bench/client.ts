/** One streamed chat request, with the time of each token as a client sees it. */
import type { Message } from "./prompts.ts";

const LINE_END = "\r\n";

/** Times in milliseconds after the request was sent. */
export interface Answer {
  /** Of the first piece of text. */
  readonly firstMs: number;
  /** Of the piece that says why the answer ends. */
  readonly lastMs: number;
  /** Of every piece of text; a piece is one token, seldom more. */
  readonly pieceMs: readonly number[];
  /** When the request was sent: performance.now(). */
  readonly sentAt: number;
  readonly promptTokens: number;
  /** Those of promptTokens that the server did not compute. */
  readonly cachedTokens: number;
  readonly completionTokens: number;
  readonly text: string;
}

export interface Ask {
  readonly messages: readonly Message[];
  readonly maxTokens: number;
  /** Fields beside messages, max_tokens and stream. */
  readonly fields: Readonly<Record<string, unknown>>;
}

/** @throws {Error} if the server refuses, or ends the answer with an error or before its time */
export async function ask(origin: string, request: Ask): Promise<Answer> {
  const sentAt = performance.now();
  const exchange = send(origin, request);
  await exchange.ended;
  return read(bodyOf(exchange.pieces), sentAt);
}

/** An answer that is broken off when it has served its purpose. */
export interface Listening {
  /** The first token is here. */
  readonly begun: Promise<void>;
  /** Breaks it off. performance.now() of all tokens up to now. */
  stop(): readonly number[];
}

/** @throws {Error} from `begun` and stop(): the server refuses, or the answer has ended */
export function listen(origin: string, request: Ask): Listening {
  const begun = Promise.withResolvers<void>();
  const tokens: number[] = [];
  const exchange = send(origin, request, ({ at, bytes }) => {
    // the first event only names the role
    if (!/"content":"[^"]/.test(bytes.toString("latin1"))) return;
    tokens.push(at);
    begun.resolve();
  });
  let isOver = false;
  const over = (error?: unknown) => {
    isOver = true;
    begun.reject(error ?? new Error("the answer ended before it was broken off"));
  };
  exchange.ended.then(() => over(), over);
  return {
    begun: begun.promise,
    stop() {
      if (isOver) throw new Error("the answer ended before it was broken off");
      exchange.breakOff();
      return tokens;
    },
  };
}

/** Bytes of a response, and when they came: performance.now(). */
interface Piece {
  readonly at: number;
  readonly bytes: Buffer;
}

interface Exchange {
  readonly pieces: readonly Piece[];
  /** The server has closed the connection. */
  readonly ended: Promise<void>;
  breakOff(): void;
}

/**
 * Sends a request over a connection of its own and keeps what comes as it is, to be read later: the client shares the
 * cores with what it measures, and fetch() takes twice as long for a token as this.
 */
function send(origin: string, ask: Ask, onPiece: (piece: Piece) => void = () => {}): Exchange {
  const { hostname, port } = new URL(origin);
  const { messages, maxTokens, fields } = ask;
  const body = JSON.stringify({
    messages,
    max_tokens: maxTokens,
    stream: true,
    stream_options: { include_usage: true },
    ...fields,
  });
  const head = [
    "POST /v1/chat/completions HTTP/1.1",
    `Host: ${hostname}:${port}`,
    "Content-Type: application/json",
    `Content-Length: ${Buffer.byteLength(body)}`,
    "Connection: close",
  ];
  let rest = Buffer.from(`${head.join(LINE_END)}${LINE_END}${LINE_END}${body}`);
  const write = (socket: Bun.Socket) => {
    rest = rest.subarray(Math.max(0, socket.write(rest)));
  };
  const pieces: Piece[] = [];
  const ended = Promise.withResolvers<void>();
  const connected = Bun.connect({
    hostname,
    port: Number(port),
    socket: {
      open: write,
      drain: write,
      data(_, bytes) {
        const piece = { at: performance.now(), bytes };
        pieces.push(piece);
        onPiece(piece);
      },
      error: (_, error) => ended.reject(error),
      close: () => ended.resolve(),
    },
  });
  connected.catch(ended.reject);
  const breakOff = () => void connected.then((socket) => socket.terminate());
  return { pieces, ended: ended.promise, breakOff };
}

/**
 * The body of a response, in the pieces that it came in.
 *
 * @throws {Error} if the server refuses
 */
function bodyOf(pieces: readonly Piece[]): Piece[] {
  const all = Buffer.concat(pieces.map(({ bytes }) => bytes));
  const headEnd = all.indexOf(LINE_END + LINE_END);
  const head = all.toString("latin1", 0, Math.max(0, headEnd));
  const begin = headEnd + 2 * LINE_END.length;
  const status = Number(/^HTTP\/1\.\d (\d+)/.exec(head)?.[1]);
  if (status !== 200) {
    const text = all.toString("utf8", headEnd < 0 ? 0 : begin).slice(0, 300);
    throw new Error(`status ${status || "missing"}: ${text}`);
  }
  let end = 0;
  const ends = pieces.map(({ at, bytes }) => {
    end += bytes.length;
    return { at, end };
  });
  /** When the byte before `offset` came. */
  const arrival = (offset: number) => ends.find((piece) => piece.end >= offset)?.at ?? Number.NaN;
  if (!/^transfer-encoding:.*chunked/im.test(head)) {
    return ends
      .map(({ at, end }, i) => ({
        at,
        bytes: all.subarray(Math.max(begin, ends[i - 1]?.end ?? 0), end),
      }))
      .filter(({ bytes }) => bytes.length > 0);
  }
  const body: Piece[] = [];
  for (let at = begin; at < all.length; ) {
    const sizeEnd = all.indexOf(LINE_END, at);
    const size = Number.parseInt(all.toString("latin1", at, sizeEnd), 16);
    const from = sizeEnd + LINE_END.length;
    if (sizeEnd < 0 || !(size > 0)) break;
    body.push({ at: arrival(from + size), bytes: all.subarray(from, from + size) });
    at = from + size + LINE_END.length;
  }
  return body;
}

interface Chunk {
  readonly choices?: readonly {
    readonly delta?: { readonly content?: string | null };
    readonly finish_reason?: string | null;
  }[];
  readonly usage?: {
    readonly prompt_tokens: number;
    readonly completion_tokens: number;
    readonly prompt_tokens_details?: { readonly cached_tokens?: number } | null;
  } | null;
  readonly error?: unknown;
}

function read(body: readonly Piece[], sentAt: number): Answer {
  const decoder = new TextDecoder();
  const pieceMs: number[] = [];
  let rest = "";
  let text = "";
  let usage: Chunk["usage"];
  let lastMs = Number.NaN;
  for (const { at, bytes } of body) {
    const ms = at - sentAt;
    const events = (rest + decoder.decode(bytes, { stream: true })).split("\n\n");
    rest = events.pop() ?? "";
    for (const event of events) {
      if (!event.startsWith("data:")) continue; // comments keep the line alive
      const data = event.slice("data:".length).trim();
      if (data === "[DONE]") continue;
      const chunk = JSON.parse(data) as Chunk;
      if (chunk.error !== undefined) throw new Error(`told in the stream: ${data.slice(0, 300)}`);
      usage = chunk.usage ?? usage;
      const choice = chunk.choices?.[0];
      const content = choice?.delta?.content ?? "";
      if (content !== "") {
        pieceMs.push(ms);
        text += content;
      }
      if (choice?.finish_reason) lastMs = ms;
    }
  }
  if (!usage || Number.isNaN(lastMs)) throw new Error("the stream ended before the answer");
  return {
    // an answer without visible text: its end is all that is known
    firstMs: pieceMs[0] ?? lastMs,
    lastMs,
    pieceMs,
    sentAt,
    promptTokens: usage.prompt_tokens,
    cachedTokens: usage.prompt_tokens_details?.cached_tokens ?? 0,
    completionTokens: usage.completion_tokens,
    text,
  };
}

/** Tokens per second after the first one. */
export function decodeSpeed({ completionTokens, firstMs, lastMs }: Answer): number {
  return ((completionTokens - 1) / (lastMs - firstMs)) * 1000;
}

/** Computed prompt tokens per second of waiting for the first token. */
export function prefillSpeed({ promptTokens, cachedTokens, firstMs }: Answer): number {
  return ((promptTokens - cachedTokens) / firstMs) * 1000;
}

/**
 * Tokens per second of all answers together, while all of them were being written. If there was no such time (a server
 * that answers one after the other), over the whole time.
 */
export function totalSpeed(answers: readonly Answer[]): number {
  const begins = answers.map(({ sentAt, firstMs }) => sentAt + firstMs);
  const ends = answers.map(({ sentAt, lastMs }) => sentAt + lastMs);
  const isShared = Math.max(...begins) < Math.min(...ends);
  const begin = isShared ? Math.max(...begins) : Math.min(...begins);
  const end = isShared ? Math.min(...ends) : Math.max(...ends);
  let tokens = 0;
  for (const { sentAt, pieceMs, completionTokens } of answers) {
    const inside = pieceMs.filter((ms) => sentAt + ms > begin && sentAt + ms <= end).length;
    tokens += completionTokens * (inside / Math.max(1, pieceMs.length));
  }
  return (tokens / (end - begin)) * 1000;
}
