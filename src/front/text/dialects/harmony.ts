import type { AnswerForm, Dialect } from "./dialect.ts";
import { readArguments } from "./json.ts";
import type { Sink } from "./sink.ts";
import { CutOff, NotACall, type Parse, type Source } from "./source.ts";

const START = "<|start|>";
const CHANNEL = "<|channel|>";
const CONSTRAIN = "<|constrain|>";
const MESSAGE = "<|message|>";
const ENDS = ["<|end|>", "<|call|>", "<|return|>"];

interface Header {
  readonly channel: string;
  /** Whom the message is for: the tool that is called. */
  readonly recipient: string;
}

/** Reads what stands before a message's text: role, channel, recipient and content type, in any order. */
function* readHeader(source: Source): Parse<Header | null> {
  let channel = "";
  let recipient = "";
  let part = "";
  for (;;) {
    const stop = yield* source.until([START, CHANNEL, CONSTRAIN, MESSAGE, ...ENDS], (text) => {
      part += text;
    });
    recipient ||= recipientIn(part);
    if (channel === CHANNEL) channel = part.trim().split(/\s/)[0] ?? "";
    part = "";
    if (stop === null) return null;
    if (stop === CHANNEL) channel = CHANNEL;
    if (stop !== MESSAGE) continue;
    return { channel, recipient };
  }
}

const recipientIn = (part: string): string => /(?:^|\s)to=(.+)$/s.exec(part.trimEnd())?.[1] ?? "";

/** Tells a message's text to its end. */
function* readBody(source: Source, tell: (text: string) => void): Parse<boolean> {
  return (yield* source.until([...ENDS, START, CHANNEL], tell)) !== null;
}

/** The whole answer is messages in channels: analysis is thought, final is text, commentary is text or a call. */
function* readHarmony(source: Source, sink: Sink, form: AnswerForm): Parse {
  for (;;) {
    const header = yield* readHeader(source);
    if (header === null) return;
    const { channel, recipient } = header;
    sink.isThinking = channel === "analysis" && recipient === "";
    if (recipient !== "" && sink.hasTools && form.dialect !== null) {
      source.mark();
      try {
        // a content type may follow without a mark of its own
        sink.open(sink.knows(recipient) ? recipient : (recipient.split(/\s/)[0] ?? ""));
        yield* readArguments(source, (text) => sink.arguments(text));
        yield* source.blank();
        if (source.rest === "" && source.ended === "length") throw source.missing();
        sink.close();
        source.keep();
        if (!(yield* readBody(source, () => {}))) return;
        continue;
      } catch (error) {
        sink.abandon();
        if (error instanceof CutOff) return;
        if (!(error instanceof NotACall)) throw error;
        source.rewind();
      }
    }
    const tell = sink.isThinking
      ? (text: string) => sink.reasoning(text)
      : (text: string) => sink.text(text);
    if (!(yield* readBody(source, tell))) return;
  }
}

/** gpt-oss. */
export const harmony: Dialect = {
  name: "harmony",
  begins: [],
  markers: [START, CHANNEL, CONSTRAIN, MESSAGE, ...ENDS],
  grammar: {
    open: "",
    close: "",
    separator: "",
    trigger: null,
    begin: (name) => `${CHANNEL}commentary to=functions.${name} ${CONSTRAIN}json${MESSAGE}`,
    end: "",
  },
  frame: {
    thoughts: { begin: `${CHANNEL}analysis${MESSAGE}`, end: "<|end|>" },
    text: `${START}assistant${CHANNEL}final${MESSAGE}`,
    calls: `${START}assistant`,
  },
  namesResults: true,
  read: () => {
    throw new NotACall(); // no marker begins a call
  },
  readAnswer: readHarmony,
};
