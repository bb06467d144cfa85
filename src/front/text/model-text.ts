import { join } from "node:path";
import { invalidRequest, OmlxError } from "#core/contract";
import { readJsonFile, readModelFolder } from "#core/formats";
import { type AddedToken, TokenTrie } from "./added-tokens.ts";
import { dialectOf, thoughtsOf } from "./dialects/table.ts";
import type { LoadedText } from "./messages.ts";
import type { SpeechFacts } from "./speech.ts";
import { type ControlTokens, type Conversation, toTemplateInput } from "./template/conversation.ts";
import { findTemplates, type TemplateSources } from "./template/find.ts";
import { ChatTemplate } from "./template/render.ts";
import { Tokenizer } from "./tokenizer.ts";
import { layoutVocabulary } from "./vocabulary.ts";

/** One model's tokenizer and chat template; lives in the Worker. */
export class ModelText {
  readonly loaded: LoadedText;
  readonly tokenizer: Tokenizer;
  readonly #modelId: string;
  readonly #controls: ControlTokens;
  readonly #template: ChatTemplate | null;

  /**
   * Reads a model folder.
   *
   * @throws {OmlxError} model_load
   */
  constructor(modelId: string, path: string) {
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
    const { addedTokens, vocabSize, namedTokens } = this.tokenizer;
    this.#controls = controlsOf(addedTokens, templates);
    const { eosIds, generation } = readModelFolder(path);
    const eos = this.tokenizer.idOf(namedTokens["eos_token"] ?? "");
    this.loaded = {
      vocabulary: layoutVocabulary(file["decoder"], addedTokens, vocabSize, (id) =>
        this.tokenizer.tokenOf(id),
      ),
      vocabSize,
      eosIds: [...new Set(eos === undefined ? eosIds : [...eosIds, eos])],
      generation,
      addedIds: addedTokens.filter((t) => !t.isSpecial).map((t) => t.id),
      speech: this.#speechOf(templates),
      controls: addedTokens.filter((t) => t.isSpecial).map((t) => [t.content, t.id]),
      newlineIds: this.tokenizer.encode("\n"),
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

  /**
   * Renders a conversation.
   *
   * @returns the text, and the character that stands before what must not be read as a token
   * @throws {OmlxError} invalid_request
   */
  render(conversation: Conversation): { text: string; marker: string } {
    if (this.#template === null) {
      throw invalidRequest(
        `Model "${this.#modelId}" has no chat template: use its instruction-tuned variant, or put a chat_template.jinja into its folder`,
        "model",
      );
    }
    const input = toTemplateInput(conversation, this.#controls);
    const text = this.#template.render(input);
    const opens = conversation.opensThoughts === true && input.cut === null;
    return { text: opens ? this.#openThoughts(text) : text, marker: input.marker };
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
   * Token ids of a rendered conversation. The template writes its own BOS; none is added.
   *
   * @throws {OmlxError} invalid_request
   */
  encode(conversation: Conversation): number[] {
    const { text, marker } = this.render(conversation);
    return this.tokenizer.encode(text, marker);
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
