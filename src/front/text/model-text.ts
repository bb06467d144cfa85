import { join } from "node:path";
import { invalidRequest, type ModelKind, OmlxError } from "#core/contract";
import { readJsonFile, readModelFolder } from "#core/formats";
import { type AddedToken, TokenTrie } from "./added-tokens.ts";
import { dialectNamed, dialectOf, thoughtsOf } from "./dialects/table.ts";
import { EncoderText } from "./encoder-text.ts";
import { textOfTokens } from "./logprobs.ts";
import type { EncodedTexts, LoadedText, TextsSource } from "./messages.ts";
import type { SpeechFacts } from "./speech.ts";
import { adapt } from "./template/adapt.ts";
import { type ControlTokens, type Conversation, toTemplateInput } from "./template/conversation.ts";
import { findTemplates, type TemplateSources } from "./template/find.ts";
import { Manners } from "./template/manners.ts";
import { ChatTemplate } from "./template/render.ts";
import { ToolOrder } from "./template/tool-order.ts";
import { Tokenizer } from "./tokenizer.ts";
import { TurnMemory } from "./turn-memory.ts";
import { layoutVocabulary, type Vocabulary } from "./vocabulary.ts";

const NO_VOCABULARY: Vocabulary = {
  bytes: new Uint8Array(),
  offsets: new Uint32Array(1),
  specials: new Map(),
  stripsBlank: false,
};

const WORDLESS = ["cls_token", "eos_token", "pad_token", "unk_token"];

/** One model's tokenizer and chat template; lives in the Worker. */
export class ModelText {
  readonly loaded: LoadedText;
  readonly tokenizer: Tokenizer;
  readonly #modelId: string;
  readonly #controls: ControlTokens;
  readonly #template: ChatTemplate | null;
  readonly #manners: Manners;
  readonly #toolOrder = new ToolOrder();
  readonly #turns = new TurnMemory();
  readonly #encoder: EncoderText | null;

  /**
   * Reads a model folder.
   *
   * @throws {OmlxError} model_load
   */
  constructor(modelId: string, path: string, purpose: ModelKind = "llm") {
    this.#modelId = modelId;
    const file = readJsonFile(join(path, "tokenizer.json"));
    if (file === null) {
      throw new OmlxError({
        code: "model_load",
        message: `Cannot load "${modelId}": tokenizer.json is missing`,
      });
    }
    const config = readJsonFile(join(path, "tokenizer_config.json")) ?? {};
    const names = readJsonFile(join(path, "special_tokens_map.json")) ?? {};
    this.tokenizer = new Tokenizer(file, { ...names, ...config });
    const templates = findTemplates(path, config);
    this.#template =
      templates === null ? null : new ChatTemplate(modelId, templates, this.tokenizer.namedTokens);
    this.#manners = new Manners((messages, tools) => {
      if (this.#template === null) return "";
      const kwargs = {};
      return this.#template.render({ messages, tools, kwargs, marker: "\uFDD0", cut: null });
    });
    const { addedTokens, vocabSize, namedTokens } = this.tokenizer;
    this.#controls = controlsOf(addedTokens, templates);
    const { config: modelConfig, eosIds, generation } = readModelFolder(path);
    const isEncoder = purpose === "embedding" || purpose === "reranker";
    this.#encoder = isEncoder ? new EncoderText(this.tokenizer, modelConfig, path, purpose) : null;
    const eos = this.tokenizer.idOf(namedTokens["eos_token"] ?? "");
    this.loaded = {
      // an encoder's ids are never printed
      vocabulary: isEncoder
        ? NO_VOCABULARY
        : layoutVocabulary(file["decoder"], addedTokens, vocabSize, (id) =>
            this.tokenizer.tokenOf(id),
          ),
      vocabSize,
      eosIds: [...new Set(eos === undefined ? eosIds : [...eosIds, eos])],
      generation,
      addedIds: addedTokens.filter((t) => !t.isSpecial).map((t) => t.id),
      speech: this.#speechOf(templates),
      controls: addedTokens.filter((t) => t.isSpecial).map((t) => [t.content, t.id]),
      newlineIds: this.tokenizer.encode("\n"),
      prompts: [...(this.#encoder?.pipeline?.prompts ?? [])],
      defaultPrompt: this.#encoder?.pipeline?.defaultPrompt ?? null,
      wordlessIds: WORDLESS.flatMap((name) => this.tokenizer.idOf(namedTokens[name] ?? "") ?? []),
    };
  }

  #speechOf(templates: TemplateSources | null): SpeechFacts {
    const { addedTokens } = this.tokenizer;
    const template = `${templates?.default ?? ""}${templates?.toolUse ?? ""}`;
    const ids = new Map(addedTokens.map((token) => [token.content, token.id]));
    const dialect = dialectOf(template);
    const thoughts = thoughtsOf(dialect, template, (text) => ids.has(text));
    const texts = [
      ...dialect.begins,
      ...(dialect.markers ?? []),
      ...(thoughts === null ? [] : [thoughts.begin, thoughts.end]),
    ];
    return {
      dialect: dialect.name,
      thoughts:
        thoughts === null ? null : { ...thoughts, endIds: this.tokenizer.encode(thoughts.end) },
      markers: texts.flatMap((text) => {
        const id = ids.get(text);
        return id === undefined ? [] : [[text, id] as const];
      }),
    };
  }

  /** @throws {OmlxError} invalid_request; context_length for a text that is too long and must not be cut */
  encodeTexts(source: TextsSource): EncodedTexts {
    if (this.#encoder) return this.#encoder.encode(source);
    throw invalidRequest(`Model "${this.#modelId}" generates text and encodes none`, "model");
  }

  /**
   * Renders a conversation.
   *
   * @returns the text, the character that stands before what must not be read as a token, and what was rewritten
   * @throws {OmlxError} invalid_request
   */
  render(asked: Conversation): {
    readonly text: string;
    readonly marker: string;
    readonly notes: readonly string[];
  } {
    if (this.#template === null) {
      throw invalidRequest(
        `Model "${this.#modelId}" has no chat template: use its instruction-tuned variant, or put a chat_template.jinja into its folder`,
        "model",
      );
    }
    const tools = asked.tools.map((tool) => this.#toolOrder.settle(tool));
    const dialect = dialectNamed(this.loaded.speech.dialect);
    const { conversation, notes } = adapt({ ...asked, tools }, this.#manners, dialect);
    const input = toTemplateInput(conversation, this.#controls);
    const text = this.#template.render(input);
    const opens = conversation.opensThoughts === true && input.cut === null;
    return { text: opens ? this.#openThoughts(text) : text, marker: input.marker, notes };
  }

  /** Begins thoughts behind a prompt that neither begins nor rules them out. */
  #openThoughts(text: string): string {
    const { thoughts } = this.loaded.speech;
    if (thoughts === null) return text;
    const tail = text.trimEnd();
    const isSettled = tail.endsWith(thoughts.begin.trimEnd()) || tail.endsWith(thoughts.end);
    return isSettled ? text : `${text}${thoughts.begin.trimEnd()}\n`;
  }

  /**
   * Token ids of a rendered conversation. The template writes its own BOS; none is added. Where the text begins with a
   * prompt and the answer to it, the ids are those that were computed then.
   *
   * @param key of this prompt, for remember(); null: its answer is not awaited
   * @throws {OmlxError} invalid_request
   */
  encode(
    conversation: Conversation,
    key: number | null = null,
  ): { readonly ids: number[]; readonly notes: readonly string[] } {
    const { text, marker, notes } = this.render(conversation);
    const known = this.#turns.find(text);
    const ids =
      known === undefined
        ? this.tokenizer.encode(text, marker)
        : [...known.ids, ...this.tokenizer.encode(text.slice(known.length), marker)];
    if (key !== null) this.#turns.begin(key, text, ids);
    return { ids, notes };
  }

  /** Keeps the answer that the model gave to the prompt of this key. */
  remember(key: number, ids: readonly number[]): void {
    this.#turns.finish(key, textOfTokens(this.loaded.vocabulary, ids), ids);
  }
}

function controlsOf(
  tokens: readonly AddedToken[],
  templates: TemplateSources | null,
): ControlTokens {
  const source = `${templates?.default ?? ""}${templates?.toolUse ?? ""}`;
  const special = tokens.filter((t) => t.isSpecial);
  // Other added tokens may be ordinary words; those that the template writes are not. Blanks are in every template.
  const written = tokens.filter(
    (t) => !t.isSpecial && t.content.trim() !== "" && source.includes(t.content),
  );
  const entries = (list: readonly AddedToken[]) => list.map((t) => [t.content, t] as const);
  return {
    special: new TokenTrie(entries(special)),
    all: new TokenTrie(entries([...special, ...written])),
  };
}
