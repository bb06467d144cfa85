import { type JsonObject, loadError } from "../fields.ts";
import type { GgufValue } from "../gguf.ts";

export interface SentencePieceVocabulary {
  readonly tokens: readonly string[];
  /** tokenizer.ggml.token_type */
  readonly types: readonly GgufValue[];
  readonly scores: readonly GgufValue[];
  readonly unknownId: number | undefined;
  /** A text begins with a blank of its own. */
  readonly addsSpace: boolean;
  /** Token → id. */
  readonly vocab: JsonObject;
}

const NORMAL = 1;
const UNKNOWN = 2;
const USER_DEFINED = 4;
const BYTE = 6;

/** SentencePiece's sign for a blank. */
const BLANK = "▁";

/**
 * The parts of a tokenizer.json that cut text as SentencePiece's BPE does: neighbours merge as long as what they make is
 * a token, the one with the highest score first, and what is no token becomes bytes. Merges follow from the scores.
 *
 * @see transformers convert_slow_tokenizer.py — the same form
 */
export function sentencePiece(v: SentencePieceVocabulary): JsonObject {
  const { tokens, types, vocab } = v;
  if (v.scores.length !== tokens.length) {
    throw loadError(
      `Cannot convert the GGUF file: its ${tokens.length} tokens have ${v.scores.length} scores`,
    );
  }
  const unknownId = v.unknownId ?? types.indexOf(UNKNOWN);
  const unknown = tokens[unknownId] ?? null;
  return {
    normalizer: {
      type: "Sequence",
      normalizers: [
        ...(v.addsSpace ? [{ type: "Prepend", prepend: BLANK }] : []),
        { type: "Replace", pattern: { String: " " }, content: BLANK },
      ],
    },
    pre_tokenizer: null,
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: BLANK }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        ...(v.addsSpace ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : []),
      ],
    },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: unknown,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: types.includes(BYTE),
      ignore_merges: false,
      vocab,
      merges: merges(v),
    },
  };
}

/** Every pair of tokens that makes a token: best score first; of one token's pairs the one with the lower ids. */
function merges({
  tokens,
  types,
  scores,
}: SentencePieceVocabulary): readonly (readonly string[])[] {
  const ids = new Map<string, number>();
  tokens.forEach((token, id) => {
    const type = types[id] ?? NORMAL;
    if (type === NORMAL || type === USER_DEFINED) ids.set(token, id);
  });
  const ranked = [...ids]
    .map(([token, id]) => ({ token, id, score: Number(scores[id]) }))
    .sort((a, b) => b.score - a.score || a.id - b.id);
  const out: (readonly string[])[] = [];
  for (const { token } of ranked) {
    const pairs: { left: string; right: string; leftId: number; rightId: number }[] = [];
    for (let cut = 1; cut < token.length; cut++) {
      const left = token.slice(0, cut);
      const right = token.slice(cut);
      const leftId = ids.get(left);
      const rightId = ids.get(right);
      if (leftId !== undefined && rightId !== undefined)
        pairs.push({ left, right, leftId, rightId });
    }
    pairs.sort((a, b) => a.leftId - b.leftId || a.rightId - b.rightId);
    for (const { left, right } of pairs) out.push([left, right]);
  }
  return out;
}
