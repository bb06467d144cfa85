/** How near a program's next-token probabilities are to those of transformers in float32 on the same weights. */
import { type Passage, readPassages } from "../test/helpers/golden.ts";
import type { ServerProcess } from "./server-process.ts";

/** Candidates asked of llama-server; more than the reference has, so that few of the reference's are missing. */
const NUM_CANDIDATES = 512;

export interface Exactness {
  readonly positions: number;
  /** KL(reference || program), over the reference's candidates that the program names and one cell for all others. */
  readonly meanKl: number;
  /** Share of positions with the same most probable token. */
  readonly sameArgmax: number;
}

/** Positions to compare, `limit` in all, evenly from every passage. */
export async function passages(limit: number): Promise<Passage[]> {
  const all = await readPassages();
  const each = Math.ceil(limit / all.length);
  return all.map((p) => ({ ...p, ids: p.ids.slice(0, each), top: p.top.slice(0, each) }));
}

export class ExactnessSum {
  #positions = 0;
  #kl = 0;
  #same = 0;

  /** `logprobOf`: the program's, undefined where it does not say. */
  add(
    expected: Passage["top"][number],
    best: number,
    logprobOf: (id: number) => number | undefined,
  ): void {
    let reference = 0;
    let ours = 0;
    let kl = 0;
    for (const [i, id] of expected.ids.entries()) {
      const logprob = logprobOf(id);
      if (logprob === undefined) continue;
      const wanted = expected.logprobs[i] ?? Number.NaN;
      reference += Math.exp(wanted);
      ours += Math.exp(logprob);
      kl += Math.exp(wanted) * (wanted - logprob);
    }
    const [restWanted, rest] = [1 - reference, 1 - ours];
    if (restWanted > 0 && rest > 0) kl += restWanted * Math.log(restWanted / rest);
    this.#positions++;
    this.#kl += kl;
    if (best === expected.ids[0]) this.#same++;
  }

  get result(): Exactness {
    return {
      positions: this.#positions,
      meanKl: this.#kl / this.#positions,
      sameArgmax: this.#same / this.#positions,
    };
  }
}

interface Completion {
  readonly completion_probabilities?: readonly {
    readonly top_logprobs: readonly { readonly id: number; readonly logprob: number }[];
  }[];
}

/** Through llama-server's own route, token by token: each request computes one position beyond the last. */
export async function llamaExactness(server: ServerProcess, limit: number): Promise<Exactness> {
  const sum = new ExactnessSum();
  for (const { ids, top } of await passages(limit)) {
    for (const [i, expected] of top.entries()) {
      const response = await fetch(`${server.origin}/completion`, {
        method: "POST",
        body: JSON.stringify({
          prompt: ids.slice(0, i + 1),
          n_predict: 1,
          n_probs: NUM_CANDIDATES,
          temperature: 0,
          cache_prompt: true,
        }),
      });
      if (!response.ok) throw new Error(`status ${response.status}: ${await response.text()}`);
      const answer = (await response.json()) as Completion;
      const candidates = answer.completion_probabilities?.[0]?.top_logprobs ?? [];
      const logprobs = new Map(candidates.map(({ id, logprob }) => [id, logprob]));
      sum.add(expected, candidates[0]?.id ?? -1, (id) => logprobs.get(id));
    }
  }
  return sum.result;
}
