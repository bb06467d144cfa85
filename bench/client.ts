/** One streamed chat request, with the time of each token as a client sees it. */
import type { Message } from "./prompts.ts";

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
  const { sentAt, response } = await send(origin, request);
  // Read now, parse later: the client shares the cores with what it measures.
  const chunks: { readonly ms: number; readonly bytes: Uint8Array }[] = [];
  for await (const bytes of response) chunks.push({ ms: performance.now() - sentAt, bytes });
  return read(chunks, sentAt);
}

/** An answer that is broken off when it has served its purpose. */
export interface Listening {
  /** The first piece is here. */
  readonly begun: Promise<void>;
  /** Breaks it off. performance.now() of all pieces up to now. */
  stop(): Promise<readonly number[]>;
}

/** @throws {Error} if the server refuses */
export async function listen(origin: string, request: Ask): Promise<Listening> {
  const broken = new AbortController();
  const { response } = await send(origin, request, broken.signal);
  const pieces: number[] = [];
  const begun = Promise.withResolvers<void>();
  let isOver = false;
  const reading = (async () => {
    for await (const bytes of response) {
      const now = performance.now();
      const text = new TextDecoder().decode(bytes);
      // one event per token, except that the first only names the role
      if (/"content":"[^"]/.test(text)) pieces.push(now);
      if (pieces.length > 0) begun.resolve();
    }
    isOver = true;
    throw new Error("the answer ended before it was broken off");
  })();
  reading.catch(begun.reject);
  return {
    begun: begun.promise,
    async stop() {
      if (isOver) await reading;
      broken.abort();
      await reading.catch(() => undefined);
      return pieces;
    },
  };
}

async function send(
  origin: string,
  { messages, maxTokens, fields }: Ask,
  signal: AbortSignal | null = null,
): Promise<{ readonly sentAt: number; readonly response: ReadableStream<Uint8Array> }> {
  const body = JSON.stringify({
    messages,
    max_tokens: maxTokens,
    stream: true,
    stream_options: { include_usage: true },
    ...fields,
  });
  const sentAt = performance.now();
  const response = await fetch(`${origin}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body,
    // a connection left over from the last request may have been closed by the server meanwhile
    keepalive: false,
    signal,
    // Bun ends a fetch after five minutes without data
    ...{ timeout: false },
  });
  if (!response.ok || !response.body) {
    throw new Error(`status ${response.status}: ${(await response.text()).slice(0, 300)}`);
  }
  return { sentAt, response: response.body };
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

function read(
  chunks: readonly { readonly ms: number; readonly bytes: Uint8Array }[],
  sentAt: number,
): Answer {
  const decoder = new TextDecoder();
  const pieceMs: number[] = [];
  let rest = "";
  let text = "";
  let usage: Chunk["usage"];
  let lastMs = Number.NaN;
  for (const { ms, bytes } of chunks) {
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
