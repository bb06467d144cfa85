import type { ChatRequest, TokenRequest } from "#core/contract";
import { Detokenizer } from "./detokenizer.ts";
import { readAnswer } from "./dialects/answer.ts";
import type { AnswerForm, Dialect, Thoughts } from "./dialects/dialect.ts";
import type { CallOptions, Sink } from "./dialects/sink.ts";
import { Markers, type Parse, type Source, withoutSentinels } from "./dialects/source.ts";
import { dialectNamed } from "./dialects/table.ts";
import { shapeOf } from "./shape.ts";
import type { Vocabulary } from "./vocabulary.ts";

/** How a model writes what is more than text, as its template and tokenizer tell. */
export interface SpeechFacts {
  /** Name of its dialect. */
  readonly dialect: string;
  readonly thoughts: (Thoughts & { readonly endIds: readonly number[] }) | null;
  /** The texts of both that are tokens. */
  readonly markers: readonly (readonly [text: string, id: number])[];
}

/** How one answer is read. */
export interface Reading {
  readonly markers: Markers;
  readonly calls: CallOptions;
  /** What the client should know about how its request is served. */
  readonly warnings: readonly string[];
  /** A token as the source has it; undefined: it is no marker. */
  markerText(id: number): string | undefined;
  parse(source: Source, sink: Sink): Parse;
  /** Takes all tokens of an answer that came to its end. */
  remember?(ids: readonly number[]): void;
}

const NO_MARKERS = new Markers([]);

/** The answer is text and nothing else. */
export const TEXT_ONLY: Reading = {
  markers: NO_MARKERS,
  calls: { tools: [], isParallel: true },
  warnings: [],
  markerText: () => undefined,
  parse: (source, sink) =>
    readAnswer(source, sink, {
      thoughts: null,
      dialect: null,
      startsThinking: false,
      isLiteral: true,
    }),
};

/** How far from its end a prompt is looked at for open thoughts; an answer to be continued may hold long ones. */
const TAIL_TOKENS = 16;
const TAIL_CONTINUED = 8192;

/** One model's way of writing answers. */
export class Speech {
  readonly #dialect: Dialect;
  readonly #thoughts: SpeechFacts["thoughts"];
  readonly #markers: Markers;
  /** Those of thoughts alone. */
  readonly #thoughtMarkers: Markers;
  readonly #vocabulary: Vocabulary;

  constructor(facts: SpeechFacts, vocabulary: Vocabulary) {
    const { thoughts } = facts;
    this.#dialect = dialectNamed(facts.dialect);
    this.#thoughts = thoughts;
    this.#markers = new Markers(facts.markers);
    this.#thoughtMarkers = new Markers(
      facts.markers.filter(([text]) => text === thoughts?.begin || text === thoughts?.end),
    );
    this.#vocabulary = vocabulary;
  }

  /** What the answer to `request` must look like, whose prompt is given. */
  limits(
    request: ChatRequest,
    promptIds: readonly number[],
  ): Pick<TokenRequest, "constraint" | "thinkingBudget"> {
    const { grammar, strict, param } = shapeOf(request, this.#dialect);
    const isThinking = this.#endsThinking(request, promptIds);
    const endIds = isThinking ? (this.#thoughts?.endIds ?? null) : null;
    const maxTokens = request.thinking.budget;
    return {
      constraint: grammar === null ? null : { grammar, strict, param, after: endIds },
      thinkingBudget: endIds === null || maxTokens === undefined ? null : { maxTokens, endIds },
    };
  }

  /** Whether the prompt ends within thoughts, so that the answer begins with them. */
  #endsThinking(request: ChatRequest, promptIds: readonly number[]): boolean {
    if (this.#thoughts === null) return false;
    const isContinued = request.messages.at(-1)?.role === "assistant";
    const tail = this.#tailOf(promptIds.slice(isContinued ? -TAIL_CONTINUED : -TAIL_TOKENS));
    const begin = this.#markers.find(this.#thoughts.begin.trimEnd());
    const at = tail.lastIndexOf(begin);
    if (at === -1) return false;
    if (!isContinued) return tail.slice(at + begin.length).trim() === "";
    return at > tail.lastIndexOf(this.#markers.find(this.#thoughts.end));
  }

  #tailOf(ids: readonly number[]): string {
    const detokenizer = new Detokenizer(this.#vocabulary);
    const { offsets } = this.#vocabulary;
    return ids
      .map((id) => {
        const isControl = offsets[id] === offsets[id + 1];
        return (
          this.#markers.ofId(id) ?? (isControl ? "\0" : withoutSentinels(detokenizer.push(id)))
        );
      })
      .join("");
  }

  /** How the answer to `request` is read, whose prompt is `prompt`. */
  reading(request: ChatRequest, prompt: TokenRequest): Reading {
    const shape = shapeOf(request, this.#dialect);
    const isShaped = prompt.constraint !== null;
    // a grammar spells the markers of calls as text, so they are looked for as text
    const markers = isShaped ? this.#thoughtMarkers : this.#markers;
    const form: AnswerForm = {
      thoughts: this.#thoughts,
      dialect: shape.dialect,
      startsThinking: this.#endsThinking(request, prompt.promptIds),
      isLiteral: isShaped && shape.dialect === null,
    };
    const parse = this.#dialect.readAnswer ?? readAnswer;
    return {
      markers,
      calls: { tools: request.tools, isParallel: request.parallelToolCalls },
      warnings: shape.warnings,
      markerText: (id) => {
        const known = this.#markers.ofId(id);
        return known === undefined ? undefined : (markers.ofId(id) ?? this.#markers.spell(known));
      },
      parse: (source, sink) => parse(source, sink, form),
    };
  }
}
