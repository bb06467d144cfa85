import type {
  AnswerOptions,
  ChatEvent,
  FinishReason,
  TokenEvent,
  TokenRequest,
  TokenUsage,
} from "#core/contract";
import { Detokenizer } from "./detokenizer.ts";
import { LogprobQueue, logprobInWords } from "./logprobs.ts";
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
 * Detokenizes, then ends the text at the first stop string. However the tokens are spread over events, the text is the
 * same.
 *
 * @param stopTexts stop strings that are single control tokens, by id: they end the answer downstairs
 */
export function createReader(
  vocabulary: Vocabulary,
  request: Pick<AnswerOptions, "stop">,
  prompt: TokenRequest,
  stopTexts: ReadonlyMap<number, string>,
): Reader {
  return new TextReader(vocabulary, request, prompt, stopTexts);
}

class TextReader implements Reader {
  readonly #vocabulary: Vocabulary;
  readonly #detokenizer: Detokenizer;
  readonly #filter: StopFilter;
  readonly #stopTexts: ReadonlyMap<number, string>;
  readonly #promptTokens: number;
  readonly #logprobs = new LogprobQueue();
  /** Characters that came out of the detokenizer, and those that were told. */
  #decoded = 0;
  #told = 0;
  #cachedTokens = 0;
  #numTokens = 0;
  #isStarted = false;
  #reason: FinishReason = "stop";
  #stopId: number | undefined;
  #usage: TokenUsage | undefined;

  constructor(
    vocabulary: Vocabulary,
    request: Pick<AnswerOptions, "stop">,
    prompt: TokenRequest,
    stopTexts: ReadonlyMap<number, string>,
  ) {
    this.#vocabulary = vocabulary;
    this.#detokenizer = new Detokenizer(vocabulary);
    this.#filter = new StopFilter(request.stop);
    this.#stopTexts = stopTexts;
    this.#promptTokens = prompt.promptIds.length;
  }

  get stopped(): boolean {
    return this.#filter.found !== undefined;
  }

  *read(event: TokenEvent): Generator<ChatEvent> {
    if (event.kind === "prefill") this.#cachedTokens = event.cached ?? this.#cachedTokens;
    yield* this.#start();
    switch (event.kind) {
      case "prefill":
        break;
      case "tokens":
        yield* this.#readTokens(event);
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
    // the detokenizer's rest may complete a stop string, the filter's rest cannot
    yield* this.#say(this.#filter.push(this.#detokenizer.end()) + this.#filter.end());
    const rest = this.stopped ? [] : this.#logprobs.takeBefore(Number.POSITIVE_INFINITY);
    if (rest.length > 0) yield { kind: "text", text: "", logprobs: rest };
    const stop = this.#filter.found ?? this.#stopTexts.get(this.#stopId ?? -1);
    yield {
      kind: "end",
      reason: this.stopped ? "stop" : this.#reason,
      stop,
      usage: {
        promptTokens: this.#usage?.promptTokens ?? this.#promptTokens,
        cachedTokens: this.#usage?.cachedTokens ?? this.#cachedTokens,
        completionTokens: this.#usage?.completionTokens ?? this.#numTokens,
        reasoningTokens: 0,
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
      warnings: [],
    };
  }

  *#readTokens({ ids, logprobs }: Extract<TokenEvent, { kind: "tokens" }>): Generator<ChatEvent> {
    let text = "";
    for (const [i, id] of ids.entries()) {
      if (this.stopped) break; // computed past the stop string: neither shown nor counted
      this.#numTokens++;
      const logprob = logprobs?.[i];
      if (logprob) this.#logprobs.push(this.#decoded, logprobInWords(this.#vocabulary, logprob));
      const piece = this.#detokenizer.push(id);
      this.#decoded += piece.length;
      text += this.#filter.push(piece);
    }
    yield* this.#say(text);
  }

  *#say(text: string): Generator<ChatEvent> {
    if (text === "") return;
    this.#told += text.length;
    const logprobs = this.#logprobs.takeBefore(this.#told);
    yield logprobs.length > 0 ? { kind: "text", text, logprobs } : { kind: "text", text };
  }
}
