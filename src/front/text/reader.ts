import type {
  AnswerOptions,
  ChatEvent,
  FinishReason,
  TokenEvent,
  TokenFinish,
  TokenLogprob,
  TokenRequest,
  TokenUsage,
} from "#core/contract";
import { Detokenizer } from "./detokenizer.ts";
import { Sink } from "./dialects/sink.ts";
import { type Parse, Source, withoutSentinels } from "./dialects/source.ts";
import { LogprobQueue, logprobInWords } from "./logprobs.ts";
import { type Reading, TEXT_ONLY } from "./speech.ts";
import { StopFilter } from "./stop-filter.ts";
import type { Vocabulary } from "./vocabulary.ts";

/** Token events of one answer → its chat events. */
export interface Reader {
  /** Events that this token event makes certain. */
  read(event: TokenEvent): Iterable<ChatEvent>;
  /** A stop string was met: nothing more is read. */
  readonly stopped: boolean;
  /** What was held back, then the one "end" event. Called once, after the last token event that is wanted. */
  end(): Iterable<ChatEvent>;
}

/**
 * Detokenizes, tells thoughts and calls from text, then ends the text at the first stop string. However the tokens are
 * spread over events, the answer is the same.
 *
 * @param stopTexts stop strings that are single control tokens, by id: they end the answer downstairs
 * @param reading   how the model writes what is more than text
 */
export function createReader(
  vocabulary: Vocabulary,
  request: Pick<AnswerOptions, "stop">,
  prompt: TokenRequest,
  stopTexts: ReadonlyMap<number, string>,
  reading: Reading = TEXT_ONLY,
): Reader {
  return new TextReader(vocabulary, request, prompt, stopTexts, reading);
}

class TextReader implements Reader {
  readonly #vocabulary: Vocabulary;
  readonly #detokenizer: Detokenizer;
  readonly #filter: StopFilter;
  readonly #reading: Reading;
  readonly #source: Source;
  readonly #sink: Sink;
  readonly #parse: Parse;
  readonly #stopTexts: ReadonlyMap<number, string>;
  readonly #promptTokens: number;
  readonly #logprobs = new LogprobQueue();
  /** UTF-16 units that were fed to the source, and, where someone asks for log-probabilities, code points. */
  #decoded = 0;
  #decodedPoints = 0;
  readonly #ids: number[] = [];
  #cachedTokens = 0;
  #relaxed: string | undefined;
  #numThought = 0;
  #isStarted = false;
  #reason: TokenFinish = "stop";
  #stopId: number | undefined;
  #usage: TokenUsage | undefined;

  constructor(
    vocabulary: Vocabulary,
    request: Pick<AnswerOptions, "stop">,
    prompt: TokenRequest,
    stopTexts: ReadonlyMap<number, string>,
    reading: Reading,
  ) {
    this.#vocabulary = vocabulary;
    this.#detokenizer = new Detokenizer(vocabulary);
    this.#filter = new StopFilter(request.stop);
    this.#reading = reading;
    this.#source = new Source(reading.markers);
    this.#sink = new Sink(this.#source, this.#filter, reading.calls);
    this.#parse = reading.parse(this.#source, this.#sink);
    this.#parse.next(); // up to where it waits for text
    this.#stopTexts = stopTexts;
    this.#promptTokens = prompt.promptIds.length;
  }

  get stopped(): boolean {
    return this.#sink.isDone;
  }

  *read(event: TokenEvent): Generator<ChatEvent> {
    if (event.kind === "prefill") {
      this.#cachedTokens = event.cached ?? this.#cachedTokens;
      this.#relaxed ??= event.relaxed;
    }
    yield* this.#start();
    switch (event.kind) {
      case "prefill":
        break;
      case "tokens":
        for (const [i, id] of event.ids.entries()) {
          if (this.stopped) break; // computed past the end: neither shown nor counted
          this.#readToken(id, event.logprobs?.[i]);
        }
        yield* this.#tell();
        break;
      case "finish":
        if (this.stopped) break;
        this.#reason = event.reason;
        this.#stopId = event.stopId;
        this.#usage = event.usage;
        break;
    }
  }

  *end(): Generator<ChatEvent> {
    yield* this.#start();
    if (!this.stopped) {
      this.#feed(withoutSentinels(this.#detokenizer.end()));
      this.#source.finish(this.#reason);
      this.#parse.next();
      this.#sink.end();
      if (this.#usage !== undefined) this.#reading.remember?.(this.#ids);
    }
    yield* this.#tell();
    const isText = !this.stopped && this.#numThought === 0 && this.#sink.numComplete === 0;
    const rest = isText ? this.#logprobs.takeBefore(Number.POSITIVE_INFINITY) : [];
    if (rest.length > 0) yield { kind: "text", text: "", logprobs: rest };
    yield {
      kind: "end",
      reason: this.#finishReason(),
      stop: this.#filter.found ?? this.#stopTexts.get(this.#stopId ?? -1),
      usage: {
        promptTokens: this.#usage?.promptTokens ?? this.#promptTokens,
        cachedTokens: this.#usage?.cachedTokens ?? this.#cachedTokens,
        completionTokens: this.#usage?.completionTokens ?? this.#ids.length,
        reasoningTokens: this.#numThought,
      },
    };
  }

  *#start(): Generator<ChatEvent> {
    if (this.#isStarted) return;
    this.#isStarted = true;
    yield {
      kind: "start",
      promptTokens: this.#promptTokens,
      cachedTokens: this.#cachedTokens,
      warnings: [
        ...this.#reading.warnings,
        ...(this.#relaxed === undefined ? [] : [this.#relaxed]),
      ],
    };
  }

  #readToken(id: number, logprob: TokenLogprob | undefined): void {
    this.#ids.push(id);
    const wasThought = this.#sink.isThinking;
    const marker = this.#reading.markerText(id);
    if (marker === undefined) {
      const piece = withoutSentinels(this.#detokenizer.push(id));
      if (logprob) {
        const words = logprobInWords(this.#vocabulary, logprob, this.#decodedPoints);
        this.#logprobs.push(this.#decoded, words);
        this.#decodedPoints += [...piece].length;
      }
      this.#feed(piece);
    } else this.#feed(withoutSentinels(this.#detokenizer.end()) + marker);
    if (wasThought || this.#sink.isThinking) this.#numThought++;
  }

  #feed(text: string): void {
    if (text === "") return;
    this.#decoded += text.length;
    this.#source.feed(text);
    this.#parse.next();
  }

  /** What is certain now; text with the log-probabilities of its tokens, those of other tokens are left out. */
  *#tell(): Generator<ChatEvent> {
    for (const { event, end } of this.#sink.drain()) {
      const logprobs = this.#logprobs.takeBefore(end);
      yield event.kind === "text" && logprobs.length > 0 ? { ...event, logprobs } : event;
    }
  }

  #finishReason(): FinishReason {
    const reason = this.stopped ? "stop" : this.#reason;
    return reason === "stop" && this.#sink.numComplete > 0 ? "tool_calls" : reason;
  }
}
