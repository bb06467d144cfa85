import type { Sink } from "./sink.ts";
import type { Parse, Source } from "./source.ts";

/** The texts around a model's thoughts. */
export interface Thoughts {
  readonly begin: string;
  readonly end: string;
}

/** How a call is written where its arguments are JSON, for grammars: begin, arguments by their schema, end. */
export interface CallGrammar {
  /** Around all calls of an answer. */
  readonly open: string;
  readonly close: string;
  /** Between two calls. */
  readonly separator: string;
  /** What leads from free text to a call; null: that cannot be told. */
  readonly trigger: string | null;
  begin(name: string): string;
  readonly end: string;
}

/** What a model writes before its text and its calls, for grammars of whole answers. */
export interface AnswerFrame {
  readonly thoughts: Thoughts;
  readonly text: string;
  readonly calls: string;
}

/** One way of writing tool calls. */
export interface Dialect {
  readonly name: string;
  /** Any of these begins a call. */
  readonly begins: readonly string[];
  /** First characters of an answer that is a call without any marker. */
  readonly bare?: string;
  /** Further texts that are markers where the tokenizer has them as tokens. */
  readonly markers?: readonly string[];
  /** null: calls of this form cannot be forced; the JSON form is used instead. */
  readonly grammar: CallGrammar | null;
  readonly frame?: AnswerFrame;
  /**
   * Reads one or more calls, whose begin was taken. Everything that it takes is text if it throws.
   *
   * @param begin "" for a call without a marker
   * @throws {NotACall}
   */
  read(source: Source, sink: Sink, begin: string): Parse;
  /** Reads the whole answer, for a form that is more than text with markers in it. */
  readAnswer?(source: Source, sink: Sink, form: AnswerForm): Parse;
  /** Results in a conversation need the name of the tool that they came from. */
  readonly namesResults?: boolean;
  /** A call's id as the template wants it in a conversation; the client's own if not given. */
  historyId?(call: { readonly id: string; readonly name: string; readonly index: number }): string;
}

/** How all of an answer is read. */
export interface AnswerForm {
  readonly thoughts: Thoughts | null;
  /** null: calls are text like any other. */
  readonly dialect: Dialect | null;
  readonly startsThinking: boolean;
  /** After the thoughts nothing is markup. */
  readonly isLiteral: boolean;
}
