import {
  type EncodeEvent,
  type EncodeRequest,
  type ErrorData,
  invalidRequest,
  OmlxError,
  type TokenOutput,
  toErrorData,
} from "#core/contract";
import type { EncodePass, Encoder } from "#device/zoo";
import { EncodeQueue, type QueuedText } from "./encode-queue.ts";

export interface EncodeDeskOptions {
  readonly encoder: Encoder;
  /** Tokens of one text. */
  readonly contextWindow: number;
  /** Wall-clock target of a batch of short texts, and of one unit of work. */
  readonly targetMs: number;
  /** Called before each unit of work with the number of requests in it, and with 0 behind the last one. */
  readonly onUnit: (numRequests: number) => void;
}

/** What one turn gave. */
export interface EncodeResult {
  readonly events: readonly { readonly id: string; readonly events: readonly EncodeEvent[] }[];
  readonly failed: readonly { readonly id: string; readonly error: ErrorData }[];
}

/** A batch's cost has a part that does not depend on its tokens; smaller ones make the whole slower, on busy machines much. */
const MIN_TOKENS = 1024;
/** Activations of more rows do not make anything faster. */
const MAX_TOKENS = 8192;
/** Rows that one unit of work handles at least. */
const MIN_UNIT_ROWS = 256;
/** Messages are taken after so much work. */
const TURN_MS = 50;
/** A batch that takes longer shares the machine with a second one, so that short texts need not wait for a long one. */
const LONG_MS = 250;

/** A batch on its way. */
interface Running {
  readonly texts: readonly QueuedText[];
  readonly pass: EncodePass;
  readonly tokens: number;
  spentMs: number;
}

/**
 * Runs an encoder over the texts of all open requests: batches without padding, cut by time into units of work, between
 * which messages are taken.
 */
export class EncodeDesk {
  readonly #options: EncodeDeskOptions;
  readonly #queue = new EncodeQueue();
  /** At most two; they take turns. */
  #running: Running[] = [];
  /** Tokens per ms; 0: not measured yet. */
  #speed = 0;
  #steps = 0;
  #tokens = 0;

  constructor(options: EncodeDeskOptions) {
    this.#options = options;
  }

  get isIdle(): boolean {
    return this.#queue.isIdle && this.#running.length === 0;
  }

  get stats() {
    const { size, waiting } = this.#queue;
    return { waiting, running: size - waiting, steps: this.#steps, promptTokens: this.#tokens };
  }

  /** @throws {OmlxError} invalid_request, context_length */
  submit(request: EncodeRequest): void {
    this.#check(request);
    this.#queue.submit(request);
  }

  /** Drops a request; false if it is not open. A batch that nobody waits for any more is given up. */
  cancel(id: string): boolean {
    if (!this.#queue.remove(id)) return false;
    this.#running = this.#running.filter((running) => {
      if (running.texts.some(({ request }) => this.#queue.isOpen(request.id))) return true;
      running.pass.dispose();
      return false;
    });
    return true;
  }

  /** Works for a while. Errors that are no OmlxError are thrown. */
  turn(): EncodeResult {
    this.#start();
    const running = this.#running.shift();
    if (!running) return { events: [], failed: [] };
    try {
      const isDone = this.#work(running);
      this.#options.onUnit(0);
      if (!isDone) {
        this.#running.push(running);
        return { events: [], failed: [] };
      }
      return { events: this.#settle(running), failed: [] };
    } catch (error) {
      running.pass.dispose();
      this.#options.onUnit(0);
      if (!(error instanceof OmlxError)) throw error;
      return { events: [], failed: this.#abandon(running, toErrorData(error)) };
    }
  }

  dispose(): void {
    for (const { pass } of this.#running.splice(0)) pass.dispose();
    this.#options.encoder.dispose();
  }

  /** Begins a batch where none runs, or where the one that runs is long. */
  #start(): void {
    const [only] = this.#running;
    if (this.#running.length > 1 || (only && only.spentMs < LONG_MS)) return;
    const texts = this.#queue.next(this.#batchTokens());
    if (texts.length === 0) return;
    const tokens = texts.reduce((sum, { ids }) => sum + ids.length, 0);
    const pass = this.#options.encoder.begin(layOut(texts, tokens), this.#unitRows());
    this.#running.unshift({ texts, pass, tokens, spentMs: 0 });
  }

  #batchTokens(): number {
    const wanted = Math.floor(this.#speed * this.#options.targetMs);
    return Math.min(MAX_TOKENS, Math.max(MIN_TOKENS, wanted));
  }

  #unitRows(): number {
    const { encoder, targetMs } = this.#options;
    return Math.max(MIN_UNIT_ROWS, Math.floor(this.#speed * targetMs * encoder.unitsPerBlock));
  }

  /** Units of work until the turn's time is over; true when the batch is done. */
  #work(running: Running): boolean {
    const begun = performance.now();
    const numRequests = new Set(running.texts.map(({ request }) => request.id)).size;
    let isDone = false;
    while (!isDone && performance.now() - begun < TURN_MS) {
      this.#options.onUnit(numRequests);
      isDone = running.pass.advance();
    }
    running.spentMs += performance.now() - begun;
    return isDone;
  }

  #settle({ texts, pass, tokens, spentMs }: Running): EncodeResult["events"] {
    this.#steps++;
    this.#tokens += tokens;
    this.#learn(tokens, spentMs);
    const { width } = this.#options.encoder;
    let firstToken = 0;
    const placed = texts.map((text, row) => {
      const place = { ...text, row, firstToken };
      firstToken += text.ids.length;
      return place;
    });
    const byRequest = Map.groupBy(placed, ({ request }) => request.id);
    return [...byRequest]
      .filter(([id]) => this.#queue.isOpen(id))
      .map(([id, mine]) => {
        const values = new Float32Array(mine.length * width);
        mine.forEach(({ row }, i) => {
          values.set(pass.rows.subarray(row * width, (row + 1) * width), i * width);
        });
        const indices = Int32Array.from(mine, ({ index }) => index);
        const asked = mine[0]?.request.tokenOutputs ?? [];
        const tokens = Object.fromEntries(
          asked.map((name) => [name, pick(pass.tokens[name], this.#tokenWidth(name), mine)]),
        );
        const isLast = this.#queue.settle(id, mine.length);
        const rows: EncodeEvent = { kind: "rows", texts: indices, values, tokens };
        return { id, events: isLast ? [rows, { kind: "done" }] : [rows] };
      });
  }

  #tokenWidth(name: TokenOutput): number {
    return this.#options.encoder.tokenWidths[name] ?? 0;
  }

  /** A mean over the last batches; the first one, which also pages the weights in, counts least. */
  #learn(tokens: number, ms: number): void {
    if (ms <= 0) return;
    const speed = tokens / ms;
    this.#speed = this.#speed === 0 ? speed : 0.5 * this.#speed + 0.5 * speed;
  }

  #abandon({ texts }: Running, error: ErrorData): EncodeResult["failed"] {
    const ids = [...new Set(texts.map(({ request }) => request.id))];
    return ids.filter((id) => this.#queue.remove(id)).map((id) => ({ id, error }));
  }

  /** Stock MLX reads beyond its tables for an id or a position that the model does not have. */
  #check({ ids, ends, tokenOutputs }: EncodeRequest): void {
    const { encoder, contextWindow } = this.#options;
    const missing = tokenOutputs.find((name) => this.#tokenWidth(name) === 0);
    if (missing !== undefined) throw invalidRequest(`The model has no ${missing} head`);
    const bad = ids.find((id) => id < 0 || id >= encoder.vocabSize);
    if (bad !== undefined) {
      throw invalidRequest(`Cannot read token ${bad}: the model has ${encoder.vocabSize} tokens`);
    }
    let begin = 0;
    for (const end of ends) {
      const numTokens = end - begin;
      if (numTokens < 1) throw invalidRequest("Cannot encode a text without tokens");
      if (numTokens > contextWindow) {
        throw new OmlxError({
          code: "context_length",
          message: `text is too long: ${numTokens} tokens > ${contextWindow} maximum`,
          data: { numTokens, maxTokens: contextWindow },
        });
      }
      begin = end;
    }
  }
}

function layOut(texts: readonly QueuedText[], tokens: number) {
  const ids = new Int32Array(tokens);
  const parts = new Int32Array(tokens);
  const ends = new Int32Array(texts.length);
  let at = 0;
  texts.forEach((text, i) => {
    ids.set(text.ids, at);
    parts.fill(1, at + text.second, at + text.ids.length);
    at += text.ids.length;
    ends[i] = at;
  });
  const asked = texts.flatMap(({ request }) => request.tokenOutputs);
  return { ids, parts, ends, tokenOutputs: [...new Set(asked)] };
}

/** The numbers of some texts' tokens, text after text. */
function pick(
  all: Float32Array | undefined,
  width: number,
  texts: readonly { readonly ids: Int32Array; readonly firstToken: number }[],
): Float32Array {
  const numTokens = texts.reduce((sum, { ids }) => sum + ids.length, 0);
  const out = new Float32Array(numTokens * width);
  let at = 0;
  for (const { ids, firstToken } of texts) {
    const size = ids.length * width;
    out.set(all?.subarray(firstToken * width, firstToken * width + size) ?? [], at);
    at += size;
  }
  return out;
}
