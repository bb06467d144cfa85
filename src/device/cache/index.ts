/**
 * @module Keys and values of past tokens, in blocks that sequences and the prefix tree share.
 *
 * - Block ids are given out by BlockPool and found again through PrefixTree; neither knows a tensor.
 * - A full block never changes; the tail block of a sequence belongs to that sequence alone.
 * - Two storages hold the tensors behind KvCache: PagedCache (CPU kernels) and ContiguousCache (stock MLX).
 */
export * from "./batch.ts";
export * from "./block-pool.ts";
export * from "./contiguous.ts";
export * from "./kv-cache.ts";
export * from "./paged.ts";
export * from "./prefix-tree.ts";
