import type { GrammarVocabulary } from "#core/contract";
import type { LoadedText } from "./messages.ts";

/**
 * The vocabulary for grammars. The model's own markers are text in it, special tokens or not, so that a grammar can demand
 * a call as the model writes it.
 */
export function grammarVocabularyOf(loaded: LoadedText): GrammarVocabulary {
  const { vocabulary, addedIds, eosIds, speech } = loaded;
  const { bytes, offsets, specials } = vocabulary;
  const encoder = new TextEncoder();
  const marks = speech.markers
    .filter(([, id]) => specials.has(id) && !eosIds.includes(id))
    .map(([text, id]) => ({ id, text: encoder.encode(text) }))
    .sort((a, b) => a.id - b.id);
  if (marks.length === 0) return { bytes, offsets, addedIds };
  const all = new Uint8Array(bytes.length + marks.reduce((sum, mark) => sum + mark.text.length, 0));
  const moved = new Uint32Array(offsets.length);
  let from = 0;
  let shift = 0;
  let next = 0;
  for (const { id, text } of marks) {
    const at = offsets[id] ?? 0;
    all.set(bytes.subarray(from, at), from + shift);
    all.set(text, at + shift);
    for (; next <= id; next++) moved[next] = (offsets[next] ?? 0) + shift;
    shift += text.length;
    from = at;
  }
  all.set(bytes.subarray(from), from + shift);
  for (; next < offsets.length; next++) moved[next] = (offsets[next] ?? 0) + shift;
  return { bytes: all, offsets: moved, addedIds: [...addedIds, ...marks.map(({ id }) => id)] };
}
