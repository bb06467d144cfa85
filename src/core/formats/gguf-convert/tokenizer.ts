import { type JsonObject, loadError } from "../fields.ts";
import type { GgufFile, GgufValue } from "../gguf.ts";
import { CONTROL, Metadata } from "./config.ts";
import { sentencePiece } from "./sentencepiece.ts";

/** The tokenizer's files of a model folder. */
export interface ConvertedTokenizer {
  /** tokenizer.json */
  readonly tokenizer: JsonObject;
  /** tokenizer_config.json */
  readonly config: JsonObject;
  readonly chatTemplate: string | null;
}

/** tokenizer.ggml.token_type of added tokens that are text. */
const USER_DEFINED = 4;

const BYTE_LEVEL = {
  type: "ByteLevel",
  add_prefix_space: false,
  trim_offsets: true,
  use_regex: true,
};

const split = (pattern: string) => ({
  type: "Split",
  pattern: { Regex: pattern },
  behavior: "Isolated",
  invert: false,
});

/** Splits with a family's own patterns, one after the other, then bytes without the pattern of GPT-2. */
const splitBy = (...patterns: string[]) => ({
  type: "Sequence",
  pretokenizers: [...patterns.map(split), { ...BYTE_LEVEL, use_regex: false }],
});

const DIGIT_BY_DIGIT = {
  type: "Sequence",
  pretokenizers: [{ type: "Digits", individual_digits: true }, BYTE_LEVEL],
};

/** How each family of byte-level vocabularies cuts text before merging. */
interface Family {
  readonly preTokenizer: JsonObject;
  readonly normalizer?: JsonObject;
  /** A piece that is a whole token is not built from merges. */
  readonly ignoreMerges?: boolean;
  /** Texts begin with the BOS token unless the file says otherwise. */
  readonly addsBos?: boolean;
}

const GPT2: Family = { preTokenizer: BYTE_LEVEL };
const DIGITS: Family = { preTokenizer: DIGIT_BY_DIGIT };
const LLAMA3: Family = {
  preTokenizer: splitBy(
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  ),
  ignoreMerges: true,
  addsBos: true,
};
const QWEN2: Family = {
  preTokenizer: splitBy(
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  ),
  normalizer: { type: "NFC" },
};

/**
 * By tokenizer.ggml.pre.
 *
 * @see llama.cpp src/llama-vocab.cpp — the same patterns under the same names
 */
const FAMILIES: Readonly<Record<string, Family>> = {
  "gpt-2": GPT2,
  "phi-2": GPT2,
  default: {
    preTokenizer: splitBy(
      "[\\p{P}$+<=>^~|]+",
      "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)",
      "\\p{N}+",
      "[0-9][0-9][0-9]",
    ),
  },
  smollm: DIGITS,
  starcoder: DIGITS,
  refact: DIGITS,
  "command-r": DIGITS,
  llama3: LLAMA3,
  "llama-v3": LLAMA3,
  "llama-bpe": LLAMA3,
  falcon3: LLAMA3,
  qwen2: QWEN2,
  "deepseek-r1-qwen": QWEN2,
  tekken: {
    preTokenizer: splitBy(
      "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    ),
    ignoreMerges: true,
    addsBos: true,
  },
  "deepseek-coder": {
    preTokenizer: splitBy("[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[一-龥ࠀ-一가-퟿]+", "\\p{N}"),
  },
};

/**
 * tokenizer.json, tokenizer_config.json and the chat template of a GGUF file with a byte-level BPE vocabulary ("gpt2") or
 * one of SentencePiece's kind ("llama").
 *
 * @throws {OmlxError} model_load for another kind of vocabulary
 */
export function convertTokenizer(file: GgufFile): ConvertedTokenizer {
  const meta = new Metadata(file);
  const kind = tokenizerKind(meta);
  const tokens = strings(meta.list("tokenizer.ggml.tokens"), "tokenizer.ggml.tokens");
  const types = meta.list("tokenizer.ggml.token_type") ?? [];
  const bosId = meta.number("tokenizer.ggml.bos_token_id");
  const hasBos = meta.bool("tokenizer.ggml.add_bos_token") ?? kind.addsBos;
  const bos = bosId === undefined ? undefined : tokens[bosId];
  const tokenAt = (key: string) => {
    const id = meta.number(`tokenizer.ggml.${key}_token_id`);
    return id === undefined ? null : (tokens[id] ?? null);
  };
  return {
    tokenizer: {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: addedTokens(tokens, types),
      ...kind.parts(tokens, types),
      post_processor: hasBos && bos !== undefined ? startsWith(bos, bosId ?? 0) : null,
    },
    config: {
      tokenizer_class: "PreTrainedTokenizerFast",
      bos_token: tokenAt("bos"),
      eos_token: tokenAt("eos"),
      unk_token: tokenAt("unknown"),
      pad_token: tokenAt("padding"),
      add_bos_token: hasBos,
      add_prefix_space: false,
      clean_up_tokenization_spaces: false,
      model_max_length: meta.number(`${meta.text("general.architecture")}.context_length`) ?? null,
    },
    chatTemplate: meta.text("tokenizer.chat_template") ?? null,
  };
}

/** @throws {OmlxError} model_load when the vocabulary cannot be converted; looks at no list */
export function checkTokenizer(file: GgufFile): void {
  tokenizerKind(new Metadata(file));
}

interface TokenizerKind {
  readonly addsBos: boolean;
  /** normalizer, pre_tokenizer, decoder and model of tokenizer.json. */
  readonly parts: (tokens: readonly string[], types: readonly GgufValue[]) => JsonObject;
}

function tokenizerKind(meta: Metadata): TokenizerKind {
  const model = meta.text("tokenizer.ggml.model") ?? "";
  switch (model) {
    case "gpt2":
      return byteLevel(meta);
    case "llama":
      return {
        addsBos: true,
        parts: (tokens, types) =>
          sentencePiece({
            tokens,
            types,
            scores: meta.list("tokenizer.ggml.scores") ?? [],
            unknownId: meta.number("tokenizer.ggml.unknown_token_id"),
            addsSpace: meta.bool("tokenizer.ggml.add_space_prefix") ?? true,
            vocab: vocabulary(tokens),
          }),
      };
    default:
      throw loadError(
        `Cannot convert the GGUF file: its tokenizer is "${model}"; byte-level BPE ("gpt2") and SentencePiece ("llama") are read`,
      );
  }
}

function byteLevel(meta: Metadata): TokenizerKind {
  const pre = meta.text("tokenizer.ggml.pre") ?? "gpt-2";
  const family = Object.hasOwn(FAMILIES, pre) ? FAMILIES[pre] : undefined;
  if (family === undefined) {
    throw loadError(
      `Cannot convert the GGUF file: pre-tokenizer "${pre}" is not known (known: ${Object.keys(FAMILIES).join(", ")})`,
    );
  }
  return {
    addsBos: family.addsBos ?? false,
    parts: (tokens) => ({
      normalizer: family.normalizer ?? null,
      pre_tokenizer: family.preTokenizer,
      decoder: { ...BYTE_LEVEL, add_prefix_space: true },
      model: {
        type: "BPE",
        dropout: null,
        unk_token: null,
        continuing_subword_prefix: null,
        end_of_word_suffix: null,
        fuse_unk: false,
        byte_fallback: false,
        ignore_merges: family.ignoreMerges ?? false,
        vocab: vocabulary(tokens),
        merges: strings(meta.list("tokenizer.ggml.merges"), "tokenizer.ggml.merges"),
      },
    }),
  };
}

function strings(list: readonly GgufValue[] | undefined, key: string): readonly string[] {
  if (list === undefined || !list.every((item) => typeof item === "string")) {
    throw loadError(`Cannot convert the GGUF file: "${key}" is not a list of strings`);
  }
  return list as readonly string[];
}

function addedTokens(
  tokens: readonly string[],
  types: readonly GgufValue[],
): readonly JsonObject[] {
  return tokens.flatMap((content, id) => {
    if (types[id] !== CONTROL && types[id] !== USER_DEFINED) return [];
    return {
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: types[id] === CONTROL,
    };
  });
}

/** Token → id, without a prototype, so that every token is a plain key. */
function vocabulary(tokens: readonly string[]): JsonObject {
  const vocab: Record<string, number> = Object.create(null);
  tokens.forEach((token, id) => {
    vocab[token] = id;
  });
  return vocab;
}

/** Texts without a chat template begin with this token. */
function startsWith(token: string, id: number): JsonObject {
  const special = { SpecialToken: { id: token, type_id: 0 } };
  const sequence = (name: string) => ({ Sequence: { id: name, type_id: 0 } });
  return {
    type: "TemplateProcessing",
    single: [special, sequence("A")],
    pair: [special, sequence("A"), special, sequence("B")],
    special_tokens: { [token]: { id: token, ids: [id], tokens: [token] } },
  };
}
