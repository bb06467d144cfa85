import {
  Tokenizer as Pipeline,
  PrecompiledNormalizer,
  SequenceNormalizer,
} from "@huggingface/tokenizers";
import { OmlxError } from "#core/contract";
import { isObject, type JsonObject } from "#core/formats";
import { type AddedToken, splitAtTokens, TokenTrie } from "./added-tokens.ts";
import { Charsmap } from "./charsmap.ts";

/**
 * Text → token ids, for one model. Added tokens are found here; normalizing, splitting and merging are the library's.
 */
export class Tokenizer {
  readonly addedTokens: readonly AddedToken[];
  /** tokenizer_config.json's bos_token, eos_token, unk_token, pad_token, sep_token and cls_token. */
  readonly namedTokens: Readonly<Record<string, string>>;
  readonly #pipeline: Pipeline;
  readonly #model: NonNullable<Pipeline["model"]>;
  readonly #plain: TokenTrie;
  readonly #normalized: TokenTrie;
  readonly #byContent: ReadonlyMap<string, AddedToken>;
  /** What the tokenizer itself puts around a raw text. */
  readonly #prefix: readonly number[];
  readonly #suffix: readonly number[];
  /** What it puts before, between and after two texts. */
  readonly #pair: Frame;

  /**
   * @param file   tokenizer.json
   * @param config tokenizer_config.json, {} if there is none
   * @throws {OmlxError} model_load
   */
  constructor(file: JsonObject, config: JsonObject) {
    const added = addedTokensOf(file, config);
    try {
      this.#pipeline = new Pipeline(
        {
          decoder: null,
          post_processor: null,
          ...file,
          normalizer: file["normalizer"] ?? null,
          pre_tokenizer: exactPreTokenizer(file["pre_tokenizer"] ?? null),
          added_tokens: added,
        },
        {},
      );
      makeExact(this.#pipeline.normalizer);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new OmlxError(
        { code: "model_load", message: `Cannot read tokenizer.json: ${reason}` },
        { cause: error },
      );
    }
    const { model, normalizer } = this.#pipeline;
    if (model === null) {
      throw new OmlxError({
        code: "model_load",
        message: "Cannot read tokenizer.json: it has no model",
      });
    }
    this.#model = model;
    const isNormalized = (token: AddedTokenEntry) => token.normalized && normalizer !== null;
    this.addedTokens = added.map((token) => ({
      id: token.id,
      content: token.content,
      spelling: isNormalized(token)
        ? (normalizer?.normalize(token.content) ?? token.content)
        : token.content,
      isSpecial: token.special,
      stripsLeft: token.lstrip,
      stripsRight: token.rstrip,
      isSingleWord: token.single_word,
      isNormalized: isNormalized(token),
    }));
    this.#byContent = new Map(this.addedTokens.map((token) => [token.content, token]));
    const trieOf = (tokens: readonly AddedToken[]) =>
      new TokenTrie(tokens.map((token) => [token.spelling, token] as const));
    this.#plain = trieOf(this.addedTokens.filter((token) => !token.isNormalized));
    this.#normalized = trieOf(this.addedTokens.filter((token) => token.isNormalized));
    this.namedTokens = namedTokensOf(config);
    const around = this.#around(config["add_bos_token"] === true);
    this.#prefix = around.prefix;
    this.#suffix = around.suffix;
    this.#pair = this.#aroundPair();
  }

  /** Highest id + 1. */
  get vocabSize(): number {
    return this.#model.vocab.length;
  }

  /** The token as the vocabulary spells it. */
  tokenOf(id: number): string | undefined {
    return this.#model.vocab[id];
  }

  idOf(token: string): number | undefined {
    return this.#byContent.get(token)?.id ?? this.#model.tokens_to_ids.get(token);
  }

  /**
   * Ids of a text that is complete as it is, such as a rendered template: nothing is put around it.
   *
   * @param marker a character that stands before text which must not be read as an added token; it is left out. "" for none
   */
  encode(text: string, marker = ""): number[] {
    const out: number[] = [];
    const unmarked = (part: string) => (marker === "" ? part : part.replaceAll(marker, ""));
    const hasNormalized = this.#normalized.size > 0;
    splitAtTokens(text.toWellFormed(), this.#plain, marker).forEach((section, index) => {
      if (section.kind === "token") {
        out.push(section.token.id);
        return;
      }
      const source = hasNormalized ? section.text : unmarked(section.text);
      const normalized = this.#pipeline.normalizer?.normalize(source) ?? source;
      for (const part of splitAtTokens(normalized, this.#normalized, marker)) {
        if (part.kind === "token") out.push(part.token.id);
        else this.#encodePlain(unmarked(part.text), index, out);
      }
    });
    return out;
  }

  /** Ids of a raw prompt, with what the tokenizer puts around a text; a leading BOS is never doubled. */
  encodeRaw(text: string): number[] {
    const ids = this.encode(text);
    const first = this.#prefix[0];
    const isThere = first !== undefined && ids[0] === first;
    return [...(isThere ? this.#prefix.slice(1) : this.#prefix), ...ids, ...this.#suffix];
  }

  /** What the tokenizer puts around a raw text. */
  get frame(): { readonly prefix: readonly number[]; readonly suffix: readonly number[] } {
    return { prefix: this.#prefix, suffix: this.#suffix };
  }

  /** What the tokenizer puts around two texts that it reads as a pair. */
  get pairFrame(): Frame {
    return this.#pair;
  }

  #encodePlain(text: string, index: number, out: number[]): void {
    if (text === "") return;
    const words = this.#pipeline.pre_tokenizer?.pre_tokenize(text, { section_index: index }) ?? [
      text,
    ];
    const model = this.#model;
    for (const token of model._call(words)) {
      const id = model.tokens_to_ids.get(token) ?? model.unk_token_id;
      if (id !== undefined) out.push(id);
    }
  }

  /** Asks the post-processor about a text of one made-up token. */
  #around(hasBosFlag: boolean): { prefix: readonly number[]; suffix: readonly number[] } {
    const inner = "\uFDD0";
    const tokens = this.#pipeline.post_processor?._call([inner], null, true).tokens ?? [inner];
    const at = tokens.indexOf(inner);
    const idsOf = (list: readonly string[]) =>
      list.map((token) => this.idOf(token)).filter((id) => id !== undefined);
    const prefix = idsOf(tokens.slice(0, at));
    const bos = this.idOf(this.namedTokens["bos_token"] ?? "");
    if (hasBosFlag && prefix.length === 0 && bos !== undefined) prefix.push(bos);
    return { prefix, suffix: idsOf(tokens.slice(at + 1)) };
  }

  #aroundPair(): Frame {
    const [first, second] = ["\uFDD0", "\uFDD1"];
    const joined = this.#pipeline.post_processor?._call([first], [second], true).tokens;
    const tokens = joined?.includes(second) ? joined : [first, second];
    const [a, b] = [tokens.indexOf(first), tokens.indexOf(second)];
    const idsOf = (list: readonly string[]) =>
      list.map((token) => this.idOf(token)).filter((id) => id !== undefined);
    return {
      prefix: idsOf(tokens.slice(0, a)),
      middle: idsOf(tokens.slice(a + 1, b)),
      suffix: idsOf(tokens.slice(b + 1)),
    };
  }
}

/** Ids around a pair of texts. */
export interface Frame {
  readonly prefix: readonly number[];
  readonly middle: readonly number[];
  readonly suffix: readonly number[];
}

interface AddedTokenEntry {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  readonly single_word: boolean;
  readonly normalized: boolean;
}

/** tokenizer.json's list, then what only tokenizer_config.json knows. */
function addedTokensOf(file: JsonObject, config: JsonObject): readonly AddedTokenEntry[] {
  const list = Array.isArray(file["added_tokens"]) ? file["added_tokens"] : [];
  const byId = new Map<number, AddedTokenEntry>();
  const add = (raw: unknown, id: unknown) => {
    if (!isObject(raw) || typeof raw["content"] !== "string") return;
    if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || byId.has(id)) return;
    const special = raw["special"] === true;
    byId.set(id, {
      id,
      content: raw["content"],
      special,
      lstrip: raw["lstrip"] === true,
      rstrip: raw["rstrip"] === true,
      single_word: raw["single_word"] === true,
      normalized: typeof raw["normalized"] === "boolean" ? raw["normalized"] : !special,
    });
  };
  for (const raw of list) add(raw, isObject(raw) ? raw["id"] : undefined);
  const more = config["added_tokens_decoder"];
  if (isObject(more)) for (const [id, raw] of Object.entries(more)) add(raw, Number(id));
  return [...byId.values()];
}

const NAMED = ["bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token"];

function namedTokensOf(config: JsonObject): Readonly<Record<string, string>> {
  const out: Record<string, string> = {};
  for (const name of NAMED) {
    const value = config[name];
    if (typeof value === "string") out[name] = value;
    else if (isObject(value) && typeof value["content"] === "string") out[name] = value["content"];
  }
  return out;
}

/** GPT-2's pattern of words. */
const GPT2_WORDS =
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/**
 * The same pre-tokenizer by parts that the JavaScript library reads exactly as the original one: its own Digits knows
 * only ASCII digits, and its ByteLevel takes JavaScript's white space (U+FEFF, but not U+0085).
 */
function exactPreTokenizer(config: unknown): unknown {
  if (!isObject(config)) return config;
  const split = (pattern: string) => ({
    type: "Split",
    pattern: { Regex: pattern },
    behavior: "Isolated",
    invert: false,
  });
  switch (config["type"]) {
    case "Sequence": {
      const parts = config["pretokenizers"];
      return { ...config, pretokenizers: Array.isArray(parts) ? parts.map(exactPreTokenizer) : [] };
    }
    case "Digits":
      return split(config["individual_digits"] === true ? "\\p{N}" : "\\p{N}+");
    case "ByteLevel":
      if (config["use_regex"] === false || config["add_prefix_space"] === true) return config;
      return {
        type: "Sequence",
        pretokenizers: [split(GPT2_WORDS), { ...config, use_regex: false }],
      };
    default:
      return config;
  }
}

/** The library composes characters as Unicode's NFKC does, whatever a compiled table of them says. */
function makeExact(normalizer: Pipeline["normalizer"]): void {
  if (normalizer instanceof SequenceNormalizer) {
    for (const part of normalizer.normalizers) makeExact(part);
  } else if (normalizer instanceof PrecompiledNormalizer && normalizer.charsmap) {
    const map = new Charsmap(normalizer.charsmap);
    normalizer.normalize = (text) => map.normalize(text);
  }
}
