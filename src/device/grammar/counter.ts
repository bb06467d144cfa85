import { includes, type Node, type Rules } from "./ir.ts";

/** Ways to read a text at the same time; further ones are dropped, which only makes the language smaller. */
const MAX_THREADS = 128;
/** Steps of one closure: a rule that begins with itself would go on for ever. */
const MAX_CLOSURE = 4000;
const MAX_STATES = 20_000;
const MAX_FRAMES = 50_000;
const INFINITE = Number.POSITIVE_INFINITY;

/** The counts that XGrammar is not told. */
export interface Loose {
  /** Repetitions that it sees as endless. */
  readonly nodes: ReadonlySet<Node>;
  /** Bytes that can be read from anywhere before one of these counts, when it begins there, can end. */
  readonly free: number;
}

/** What comes after a node. */
interface Frame {
  readonly id: number;
  readonly node: Node;
  /** seq: the next item. repeat: items read when this one ends. length: unused. */
  readonly index: number;
  readonly next: Frame | null;
  /** The "length" around it. */
  readonly length: Extract<Node, { kind: "length" }> | null;
  /** Units up to the end of that length, at least and at most. */
  readonly least: number;
  readonly most: number;
}

/** A place in the grammar where the next character is read. */
interface Thread {
  readonly leaf: Extract<Node, { kind: "text" | "chars" }>;
  /** In a text: UTF-16 index. */
  readonly offset: number;
  readonly next: Frame | null;
  /** Units read in the length around it. */
  readonly units: number;
}

/** After some bytes: everywhere that the text can be in the grammar. Immutable but for what is remembered; no threads and not accepting: nowhere. */
export interface CounterState {
  readonly threads: readonly Thread[];
  readonly isAccepting: boolean;
  /** Bits of a character whose last bytes are still to come. */
  readonly partial: number;
  readonly missing: number;
  /** The least character that needs so many bytes. */
  readonly least: number;
  /** States after one byte, as far as they were asked for; null: none was. */
  after: (CounterState | null | undefined)[] | null;
  /** Tokens of so many bytes are let through or not by XGrammar's mask alone: no count can end within them. */
  readonly free: number;
  /** A count has ended, and XGrammar may still follow a way that it closed. */
  readonly isTight: boolean;
}

/**
 * Follows a grammar with its counts and lengths, byte by byte. XGrammar sees the grammar without them; what both allow is
 * the language.
 *
 * A text is dropped as soon as its counts cannot be met any more, so one that goes on can also be completed.
 */
export class Counter {
  readonly #rules: Rules;
  readonly #ids = new Map<Node, number>();
  readonly #bounds = new Map<Node, readonly [number, number]>();
  readonly #frames = new Map<string, Frame>();
  readonly #states = new Map<string, CounterState>();
  #numFrames = 0;
  /** Of the closure that is being made: a count ends here; one ended here or before. */
  #isBound = false;
  #isTight = false;
  readonly start: CounterState;

  readonly #loose: Loose;

  /** @param loose what XGrammar is not told */
  constructor(root: Node, rules: Rules, loose: Loose) {
    this.#rules = rules;
    this.#loose = loose;
    this.start = this.#close([{ node: root, next: null, units: 0 }], [], false);
  }

  /** null: no text of the grammar begins like this. */
  step(state: CounterState, byte: number): CounterState | null {
    const known = state.after?.[byte];
    if (known !== undefined) return known;
    const after = this.#step(state, byte);
    state.after ??= new Array(256);
    state.after[byte] = after;
    return after;
  }

  /** States that are remembered; each takes some kB. */
  get numStates(): number {
    return this.#states.size;
  }

  /** Forgets where texts led: the next one finds it out again, and one that is being read goes on. */
  forget(): void {
    this.#states.clear();
    this.#frames.clear();
    this.start.after = null; // all others are reached through it
  }

  #freeOf(threads: readonly Thread[]): number {
    let free = this.#loose.free;
    for (const { next, units } of threads) {
      for (let frame = next; frame !== null && free > 0; frame = frame.next) {
        const { node, index } = frame;
        if (node.kind === "length") {
          free = units < node.min ? 0 : Math.min(free, node.max - units);
        } else if (node.kind === "repeat" && this.#loose.nodes.has(node)) {
          free = index < node.min ? 0 : Math.min(free, node.max - index);
        }
      }
    }
    return free;
  }

  #step(state: CounterState, byte: number): CounterState | null {
    if (state.missing > 0) {
      if (byte >> 6 !== 2) return null;
      const partial = (state.partial << 6) | (byte & 63);
      return state.missing === 1
        ? this.#advance(state, partial)
        : this.#partly(state, partial, state.missing - 1, state.least);
    }
    if (byte < 0x80) return this.#advance(state, byte);
    if (byte < 0xc2 || byte > 0xf4) return null;
    if (byte < 0xe0) return this.#partly(state, byte & 31, 1, 0x80);
    if (byte < 0xf0) return this.#partly(state, byte & 15, 2, 0x800);
    return this.#partly(state, byte & 7, 3, 0x10000);
  }

  #partly(
    state: CounterState,
    partial: number,
    missing: number,
    least: number,
  ): CounterState | null {
    const from = Math.max(least, partial << (6 * missing));
    const to = (partial << (6 * missing)) | ((1 << (6 * missing)) - 1);
    const threads = state.threads.filter(({ leaf, offset }) => {
      if (leaf.kind === "chars") return leaf.ranges.some(([a, b]) => a <= to && b >= from);
      const code = leaf.text.codePointAt(offset) as number;
      return code >= from && code <= to;
    });
    if (threads.length === 0) return null;
    const { isTight } = state;
    const key = `${partial} ${missing} ${least} ${isTight} ${this.#keyOf(threads, [])}`;
    return this.#remember(key, () => ({
      threads,
      isAccepting: false,
      partial,
      missing,
      least,
      after: null,
      free: isTight ? 0 : this.#freeOf(threads),
      isTight,
    }));
  }

  #advance(state: CounterState, code: number): CounterState | null {
    const going: Thread[] = [];
    const done: Pending[] = [];
    for (const thread of state.threads) {
      const { leaf, offset, next, units } = thread;
      if (leaf.kind === "chars") {
        if (includes(leaf.ranges, code)) done.push({ node: null, next, units });
        continue;
      }
      if (leaf.text.codePointAt(offset) !== code) continue;
      const end = offset + (code > 0xffff ? 2 : 1);
      if (end < leaf.text.length) going.push({ ...thread, offset: end });
      else done.push({ node: null, next, units });
    }
    if (going.length === 0 && done.length === 0) return null;
    const key = `${state.isTight} ${this.#keyOf(going, done)}`;
    const after = this.#remember(key, () => this.#close(done, going, state.isTight));
    return after.threads.length === 0 && !after.isAccepting ? null : after;
  }

  /** Tells what a state is made of. */
  #keyOf(going: readonly Thread[], done: readonly Pending[]): string {
    let key = "";
    for (const { leaf, offset, next, units } of going)
      key += `${this.#idOf(leaf)}:${offset}:${next?.id ?? ""}:${units},`;
    for (const { next, units } of done) key += `;${next?.id ?? ""}:${units}`;
    return key;
  }

  /** Equal states are one object, so that what follows them is found out once. */
  #remember(key: string, make: () => CounterState): CounterState {
    const known = this.#states.get(key);
    if (known !== undefined) return known;
    if (this.#states.size >= MAX_STATES) this.forget();
    const state = make();
    this.#states.set(key, state);
    return state;
  }

  /** Everything that can be reached without reading. */
  #close(pending: readonly Pending[], going: readonly Thread[], wasTight: boolean): CounterState {
    const threads = [...going];
    let isAccepting = false;
    this.#isBound = false;
    this.#isTight = wasTight;
    const seen = new Set<string>();
    // First in, first out: of a rule that begins with itself the shortest readings come first.
    const queue = [...pending];
    for (let at = 0; at < queue.length && at < MAX_CLOSURE; at++) {
      const { node, next, units } = queue[at] as Pending;
      const key = `${node === null ? "" : this.#idOf(node)} ${next?.id ?? ""} ${units}`;
      if (seen.has(key)) continue;
      seen.add(key);
      if (node === null) {
        if (next === null) isAccepting = true;
        else this.#leave(next, units, queue);
      } else this.#enter(node, next, units, queue, threads);
    }
    if (this.#frames.size > MAX_FRAMES) this.#frames.clear(); // those in use live on in the threads
    return {
      threads,
      isAccepting,
      partial: 0,
      missing: 0,
      least: 0,
      after: null,
      free: this.#isBound || this.#isTight ? 0 : this.#freeOf(threads),
      isTight: this.#isTight,
    };
  }

  #enter(node: Node, next: Frame | null, units: number, queue: Pending[], threads: Thread[]): void {
    const around = next?.length ?? null;
    if (around !== null) {
      const [least, most] = this.#unitsOf(node);
      if (
        units + least + (next as Frame).least > around.max ||
        units + most + (next as Frame).most < around.min
      ) {
        this.#bind(around);
        return;
      }
    }
    switch (node.kind) {
      case "text":
        if (node.text === "") queue.push({ node: null, next, units });
        else if (threads.length < MAX_THREADS) threads.push({ leaf: node, offset: 0, next, units });
        return;
      case "chars":
        if (threads.length < MAX_THREADS) threads.push({ leaf: node, offset: 0, next, units });
        return;
      case "seq":
        this.#enterItem(node, 0, next, units, queue);
        return;
      case "alt":
        for (const item of node.items) queue.push({ node: item, next, units });
        return;
      case "repeat":
        if (node.min === 0) queue.push({ node: null, next, units });
        if (node.max > 0) queue.push({ node: node.item, next: this.#frame(node, 1, next), units });
        return;
      case "rule":
        queue.push({ node: this.#rules.get(node.name), next, units });
        return;
      case "unit":
        queue.push({ node: node.item, next, units: units + (around === null ? 0 : 1) });
        return;
      case "length":
        queue.push({ node: node.item, next: this.#frame(node, 0, next), units: 0 });
        return;
      case "loose":
        queue.push({ node: node.exact, next, units });
        return;
    }
  }

  #enterItem(
    node: Extract<Node, { kind: "seq" }>,
    index: number,
    next: Frame | null,
    units: number,
    queue: Pending[],
  ): void {
    const item = node.items[index];
    if (item === undefined) queue.push({ node: null, next, units });
    else {
      const isLast = index + 1 === node.items.length;
      queue.push({ node: item, next: isLast ? next : this.#frame(node, index + 1, next), units });
    }
  }

  #leave(frame: Frame, units: number, queue: Pending[]): void {
    const { node, index, next } = frame;
    switch (node.kind) {
      case "seq":
        this.#enterItem(node, index, next, units, queue);
        return;
      case "repeat": {
        if (index >= node.min) queue.push({ node: null, next, units });
        if (index < node.max)
          queue.push({ node: node.item, next: this.#frame(node, index + 1, next), units });
        else this.#bind(node);
        return;
      }
      case "length":
        if (units >= node.min && units <= node.max) queue.push({ node: null, next, units: 0 });
        else this.#bind(node);
        return;
      default:
        throw new Error(`nothing comes after a part of ${node.kind}`);
    }
  }

  /** A way ends here by a count alone. */
  #bind(node: Extract<Node, { kind: "repeat" | "length" }>): void {
    if (node.kind === "repeat" && !this.#loose.nodes.has(node)) return;
    this.#isBound = true;
    if (node.isApart !== true) this.#isTight = true;
  }

  #frame(node: Node, at: number, next: Frame | null): Frame {
    // Where there is no end, counts above the least one are all the same.
    const index =
      node.kind === "repeat" && node.max === INFINITE ? Math.min(at, Math.max(1, node.min)) : at;
    const key = `${this.#idOf(node)} ${index} ${next?.id ?? ""}`;
    const known = this.#frames.get(key);
    if (known !== undefined) return known;
    const own = this.#restOf(node, index);
    const frame: Frame = {
      id: this.#numFrames++,
      node,
      index,
      next,
      length: node.kind === "length" ? node : (next?.length ?? null),
      least: own[0] + (node.kind === "length" ? 0 : (next?.least ?? 0)),
      most: own[1] + (node.kind === "length" ? 0 : (next?.most ?? 0)),
    };
    this.#frames.set(key, frame);
    return frame;
  }

  /** Units that a frame itself still reads. */
  #restOf(node: Node, index: number): readonly [number, number] {
    if (node.kind === "seq") return sum(node.items.slice(index).map((item) => this.#unitsOf(item)));
    if (node.kind === "repeat") {
      const [least, most] = this.#unitsOf(node.item);
      return [times(Math.max(0, node.min - index), least), times(node.max - index, most)];
    }
    return [0, 0];
  }

  /** Units that a node reads, at least and at most. */
  #unitsOf(node: Node): readonly [number, number] {
    const known = this.#bounds.get(node);
    if (known !== undefined) return known;
    this.#bounds.set(node, [0, INFINITE]); // for rules that contain themselves
    const bounds = this.#measure(node);
    this.#bounds.set(node, bounds);
    return bounds;
  }

  #measure(node: Node): readonly [number, number] {
    switch (node.kind) {
      case "text":
      case "chars":
      case "length":
        return [0, 0];
      case "unit":
        return [1, 1];
      case "seq":
        return sum(node.items.map((item) => this.#unitsOf(item)));
      case "alt": {
        const all = node.items.map((item) => this.#unitsOf(item));
        return [Math.min(...all.map((b) => b[0])), Math.max(...all.map((b) => b[1]))];
      }
      case "repeat": {
        const [least, most] = this.#unitsOf(node.item);
        return [times(node.min, least), times(node.max, most)];
      }
      case "rule":
        return [0, INFINITE];
      case "loose":
        return this.#unitsOf(node.exact);
    }
  }

  #idOf(node: Node): number {
    const known = this.#ids.get(node);
    if (known !== undefined) return known;
    this.#ids.set(node, this.#ids.size);
    return this.#ids.size - 1;
  }
}

interface Pending {
  /** null: the node before `next` ends here. */
  readonly node: Node | null;
  readonly next: Frame | null;
  readonly units: number;
}

const sum = (bounds: readonly (readonly [number, number])[]): [number, number] => [
  bounds.reduce((total, [least]) => total + least, 0),
  bounds.reduce((total, [, most]) => total + most, 0),
];

const times = (count: number, size: number): number =>
  count === 0 || size === 0 ? 0 : count * size;

/** Makes the first of some counters forget, until all together remember so many states at most. */
export function trim(counters: readonly Counter[], maxStates: number): void {
  let total = counters.reduce((sum, { numStates }) => sum + numStates, 0);
  for (const counter of counters) {
    if (total <= maxStates) return;
    total -= counter.numStates;
    counter.forget();
  }
}

/** Whether counts and lengths rule out every text from the start. */
export function isEmptyLanguage(node: Node, rules: Rules): boolean {
  const { start } = new Counter(node, rules, { nodes: new Set(), free: 0 });
  return start.threads.length === 0 && !start.isAccepting;
}
