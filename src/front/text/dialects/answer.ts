import type { AnswerForm, Dialect } from "./dialect.ts";
import type { Sink } from "./sink.ts";
import { CutOff, NotACall, type Parse, type Source } from "./source.ts";

/** A model that fails so often does not call. */
const MAX_FAILURES = 64;

/** Tells text without the white space at its borders, as far as these are known. */
class Words {
  readonly #tell: (text: string, numBehind: number) => void;
  readonly #mayBreak: boolean;
  #blank = "";
  /** White space that comes first is left out. */
  #trims: boolean;
  /** Anything but white space was told. */
  hasSaid = false;

  /** @param mayBreak a border may come at any place, not only at the beginning */
  constructor(tell: (text: string, numBehind: number) => void, mayBreak: boolean, trims: boolean) {
    this.#tell = tell;
    this.#mayBreak = mayBreak;
    this.#trims = trims;
  }

  /** White space that may lie at a border is held back. */
  write(text: string): void {
    const all = this.#blank + (this.#trims ? text.trimStart() : text);
    const words = all.trimEnd();
    const told = words !== "" && !this.#mayBreak ? all : words;
    this.#blank = all.slice(told.length);
    if (told === "") return;
    this.#trims = false;
    this.hasSaid = true;
    this.#tell(told, this.#blank.length);
  }

  /** A border was reached: what is held back is left out, and what comes next begins anew. */
  cut(): void {
    this.#blank = "";
    this.#trims = true;
    this.hasSaid = false;
  }

  /** The end: what is held back is text after all. */
  end(): void {
    if (this.#blank !== "") this.#tell(this.#blank, 0);
    this.#blank = "";
  }
}

/**
 * Reads an answer that is text with marked thoughts and calls.
 *
 * Thoughts begin where nothing else was said since the last border; elsewhere their marker is a word. A call's marker
 * within thoughts ends them if a call follows. What only looks like a call is text.
 */
export function* readAnswer(source: Source, sink: Sink, form: AnswerForm): Parse {
  const { thoughts, isLiteral } = form;
  let dialect = sink.hasTools && !isLiteral ? form.dialect : null;
  let failures = 0;
  const text = new Words(
    (words, numBehind) => sink.text(words, numBehind),
    dialect !== null,
    false,
  );
  const reasoning = new Words((words) => sink.reasoning(words), true, true);
  sink.isThinking = form.startsThinking;
  let hasThought = form.startsThinking;

  /** Tries to read calls; else their begin is text. */
  function* tryCall(calls: Dialect, begin: string, words: Words): Parse<boolean> {
    source.mark();
    try {
      yield* calls.read(source, sink, begin);
      source.keep();
      return true;
    } catch (error) {
      const wasTold = sink.abandon();
      const isCut = error instanceof CutOff;
      if (isCut && (begin !== "" || wasTold)) {
        source.keep();
        return true;
      }
      if (!isCut && !(error instanceof NotACall)) throw error;
      if (source.rewind()) return true; // calls came before it
      words.write(begin === "" ? source.take(1) : begin);
      if (++failures >= MAX_FAILURES) dialect = null;
      return false;
    }
  }

  for (;;) {
    const begins = dialect?.begins ?? [];
    if (sink.isThinking) {
      const { begin, end } = thoughts ?? { begin: "", end: "" };
      const stop = yield* source.until([end, begin, ...begins], (words) => reasoning.write(words));
      if (stop === null) return;
      if (stop === begin) {
        // a model may repeat what its prompt began with; later it is a word
        if (reasoning.hasSaid) reasoning.write(stop);
        continue;
      }
      const isCall = stop !== end && dialect !== null;
      if (isCall && !(yield* tryCall(dialect as Dialect, stop, reasoning))) continue;
      reasoning.cut();
      text.cut();
      sink.isThinking = false;
      continue;
    }
    if (!text.hasSaid && dialect?.bare !== undefined) {
      text.write(yield* source.blank());
      const first = yield* source.peek();
      if (first !== "" && dialect.bare.includes(first)) {
        if (yield* tryCall(dialect, "", text)) text.cut();
        continue;
      }
    }
    const borders =
      thoughts === null || (isLiteral && hasThought) ? [] : [thoughts.begin, thoughts.end];
    const stop = yield* source.until([...begins, ...borders], (words) => text.write(words));
    if (stop === null) break;
    if (dialect !== null && begins.includes(stop)) {
      if (yield* tryCall(dialect, stop, text)) text.cut();
    } else if (stop === thoughts?.begin && !text.hasSaid) {
      text.cut();
      sink.isThinking = true;
      hasThought = true;
    } else if (stop === thoughts?.end && !hasThought && !isLiteral) {
      text.cut(); // the end of thoughts that were never begun
      hasThought = true;
    } else {
      text.write(stop);
      hasThought = true; // the answer speaks of its own markup: what follows are words, too
    }
  }
  text.end();
}
