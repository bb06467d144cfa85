import { OmlxError } from "#core/contract";

/** Renders messages and tools as a template gets them. */
export type Render = (
  messages: readonly Readonly<Record<string, unknown>>[],
  tools: readonly unknown[] | null,
) => string;

/** Words that stand in no template. */
const WORDS = {
  a: "zqa1",
  b: "zqb2",
  c: "zqc3",
  system: "zqs4",
  tool: "zqt5",
  value: "zqv6",
  result: "zqr7",
};

const user = (content: string) => ({ role: "user", content });
const assistant = (content: string) => ({ role: "assistant", content });

const ID = "zqcall001";
const CALL = {
  id: ID,
  type: "function",
  function: { name: WORDS.tool, arguments: { key: WORDS.value } },
};
/** A question, a call and its result. */
const CALLED = [
  user(WORDS.a),
  { role: "assistant", content: "", tool_calls: [CALL] },
  { role: "tool", content: WORDS.result, tool_call_id: ID, name: WORDS.tool },
];

/** What a chat template can render, found out by small conversations, each the first time that it matters. */
export class Manners {
  readonly #render: Render;
  readonly #known = new Map<string, boolean>();

  constructor(render: Render) {
    this.#render = render;
  }

  /** A system message at the front. */
  get takesSystem(): boolean {
    return this.#shows(
      "system",
      [{ role: "system", content: WORDS.system }, user(WORDS.a)],
      [WORDS.system, WORDS.a],
    );
  }

  /** System messages at their places later on. */
  get keepsSystem(): boolean {
    const messages = [
      user(WORDS.a),
      assistant(WORDS.b),
      { role: "system", content: WORDS.system },
      user(WORDS.c),
    ];
    return this.#shows("later system", messages, [WORDS.a, WORDS.b, WORDS.system, WORDS.c]);
  }

  /** Two messages of one role in a row. */
  get takesRuns(): boolean {
    return (
      this.#shows("users", [user(WORDS.a), user(WORDS.b)], [WORDS.a, WORDS.b]) &&
      this.#shows(
        "assistants",
        [user(WORDS.a), assistant(WORDS.b), assistant(WORDS.c), user(WORDS.tool)],
        [WORDS.a, WORDS.b, WORDS.c, WORDS.tool],
      )
    );
  }

  /** The request's tools. */
  get showsTools(): boolean {
    return this.#shows("tools", [user(WORDS.a)], [WORDS.tool], true);
  }

  /** The assistant's calls and their results. */
  get showsCalls(): boolean {
    return this.#shows("calls", CALLED, [WORDS.value, WORDS.result], true);
  }

  /** A user's turn directly after a result. */
  get takesTalkAfterResults(): boolean {
    const messages = [...CALLED, user(WORDS.c)];
    return this.#shows("talk after results", messages, [WORDS.value, WORDS.result, WORDS.c], true);
  }

  /** Whether a rendering holds these words in this order. */
  #shows(
    name: string,
    messages: readonly Readonly<Record<string, unknown>>[],
    words: readonly string[],
    hasTools = false,
  ): boolean {
    const known = this.#known.get(name);
    if (known !== undefined) return known;
    const places = this.#places(messages, words, hasTools);
    const shows = places.every((place, i) => place >= 0 && place >= (places[i - 1] ?? 0));
    this.#known.set(name, shows);
    return shows;
  }

  #places(
    messages: readonly Readonly<Record<string, unknown>>[],
    words: readonly string[],
    hasTools: boolean,
  ): number[] {
    const parameters = { type: "object", properties: { key: { type: "string" } } };
    const tool = { name: WORDS.tool, description: "", parameters };
    try {
      const tools = hasTools ? [{ type: "function", function: tool }] : null;
      const text = this.#render(messages, tools);
      return words.map((word) => text.lastIndexOf(word));
    } catch (error) {
      if (error instanceof OmlxError) return [-1]; // refused
      throw error;
    }
  }
}
