/**
 * Our engine's forward pass without scheduler, sampler, process border and HTTP, in a process of its own: what the rest
 * costs is the difference to the server. Run as a program it answers the messages of EngineProcess.
 */
import { join } from "node:path";
import type { KernelMode } from "#core/contract";
import { argmax, ForwardSession } from "../test/helpers/forward.ts";
import { type Exactness, ExactnessSum, passages } from "./exactness.ts";
import { shareSchedulingGroup } from "./machine.ts";
import { generator } from "./prompts.ts";

/** As the engine's own prefill: enough rows for its matrix kernels. */
const CHUNK = 128;
const WARM_UP = 64;

interface Open {
  readonly kind: "open";
  readonly folder: string;
  readonly threads: number;
  readonly kernels: KernelMode;
}
interface Decode {
  readonly kind: "decode";
  readonly promptTokens: number;
  readonly tokens: number;
}
interface Compare {
  readonly kind: "exactness";
  readonly positions: number;
  /** Rows per step: 1 is the arithmetic of decoding. */
  readonly chunk: number;
}
type Order = Open | Decode | Compare;
type Result = { readonly value: unknown } | { readonly error: string };

/** The parent's end. */
export class EngineProcess {
  readonly #child: Bun.Subprocess;
  #settle: PromiseWithResolvers<unknown> | undefined;

  private constructor(tier: string | undefined) {
    this.#child = Bun.spawn([process.execPath, join(import.meta.dir, "engine-process.ts")], {
      env: { ...process.env, ...(tier ? { OMLX_CPU_TIER: tier } : {}) },
      stdio: ["ignore", "ignore", "ignore"],
      ipc: (message: Result) => {
        if ("error" in message) this.#settle?.reject(new Error(message.error));
        else this.#settle?.resolve(message.value);
      },
      onExit: () => this.#settle?.reject(new Error("the engine process ended")),
    });
  }

  /** @throws {Error} if the library or the model cannot be loaded */
  static async open({
    tier,
    ...open
  }: Omit<Open, "kind"> & { readonly tier: string | undefined }): Promise<EngineProcess> {
    const engine = new EngineProcess(tier);
    try {
      await engine.#order({ kind: "open", ...open });
      shareSchedulingGroup(engine.#child.pid);
      return engine;
    } catch (error) {
      await engine.stop();
      throw error;
    }
  }

  /** Milliseconds per step of one token, after a prompt. */
  async decodeMs(promptTokens: number, tokens: number): Promise<number> {
    return (await this.#order({ kind: "decode", promptTokens, tokens })) as number;
  }

  async exactness(positions: number, rows: "prefill" | "decode"): Promise<Exactness> {
    const chunk = rows === "prefill" ? CHUNK : 1;
    return (await this.#order({ kind: "exactness", positions, chunk })) as Exactness;
  }

  async stop(): Promise<void> {
    this.#child.kill();
    await this.#child.exited;
  }

  #order(order: Order): Promise<unknown> {
    this.#settle = Promise.withResolvers<unknown>();
    this.#child.send(order);
    return this.#settle.promise;
  }
}

let session: ForwardSession | undefined;

async function obey(order: Order): Promise<unknown> {
  if (order.kind === "open") {
    const { folder, kernels, threads } = order;
    session = await ForwardSession.open(folder, kernels, { threads });
    decode(session, { promptTokens: 16, tokens: WARM_UP }); // Bun compiles what runs often
    return null;
  }
  if (!session) throw new Error("no model is open");
  return order.kind === "decode" ? decode(session, order) : compare(session, order);
}

function decode(
  session: ForwardSession,
  { promptTokens, tokens }: Pick<Decode, "promptTokens" | "tokens">,
): number {
  const random = generator("engine");
  const text = session.start();
  const prompt = Array.from({ length: promptTokens }, () => random() % session.vocabSize);
  session.compute([{ text, ids: prompt, logits: "last" }]);
  // any tokens will do: their choice must not stand between two steps, where the engine's threads fall asleep
  const ids = Array.from({ length: tokens }, () => random() % session.vocabSize);
  const begin = performance.now();
  for (const id of ids) session.compute([{ text, ids: [id], logits: "last" }]);
  const spentMs = performance.now() - begin;
  session.close(text);
  return spentMs / tokens;
}

async function compare(session: ForwardSession, { positions, chunk }: Compare): Promise<Exactness> {
  const sum = new ExactnessSum();
  for (const { ids, top } of await passages(positions)) {
    const text = session.start();
    for (const [i, row] of session.run(text, ids, chunk).entries()) {
      const expected = top[i];
      if (!expected) break;
      const logTotal = logSumExp(row);
      sum.add(expected, argmax(row), (id) => (row[id] ?? Number.NaN) - logTotal);
    }
    session.close(text);
  }
  return sum.result;
}

function logSumExp(row: Float32Array): number {
  let max = Number.NEGATIVE_INFINITY;
  for (const value of row) max = Math.max(max, value);
  let total = 0;
  for (const value of row) total += Math.exp(value - max);
  return max + Math.log(total);
}

if (import.meta.main) {
  process.on("message", (order: Order) => {
    void obey(order)
      .then((value): Result => ({ value }))
      .catch((error: unknown): Result => ({ error: String(error) }))
      .then((result) => process.send?.(result));
  });
  process.on("disconnect", () => process.exit(0));
}
