/** The default model's words: chat prompts to token ids and greedy tokens to text, as transformers does it. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { ChatRequest, ModelEntry } from "#core/contract";
import { openText, type TextModel } from "#front/text";
import { DEFAULT_MODEL, ensureDefaultModel } from "../../scripts/default-model.ts";
import { ModelText } from "../../src/front/text/model-text.ts";
import { type ChatGolden, readChats, readStrings } from "../helpers/golden.ts";

const EOS = 2;
const WINDOW = { contextWindow: 8192 };

describe("the words of SmolLM2-135M", () => {
  let path = "";
  let text: TextModel;
  beforeAll(async () => {
    path = await ensureDefaultModel();
    const entry: ModelEntry = {
      id: DEFAULT_MODEL,
      path,
      kind: "llm",
      modelType: "llama",
      contextWindow: WINDOW.contextWindow,
      weightBytes: 0,
      created: 0,
    };
    text = await openText(entry);
  });
  afterAll(() => text.dispose());

  test("TextModel.encode() gives transformers' ids for 32 conversations", async () => {
    const chats = await readChats();
    expect(chats.length).toBe(32);
    for (const chat of chats) {
      const { promptIds, stopIds } = await text.encode(requestOf(chat), WINDOW);
      expect([...promptIds]).toEqual([...chat.ids]);
      expect(stopIds).toContain(EOS);
    }
  });

  test("TextModel.reader() gives transformers' text for the greedy tokens, whatever their grouping", async () => {
    for (const [i, chat] of (await readChats()).entries()) {
      const request = requestOf(chat);
      const reader = text.reader(request, await text.encode(request, WINDOW));
      const end = chat.greedy.indexOf(EOS);
      const ids = end < 0 ? chat.greedy : chat.greedy.slice(0, end);
      const size = (i % 3) + 1;
      const events = [];
      for (let at = 0; at < ids.length; at += size) {
        events.push(...reader.read({ kind: "tokens", ids: ids.slice(at, at + size) }));
      }
      events.push(...reader.end());
      const words = events.flatMap((event) => (event.kind === "text" ? [event.text] : []));
      expect(words.join("")).toBe(chat.answer);
    }
  });

  test("Tokenizer.encode() splits digits, spaces, marks and emoji as the model's own tokenizer", async () => {
    const { tokenizer } = new ModelText(DEFAULT_MODEL, path);
    for (const { text: input, ids } of await readStrings()) {
      expect({ input, ids: tokenizer.encode(input) }).toEqual({ input, ids });
    }
  });
});

function requestOf({ messages }: ChatGolden): ChatRequest {
  return {
    model: DEFAULT_MODEL,
    messages: messages.map(({ role, content }) => ({
      role,
      parts: [{ kind: "text", text: content }],
    })),
    tools: [],
    templateKwargs: {},
    sampling: {},
    maxTokens: undefined,
    minTokens: 0,
    ignoreEos: false,
    stop: [],
    topLogprobs: null,
    lane: "interactive",
    toolChoice: { kind: "auto" },
    parallelToolCalls: true,
    format: null,
    thinking: {},
  };
}
