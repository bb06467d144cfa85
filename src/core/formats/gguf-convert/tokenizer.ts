import { type JsonObject, loadError } from "../fields.ts";
import type { GgufFile, GgufValue } from "../gguf.ts";
import { Metadata } from "./config.ts";

/** The tokenizer's files of a model folder. */
export interface ConvertedTokenizer {
  /** tokenizer.json */
  readonly tokenizer: JsonObject;
  /** tokenizer_config.json */
  readonly config: JsonObject;
  readonly chatTemplate: string | null;
}

/** tokenizer.ggml.token_type of added tokens. */
const CONTROL = 3;
const USER_DEFINED = 4;

const BYTE_LEVEL = {
  type: "ByteLevel",
  add_prefix_space: false,
  trim_offsets: true,
  use_regex: true,
};

/** A Split with a family's own pattern, then bytes without the pattern of GPT-2. */
const splitBy = (pattern: string) => ({
  type: "Sequence",
  pretokenizers: [
    { type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false },
    { ...BYTE_LEVEL, use_regex: false },
  ],
});

/** How each family of byte-level vocabularies cuts text before merging. */
interface Family {
  readonly preTokenizer: JsonObject;
  readonly normalizer: JsonObject | null;
  /** A piece that is a whole token is not built from merges. */
  readonly ignoreMerges: boolean;
}

/**
 * By tokenizer.ggml.pre.
 *
 * @see llama.cpp src/llama-vocab.cpp — the same patterns under the same names
 */
const FAMILIES: Readonly<Record<string, Family>> = {
  "gpt-2": { preTokenizer: BYTE_LEVEL, normalizer: null, ignoreMerges: false },
  smollm: {
    preTokenizer: {
      type: "Sequence",
      pretokenizers: [{ type: "Digits", individual_digits: true }, BYTE_LEVEL],
    },
    normalizer: null,
    ignoreMerges: false,
  },
  "llama-bpe": {
    preTokenizer: splitBy(
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    ),
    normalizer: null,
    ignoreMerges: true,
  },
  qwen2: {
    preTokenizer: splitBy(
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    ),
    normalizer: { type: "NFC" },
    ignoreMerges: false,
  },
};

/**
 * tokenizer.json, tokenizer_config.json and the chat template of a GGUF file with a byte-level BPE vocabulary.
 *
 * @throws {OmlxError} model_load for another kind of vocabulary
 */
export function convertTokenizer(file: GgufFile): ConvertedTokenizer {
  const meta = new Metadata(file);
  const model = meta.text("tokenizer.ggml.model") ?? "";
  if (model !== "gpt2") {
    throw loadError(
      `Cannot convert the GGUF file: its tokenizer is "${model}", only byte-level BPE ("gpt2") is read`,
    );
  }
  const pre = meta.text("tokenizer.ggml.pre") ?? "gpt-2";
  const family = Object.hasOwn(FAMILIES, pre) ? FAMILIES[pre] : undefined;
  if (family === undefined) {
    throw loadError(
      `Cannot convert the GGUF file: pre-tokenizer "${pre}" is not known (known: ${Object.keys(FAMILIES).join(", ")})`,
    );
  }
  const tokens = strings(meta.list("tokenizer.ggml.tokens"), "tokenizer.ggml.tokens");
  const merges = strings(meta.list("tokenizer.ggml.merges"), "tokenizer.ggml.merges");
  const types = meta.list("tokenizer.ggml.token_type") ?? [];
  const bosId = meta.number("tokenizer.ggml.bos_token_id");
  const hasBos = meta.bool("tokenizer.ggml.add_bos_token") ?? false;
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
      normalizer: family.normalizer,
      pre_tokenizer: family.preTokenizer,
      post_processor: hasBos && bos !== undefined ? startsWith(bos, bosId ?? 0) : null,
      decoder: { ...BYTE_LEVEL, add_prefix_space: true },
      model: {
        type: "BPE",
        dropout: null,
        unk_token: null,
        continuing_subword_prefix: null,
        end_of_word_suffix: null,
        fuse_unk: false,
        byte_fallback: false,
        ignore_merges: family.ignoreMerges,
        vocab: vocabulary(tokens),
        merges,
      },
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
