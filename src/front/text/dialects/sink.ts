import type { ChatEvent, Tool } from "#core/contract";
import type { StopFilter } from "../stop-filter.ts";
import { NotACall, type Source } from "./source.ts";

/** Which calls an answer may hold. */
export interface CallOptions {
  readonly tools: readonly Tool[];
  /** More than one. */
  readonly isParallel: boolean;
}

/** An event, and where in the source's text its own text ends. */
interface Told {
  readonly event: ChatEvent;
  readonly end: number;
}

/** Arguments that have a first key; what breaks sooner was never told. */
const BEGUN = /^\s*\{\s*"(?:[^"\\]|\\.)*"\s*:/;

interface OpenCall {
  readonly index: number;
  readonly id: string;
  readonly name: string;
  arguments: string;
  /** false: so far it is the same as the call before it, or has no argument yet. */
  isTold: boolean;
}

/**
 * Collects what an answer turns out to be. Text ends at a stop string; calls end after the first one where only one is
 * wanted, and where a model calls the same again and again.
 */
export class Sink {
  readonly #source: Source;
  readonly #stops: StopFilter;
  readonly #tools: ReadonlyMap<string, Tool>;
  readonly #isParallel: boolean;
  #told: Told[] = [];
  #open: OpenCall | undefined;
  #last: { readonly name: string; readonly arguments: string } | undefined;
  #numCalls = 0;
  #isFull = false;
  /** Complete calls. */
  numComplete = 0;
  /** What comes now is thought. */
  isThinking = false;

  constructor(source: Source, stops: StopFilter, { tools, isParallel }: CallOptions) {
    this.#source = source;
    this.#stops = stops;
    this.#tools = new Map(tools.map((tool) => [tool.name, tool]));
    this.#isParallel = isParallel;
  }

  get hasTools(): boolean {
    return this.#tools.size > 0;
  }

  /** Nothing more is wanted. */
  get isDone(): boolean {
    return this.#isFull || this.#stops.found !== undefined;
  }

  knows(spelled: string): boolean {
    return this.#toolOf(spelled) !== undefined;
  }

  /** The events since the last call of this. */
  drain(): readonly Told[] {
    const told = this.#told;
    this.#told = [];
    return told;
  }

  /** @param numBehind characters that were taken from the source behind this text */
  text(text: string, numBehind = 0): void {
    if (this.isDone) return;
    const certain = this.#stops.push(text);
    this.#tell("text", certain, this.#source.position - numBehind - this.#stops.numHeld);
  }

  reasoning(text: string): void {
    if (!this.isDone) this.#tell("reasoning", text, this.#source.position);
  }

  /**
   * Begins a call.
   *
   * @param id the model's own name for this call, where its format has one
   * @throws {NotACall} if there is no such tool
   */
  open(spelled: string, id = `call_${crypto.randomUUID().replaceAll("-", "").slice(0, 24)}`): Tool {
    const tool = this.#toolOf(spelled);
    if (tool === undefined) throw new NotACall();
    const { name } = tool;
    this.#open = { index: this.#numCalls, id, name, arguments: "", isTold: false };
    return tool;
  }

  #toolOf(spelled: string): Tool | undefined {
    return this.#tools.get(spelled) ?? this.#tools.get(spelled.replace(/^functions\./, ""));
  }

  /** The call is not, so far, the same as the one before it. */
  #isNew({ name, arguments: text }: OpenCall): boolean {
    return this.#last?.name !== name || !this.#last.arguments.startsWith(text);
  }

  /** A piece of the open call's arguments. */
  arguments(text: string): void {
    const call = this.#open;
    if (call === undefined || text === "") return;
    call.arguments += text;
    if (call.isTold) this.#tellArguments(call.index, text);
    else if (this.#isNew(call) && BEGUN.test(call.arguments)) this.#announce(call);
  }

  /** The open call is complete. */
  close(): void {
    const call = this.#open;
    if (call === undefined || this.isDone) return;
    this.#open = undefined;
    if (!call.isTold) {
      if (!this.#isNew(call) && this.#last?.arguments === call.arguments) {
        this.#isFull = true;
        return;
      }
      this.#announce(call);
    }
    this.#push({ kind: "callEnd", index: call.index });
    this.#last = { name: call.name, arguments: call.arguments };
    this.numComplete++;
    if (!this.#isParallel) this.#isFull = true;
  }

  /**
   * The open call turned out to be none, or was cut off.
   *
   * @returns whether it was told already
   */
  abandon(): boolean {
    const wasTold = this.#open?.isTold === true;
    this.#open = undefined;
    return wasTold;
  }

  /** The text is complete, unless a stop string was found. */
  end(): void {
    this.#tell("text", this.#stops.end(), this.#source.position);
  }

  #announce(call: OpenCall): void {
    if (this.isDone) return;
    this.#tell("text", this.#stops.end(), this.#source.position);
    call.isTold = true;
    this.#numCalls++;
    this.#push({ kind: "call", index: call.index, id: call.id, name: call.name });
    if (call.arguments !== "") this.#tellArguments(call.index, call.arguments);
  }

  #tellArguments(index: number, text: string): void {
    if (this.isDone) return;
    const last = this.#told.at(-1)?.event;
    const isMore = last?.kind === "arguments" && last.index === index;
    if (isMore) this.#told.pop();
    this.#push({ kind: "arguments", index, text: (isMore ? last.text : "") + text });
  }

  #tell(kind: "text" | "reasoning", text: string, end: number): void {
    if (text === "") return;
    const last = this.#told.at(-1)?.event;
    const isMore = last?.kind === kind;
    if (isMore) this.#told.pop();
    this.#push({ kind, text: (isMore ? last.text : "") + text }, end);
  }

  #push(event: ChatEvent, end = this.#source.position): void {
    this.#told.push({ event, end });
  }
}
