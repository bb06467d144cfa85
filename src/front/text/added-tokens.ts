/** A token that is found in text as it is, before any splitting or merging. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** As it stands in the text when it is looked for. */
  readonly spelling: string;
  /** Control token: never part of the answer's text. */
  readonly isSpecial: boolean;
  /** Takes the white space before or after it along. */
  readonly stripsLeft: boolean;
  readonly stripsRight: boolean;
  /** Matches only where no word goes on beside it. */
  readonly isSingleWord: boolean;
  /** Looked for in the normalized text. */
  readonly isNormalized: boolean;
}

interface Node {
  readonly next: Map<number, Node>;
  token: AddedToken | undefined;
}

/** Finds words of a fixed list at a given place of a text. */
export class TokenTrie {
  readonly #root: Node = { next: new Map(), token: undefined };
  readonly size: number;

  constructor(words: Iterable<readonly [content: string, token: AddedToken]>) {
    let size = 0;
    for (const [content, token] of words) {
      if (content === "") continue;
      let node = this.#root;
      for (let i = 0; i < content.length; i++) {
        const code = content.charCodeAt(i);
        let child = node.next.get(code);
        if (child === undefined) {
          child = { next: new Map(), token: undefined };
          node.next.set(code, child);
        }
        node = child;
      }
      node.token = token;
      size++;
    }
    this.size = size;
  }

  /** The longest word that begins at `at`. */
  match(text: string, at: number): { token: AddedToken; end: number } | undefined {
    let node = this.#root.next.get(text.charCodeAt(at));
    let best: { token: AddedToken; end: number } | undefined;
    for (let i = at + 1; node !== undefined; i++) {
      if (node.token !== undefined) best = { token: node.token, end: i };
      if (i >= text.length) break;
      node = node.next.get(text.charCodeAt(i));
    }
    return best;
  }
}

/** A stretch of text, or a token found in it. */
export type Section =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "token"; readonly token: AddedToken };

const WORD = /[\p{L}\p{N}_]/u;

/**
 * Cuts a text at the tokens of `trie`, leftmost and longest first.
 *
 * @param marker a character after which no token begins; it stays in the text. "" for none
 * @see tokenizers added_vocabulary.rs — the rules on white space and words
 */
export function splitAtTokens(text: string, trie: TokenTrie, marker: string): readonly Section[] {
  if (trie.size === 0) return text === "" ? [] : [{ kind: "text", text }];
  const sections: Section[] = [];
  let begin = 0;
  for (let i = 0; i < text.length; ) {
    const isMarked = marker !== "" && i > 0 && text[i - 1] === marker;
    const found = isMarked ? undefined : trie.match(text, i);
    if (found === undefined) {
      i++;
      continue;
    }
    const { token, end } = found;
    if (token.isSingleWord && (isWordAt(text, i - 1) || isWordAt(text, end))) {
      i = end;
      continue;
    }
    const start = token.stripsLeft ? begin + text.slice(begin, i).trimEnd().length : i;
    const stop = token.stripsRight ? text.length - text.slice(end).trimStart().length : end;
    if (start > begin) sections.push({ kind: "text", text: text.slice(begin, start) });
    sections.push({ kind: "token", token });
    begin = stop;
    i = stop;
  }
  if (begin < text.length) sections.push({ kind: "text", text: text.slice(begin) });
  return sections;
}

function isWordAt(text: string, at: number): boolean {
  return at >= 0 && at < text.length && WORD.test(text[at] ?? "");
}

/** Puts `marker` before every place where a word of `trie` begins, so that it is read as plain text. */
export function markTokens(text: string, trie: TokenTrie, marker: string): string {
  const parts: string[] = [];
  let begin = 0;
  for (let i = 0; i < text.length; i++) {
    if (trie.match(text, i) === undefined) continue;
    parts.push(text.slice(begin, i), marker);
    begin = i;
  }
  if (parts.length === 0) return text;
  parts.push(text.slice(begin));
  return parts.join("");
}
