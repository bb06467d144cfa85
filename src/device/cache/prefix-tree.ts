/** One stored block: the tokens of the path from the root to here have their keys and values in cache blocks. */
export interface TreeNode {
  readonly parent: TreeNode | null;
  /** The block that holds this node's tokens; -1 for a root. */
  readonly block: number;
  /** Blocks on the path, this one included; 0 for a root. */
  readonly depth: number;
}

interface Node extends TreeNode {
  readonly parent: Node | null;
  readonly salt: string;
  readonly hash: number;
  /** Exactly blockTokens ids. */
  readonly ids: Int32Array;
  /** By hash of the child's ids; equal hashes are chained through `next`. */
  readonly children: Map<number, Node>;
  next: Node | null;
  /** Pins on this node or below it. */
  uses: number;
  /** Tick of the last unpin, or of the node's making. Ancestors need no tick: they follow their last leaf. */
  lastUse: number;
  removed: boolean;
}

export interface PrefixMatch {
  /** Blocks in order, from the first token on. */
  readonly blocks: readonly number[];
  /** Where the match ends; a root if nothing matched. */
  readonly node: TreeNode;
}

/**
 * Finds stored prefixes of token ids, in whole blocks.
 *
 * - Every node stands for one full block; two siblings never hold the same ids.
 * - The salt (model, adapter, media digests) separates texts whose equal ids do not mean equal keys and values.
 * - A pinned node and its ancestors are never evicted; eviction takes unpinned leaves, least recently used first.
 * - Ids are compared, not only hashed: a hash collision cannot give a false match.
 * - The tree owns one reference on each block it stores; whoever evicts releases it.
 */
export class PrefixTree {
  readonly blockTokens: number;
  readonly #roots = new Map<string, Node>();
  /** Min-heap of eviction candidates by lastUse; entries go stale and are checked when popped. */
  #candidates: { node: Node; lastUse: number }[] = [];
  #tick = 0;
  #numBlocks = 0;
  #numUsed = 0;

  constructor(blockTokens: number) {
    if (!Number.isInteger(blockTokens) || blockTokens < 1)
      throw new RangeError(`Cannot store blocks of ${blockTokens} tokens`);
    this.blockTokens = blockTokens;
  }

  /** Blocks stored. */
  get numBlocks(): number {
    return this.#numBlocks;
  }

  /** Blocks that evict() could give back now. */
  get numEvictable(): number {
    return this.#numBlocks - this.#numUsed;
  }

  /**
   * Longest stored prefix of `ids`, in whole blocks. Does not change the tree.
   *
   * @param ids the last one is never matched, so that a step has something to evaluate
   * @returns valid until the next evict() unless its node is pinned
   */
  match(ids: ArrayLike<number>, salt = ""): PrefixMatch {
    const blocks: number[] = [];
    let node = this.#root(salt);
    const limit = Math.floor((ids.length - 1) / this.blockTokens);
    for (let i = 0; i < limit; i++) {
      const child = this.#child(node, ids, i * this.blockTokens);
      if (!child) break;
      blocks.push(child.block);
      node = child;
    }
    return { blocks, node };
  }

  /**
   * Stores one full block below `parent`.
   *
   * @param ids    the text's tokens; the block holds `[from, from + blockTokens)` of them
   * @returns the child; its `block` is another one than given if these ids are stored already, then the tree did not
   *          take the given block
   */
  extend(parent: TreeNode, ids: ArrayLike<number>, from: number, block: number): TreeNode {
    const above = parent as Node;
    if (above.removed) throw new Error(`the node of block ${above.block} was evicted`);
    const found = this.#child(above, ids, from);
    if (found) return found;
    const { blockTokens } = this;
    const hash = hashOf(ids, from, blockTokens);
    const node: Node = {
      parent: above,
      block,
      depth: above.depth + 1,
      salt: above.salt,
      hash,
      ids: Int32Array.from({ length: blockTokens }, (_, i) => ids[from + i] as number),
      children: new Map(),
      next: above.children.get(hash) ?? null,
      uses: 0,
      lastUse: ++this.#tick,
      removed: false,
    };
    above.children.set(hash, node);
    this.#numBlocks++;
    this.#offer(node);
    return node;
  }

  /**
   * Stores the whole blocks of a text.
   *
   * @param blocks one per full block of ids, in order
   * @returns the given blocks that were not taken, because their ids are stored already under other blocks
   */
  insert(ids: ArrayLike<number>, blocks: readonly number[], salt = ""): number[] {
    const spare: number[] = [];
    let node: TreeNode = this.#root(salt);
    for (const [i, block] of blocks.entries()) {
      node = this.extend(node, ids, i * this.blockTokens, block);
      if (node.block !== block) spare.push(block);
    }
    return spare;
  }

  /** Keeps the node and its ancestors until unpin(). Pins count. */
  pin(node: TreeNode): void {
    for (let n: Node | null = node as Node; n; n = n.parent)
      if (n.uses++ === 0 && n.parent) this.#numUsed++;
  }

  /** Moves a pin from a node to its child, as a text grows by one block. */
  pinChild(node: TreeNode): void {
    const child = node as Node;
    if (child.uses++ === 0) this.#numUsed++;
  }

  unpin(node: TreeNode): void {
    const leaf = node as Node;
    leaf.lastUse = ++this.#tick;
    for (let n: Node | null = leaf; n; n = n.parent) {
      if (n.uses === 0) throw new Error(`block ${n.block} is not pinned`);
      if (--n.uses === 0 && n.parent) this.#numUsed--;
    }
    this.#offer(leaf);
    this.#forgetRoot(leaf);
  }

  /**
   * Removes up to `count` blocks, leaves first, least recently used first; never a pinned one.
   *
   * @returns the removed blocks; the caller releases the tree's reference on each
   */
  evict(count: number): number[] {
    const blocks: number[] = [];
    while (blocks.length < count) {
      const top = this.#pop();
      if (!top) break;
      if (isEvictable(top.node) && top.lastUse === top.node.lastUse)
        blocks.push(this.#remove(top.node));
    }
    return blocks;
  }

  /**
   * Removes the node and then its ancestors, up to the first one that has other children or is pinned.
   *
   * @returns the removed blocks; the caller releases the tree's reference on each
   */
  prune(node: TreeNode): number[] {
    const blocks: number[] = [];
    for (let n: Node | null = node as Node; n && isEvictable(n); n = n.parent)
      blocks.push(this.#remove(n));
    return blocks;
  }

  /** Every stored block. */
  *blocks(): Generator<number> {
    const open: Node[] = [...this.#roots.values()];
    for (let node = open.pop(); node; node = open.pop()) {
      if (node.parent) yield node.block;
      open.push(...childrenOf(node));
    }
  }

  /** @throws {Error} if a count, a pin or a link does not add up */
  check(): void {
    let numBlocks = 0;
    let numUsed = 0;
    const open: Node[] = [...this.#roots.values()];
    for (let node = open.pop(); node; node = open.pop()) {
      let below = 0;
      for (const child of childrenOf(node)) {
        if (child.parent !== node || child.removed)
          throw new Error(`block ${child.block} is linked to a wrong parent`);
        below += child.uses;
        open.push(child);
      }
      if (below > node.uses)
        throw new Error(`block ${node.block} has ${node.uses} pins but ${below} below it`);
      if (!node.parent) continue;
      numBlocks++;
      if (node.uses > 0) numUsed++;
    }
    if (numBlocks !== this.#numBlocks || numUsed !== this.#numUsed)
      throw new Error(
        `the tree counts ${this.#numBlocks} blocks (${this.#numUsed} pinned) but holds ${numBlocks} (${numUsed})`,
      );
  }

  #root(salt: string): Node {
    const found = this.#roots.get(salt);
    if (found) return found;
    const root: Node = {
      parent: null,
      block: -1,
      depth: 0,
      salt,
      hash: 0,
      ids: new Int32Array(0),
      children: new Map(),
      next: null,
      uses: 0,
      lastUse: 0,
      removed: false,
    };
    this.#roots.set(salt, root);
    return root;
  }

  #child(node: Node, ids: ArrayLike<number>, from: number): Node | null {
    if (node.children.size === 0) return null;
    let child = node.children.get(hashOf(ids, from, this.blockTokens)) ?? null;
    while (child && !sameIds(child.ids, ids, from)) child = child.next;
    return child;
  }

  #remove(node: Node): number {
    const parent = node.parent as Node;
    const first = parent.children.get(node.hash);
    if (first === node) {
      if (node.next) parent.children.set(node.hash, node.next);
      else parent.children.delete(node.hash);
    } else {
      let before = first;
      while (before && before.next !== node) before = before.next ?? undefined;
      if (before) before.next = node.next;
    }
    node.removed = true;
    this.#numBlocks--;
    this.#offer(parent);
    this.#forgetRoot(parent);
    return node.block;
  }

  /** Salts come and go; an idle root holds nothing. */
  #forgetRoot(node: Node): void {
    if (!node.parent && node.uses === 0 && node.children.size === 0) this.#roots.delete(node.salt);
  }

  /** Remembers the node as an eviction candidate, if it is one. */
  #offer(node: Node): void {
    if (!isEvictable(node)) return;
    if (this.#candidates.length > 2 * this.#numBlocks + 64) this.#dropStale();
    const heap = this.#candidates;
    const entry = { node, lastUse: node.lastUse };
    let i = heap.push(entry) - 1;
    while (i > 0) {
      const up = (i - 1) >> 1;
      const above = heap[up] as typeof entry;
      if (above.lastUse <= entry.lastUse) break;
      heap[i] = above;
      heap[up] = entry;
      i = up;
    }
  }

  #pop(): { node: Node; lastUse: number } | undefined {
    const heap = this.#candidates;
    const top = heap[0];
    const last = heap.pop();
    if (!top || !last || heap.length === 0) return top;
    let i = 0;
    for (;;) {
      let down = 2 * i + 1;
      if (down >= heap.length) break;
      const right = heap[down + 1];
      if (right && right.lastUse < (heap[down] as typeof last).lastUse) down++;
      const child = heap[down] as typeof last;
      if (child.lastUse >= last.lastUse) break;
      heap[i] = child;
      i = down;
    }
    heap[i] = last;
    return top;
  }

  /** A sorted array is a heap. */
  #dropStale(): void {
    this.#candidates = this.#candidates
      .filter((c) => isEvictable(c.node) && c.lastUse === c.node.lastUse)
      .sort((a, b) => a.lastUse - b.lastUse);
  }
}

const isEvictable = (node: Node): boolean =>
  node.parent !== null && !node.removed && node.uses === 0 && node.children.size === 0;

function* childrenOf(node: Node): Generator<Node> {
  for (const first of node.children.values())
    for (let child: Node | null = first; child; child = child.next) yield child;
}

const sameIds = (held: Int32Array, ids: ArrayLike<number>, from: number): boolean => {
  for (let i = 0; i < held.length; i++) if (held[i] !== ids[from + i]) return false;
  return true;
};

/** FNV-1a over the ids as 32-bit units. */
const hashOf = (ids: ArrayLike<number>, from: number, count: number): number => {
  let hash = 0x811c9dc5;
  for (let i = from; i < from + count; i++) hash = Math.imul(hash ^ (ids[i] as number), 0x01000193);
  return hash;
};
