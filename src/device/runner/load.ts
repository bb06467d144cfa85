import { freemem } from "node:os";
import { type KernelMode, type LoadedInfo, type LoadOptions, OmlxError } from "#core/contract";
import { type CacheShape, ContiguousCache, type KvCache, PagedCache } from "#device/cache";
import * as mx from "#device/mlx";
import { nativeEncoderKernels, nativeKernels, stockEncoderKernels, stockKernels } from "#device/nn";
import { type Encoder, type Model, openCheckpoint, openEncoder } from "#device/zoo";

/** Tokens per block: small enough that a follow-up turn recomputes little, large enough for short block tables. */
export const BLOCK_TOKENS = 32;

/** Share of the free memory that keys and values may take when nothing is said. */
const CACHE_SHARE = 0.25;

export interface LoadedModel {
  readonly model: Model;
  readonly cache: KvCache;
  readonly numBlocks: number;
  readonly info: LoadedInfo;
}

/**
 * Loads a model folder into this process: device, weights, model, cache.
 *
 * @param onStage called before each slow part, so that a watchdog sees progress
 * @throws {OmlxError} model_load, out_of_memory or native
 */
export async function loadModel(
  options: LoadOptions,
  onStage: (stage: string) => void = () => {},
): Promise<LoadedModel> {
  onStage("device");
  const onCpu = startDevice() === "cpu";
  const native = onCpu ? startKernels(options) : null;

  onStage("config");
  const checkpoint = await openCheckpoint(options.modelPath);

  onStage("weights");
  const dtype = onCpu ? "float32" : checkpoint.dtype;
  const kernels = native ? nativeKernels() : stockKernels(dtype);
  const model = checkpoint.build(kernels);

  onStage("cache");
  const contextWindow = Math.min(
    options.contextWindow > 0 ? options.contextWindow : Number.POSITIVE_INFINITY,
    checkpoint.contextWindow,
  );
  const shape: CacheShape = {
    layers: model.layers,
    kvHeads: model.kvHeads,
    headDim: model.headDim,
    blockTokens: BLOCK_TOKENS,
  };
  const bytesPerToken = native
    ? PagedCache.bytesPerToken(shape)
    : ContiguousCache.bytesPerToken(shape, dtype);
  const numBlocks = countBlocks(options, contextWindow, bytesPerToken);
  const cache = native ? new PagedCache(shape, numBlocks) : new ContiguousCache(shape, dtype);
  return {
    model,
    cache,
    numBlocks,
    info: {
      contextWindow,
      vocabSize: model.vocabSize,
      kernels: native ?? "stock",
      device: native ? `${mx.deviceName()} (${mx.native.tier()})` : mx.deviceName(),
      weightBytes: checkpoint.weightBytes,
      cacheBytes: numBlocks * BLOCK_TOKENS * bytesPerToken,
      blockTokens: BLOCK_TOKENS,
      eosIds: checkpoint.eosIds,
    },
  };
}

export interface LoadedEncoder {
  readonly encoder: Encoder;
  readonly info: LoadedInfo;
}

/**
 * Loads an embedding model or a reranker into this process.
 *
 * @param onStage called before each slow part, so that a watchdog sees progress
 * @throws {OmlxError} model_load, out_of_memory or native
 */
export async function loadEncoder(
  options: LoadOptions,
  purpose: "embedding" | "reranker",
  onStage: (stage: string) => void = () => {},
): Promise<LoadedEncoder> {
  onStage("device");
  const onCpu = startDevice() === "cpu";
  const native = onCpu ? startKernels(options) : null;

  onStage("config");
  const checkpoint = await openEncoder(options.modelPath, purpose);

  onStage("weights");
  const kernels = native ? nativeKernels() : stockKernels(onCpu ? "float32" : checkpoint.dtype);
  const encoder = checkpoint.build(kernels, native ? nativeEncoderKernels : stockEncoderKernels);
  return {
    encoder,
    info: {
      contextWindow:
        options.contextWindow > 0
          ? Math.min(options.contextWindow, checkpoint.contextWindow)
          : checkpoint.contextWindow,
      vocabSize: encoder.vocabSize,
      kernels: native ?? "stock",
      device: native ? `${mx.deviceName()} (${mx.native.tier()})` : mx.deviceName(),
      weightBytes: checkpoint.weightBytes,
      cacheBytes: 0,
      blockTokens: BLOCK_TOKENS,
      eosIds: [],
      rowWidth: encoder.width,
      tokenWidths: encoder.tokenWidths,
    },
  };
}

/** Sets up the CPU kernels as asked for; null where stock MLX computes. */
function startKernels({ kernels, threads }: LoadOptions): Exclude<KernelMode, "stock"> | null {
  if (kernels === "stock" || !mx.native.available()) return null;
  mx.native.setThreads(threads);
  mx.native.setArithmetic(kernels === "native" ? "int16" : kernels);
  return kernels;
}

/** A GPU where MLX has one, else the CPU. */
function startDevice(): mx.DeviceName {
  try {
    mx.init({ device: "gpu" });
    return "gpu";
  } catch {
    mx.init({ device: "cpu" }); // this build or machine has no GPU; a broken library fails here again
    return "cpu";
  }
}

/** Blocks for the memory allowed, never more than four times what all sequences at once could fill. */
function countBlocks(options: LoadOptions, contextWindow: number, bytesPerToken: number): number {
  const bytes = options.cacheBytes > 0 ? options.cacheBytes : freemem() * CACHE_SHARE;
  const affordable = Math.floor(bytes / (BLOCK_TOKENS * bytesPerToken));
  const perSequence = Math.ceil(contextWindow / BLOCK_TOKENS);
  const useful = perSequence * (options.maxRunning + 1) * 4;
  const numBlocks = Math.min(affordable, useful);
  if (numBlocks < 2) {
    throw new OmlxError({
      code: "out_of_memory",
      message: `Cannot load the model: ${Math.floor(bytes)} bytes for keys and values hold ${numBlocks} blocks of ${BLOCK_TOKENS} tokens`,
      data: { neededBytes: 2 * BLOCK_TOKENS * bytesPerToken, freeBytes: Math.floor(bytes) },
    });
  }
  return numBlocks;
}
