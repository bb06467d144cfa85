/** What is measured of a server, each by real requests over HTTP. */
import { type Answer, ask, decodeSpeed, listen, prefillSpeed, totalSpeed } from "./client.ts";
import { memoryOf, shareSchedulingGroup } from "./machine.ts";
import type { RunningServer } from "./peers.ts";
import { conversation, type Message } from "./prompts.ts";
import { type ServerProcess, startProcess } from "./server-process.ts";
import { median } from "./stats.ts";

export const GROUPS = [
  ...(["decode", "bandwidth", "prefill", "streams", "load", "turn", "share", "start"] as const),
  ...(["memory", "exactness"] as const),
];
export type Group = (typeof GROUPS)[number];

/** How long requests are. */
export interface Sizes {
  /** Prompt lengths before decoding; 0 is the shortest that a chat can have. */
  readonly contexts: readonly number[];
  /** Longer contexts go on where shorter ones ended, in one round only: whole ones take minutes. */
  readonly isGrown: boolean;
  readonly prefills: readonly number[];
  readonly streams: readonly number[];
  /** Prompt that is computed beside a running answer. */
  readonly loadTokens: number;
  /** Tokens decoded per request; half of it behind a long prompt. */
  readonly decodeTokens: number;
  /** Of a slow peer. */
  readonly slowTokens: number;
  /** Positions compared with the reference. */
  readonly positions: number;
}

/** Short prompt: what "context 0" means. */
const SHORT_PROMPT = 48;
/** Longest answer beside a prompt: it fits the default model's context. */
const MAX_BESIDE = 8000;
/** Prefill this many tokens in a round at least, so that short ones are not one lucky moment. */
const PREFILL_PER_ROUND = 512;

/** Values by key; a key may have several. */
export type Values = readonly (readonly [key: string, value: number])[];

export interface Measurement {
  readonly name: string;
  /** Wanted if one of these is. */
  readonly groups: readonly Group[];
  /** Short enough for a slow peer. */
  readonly isForSlow: boolean;
  /** Only servers that compute several requests at a time. */
  readonly isForConcurrent?: boolean;
  /** Rounds that it is part of; left out: all. */
  readonly rounds?: number;
  readonly run: (server: RunningServer, seed: string) => Promise<Values>;
}

/** Names of the measured quantities; what else a key says is in UNITS. */
export const KEYS = {
  decode: (context: number) => `decode@${context}`,
  prefill: (tokens: number) => `prefill@${tokens}`,
  streams: (count: number) => `streams@${count}`,
  bandwidth: "bandwidth",
  interval: (which: "median" | "p95" | "max") => `interval.${which}`,
  cold: "turn.first",
  second: "turn.second",
  token: "token",
  step: "step",
  healthy: "start.healthy",
  firstToken: "start.token",
  freshToken: "start.fresh",
  memory: "memory",
} as const;

/** Of the part of a key before "@". */
export const UNITS: Readonly<Record<string, { unit: string; lessIsBetter: boolean }>> = {
  decode: { unit: "tok/s", lessIsBetter: false },
  prefill: { unit: "tok/s", lessIsBetter: false },
  streams: { unit: "tok/s", lessIsBetter: false },
  bandwidth: { unit: "GB/s", lessIsBetter: false },
  "interval.median": { unit: "ms", lessIsBetter: true },
  "interval.p95": { unit: "ms", lessIsBetter: true },
  "interval.max": { unit: "ms", lessIsBetter: true },
  "turn.first": { unit: "ms", lessIsBetter: true },
  "turn.second": { unit: "ms", lessIsBetter: true },
  token: { unit: "ms", lessIsBetter: true },
  step: { unit: "ms", lessIsBetter: true },
  "start.healthy": { unit: "ms", lessIsBetter: true },
  "start.token": { unit: "ms", lessIsBetter: true },
  "start.fresh": { unit: "ms", lessIsBetter: true },
  memory: { unit: "MiB", lessIsBetter: true },
};

export function measurementsOf(sizes: Sizes): Measurement[] {
  const { contexts, isGrown } = sizes;
  const deepest = Math.max(...contexts);
  const behindPrompts = contexts.filter((context) => context > 0);
  return [
    ...contexts.filter((context) => context === 0).map((context) => decode(context, sizes)),
    ...(isGrown && behindPrompts.length > 0
      ? [grown(behindPrompts, sizes)]
      : behindPrompts.map((context) =>
          context === deepest ? deep(context, sizes) : decode(context, sizes),
        )),
    ...sizes.prefills.map(prefill),
    ...sizes.streams.filter((count) => count > 1).map((count) => streams(count, sizes)),
    load(sizes),
    sampled(sizes),
    start,
  ];
}

/** After the rounds. */
export const MEMORY: Measurement = {
  name: "memory",
  groups: ["memory"],
  isForSlow: true,
  run: ({ single }) => Promise.resolve([[KEYS.memory, memoryOf(single.pid) / 2 ** 20]]),
};

/** One short answer, so that nothing is measured that only the first request does. */
export async function warmUp({ peer, single, streams: several }: RunningServer): Promise<void> {
  for (const server of new Set([single, several])) {
    const messages = conversation(`warm-up ${peer.id}`, SHORT_PROMPT);
    await ask(server.origin, {
      messages,
      maxTokens: peer.isSlow ? 2 : 16,
      fields: peer.fields(false),
    });
    shareSchedulingGroup(server.pid);
  }
}

function decode(context: number, { decodeTokens, slowTokens }: Sizes): Measurement {
  return {
    name: `decode at context ${context}`,
    groups: context === 0 ? ["decode", "bandwidth"] : ["decode"],
    isForSlow: context === 0,
    async run(server, seed) {
      const tokens = context === 0 ? decodeTokens : Math.ceil(decodeTokens / 2);
      const answer = await request(server, seed, {
        promptTokens: context,
        maxTokens: server.peer.isSlow ? slowTokens : tokens,
      });
      return [[KEYS.decode(context), decodeSpeed(answer)]];
    },
  };
}

/** Decoding behind the longest prompt, and the next turn of that conversation: long prefills are made once for both. */
function deep(context: number, { decodeTokens }: Sizes): Measurement {
  return {
    name: `decode at context ${context}, and the second turn`,
    groups: ["decode", "turn"],
    isForSlow: false,
    async run({ peer, single }, seed) {
      const messages = conversation(seed, context);
      const first = await ask(single.origin, {
        messages,
        maxTokens: Math.ceil(decodeTokens / 2),
        fields: peer.fields(false),
      });
      const next: Message[] = [
        ...messages,
        { role: "assistant", content: first.text },
        { role: "user", content: "What does that mean for the next day?" },
      ];
      const second = await ask(single.origin, {
        messages: next,
        maxTokens: 2,
        fields: peer.fields(true),
      });
      return [
        [KEYS.decode(context), decodeSpeed(first)],
        [KEYS.cold, first.firstMs],
        [KEYS.second, second.firstMs],
      ];
    },
  };
}

/** Decoding behind prompts that grow: each computes only what it adds to the one before. */
function grown(contexts: readonly number[], { decodeTokens }: Sizes): Measurement {
  const ascending = [...contexts].sort((a, b) => a - b);
  return {
    name: `decode at contexts ${ascending.join(", ")}`,
    groups: ["decode"],
    isForSlow: false,
    rounds: 1,
    async run({ peer, single }, seed) {
      const values: [string, number][] = [];
      for (const context of ascending) {
        const answer = await ask(single.origin, {
          messages: conversation(seed, context),
          maxTokens: Math.ceil(decodeTokens / 2),
          fields: peer.fields(true),
        });
        values.push([KEYS.decode(context), decodeSpeed(answer)]);
      }
      return values;
    },
  };
}

function prefill(tokens: number): Measurement {
  return {
    name: `prefill of ${tokens} tokens`,
    groups: ["prefill"],
    isForSlow: tokens <= 128,
    async run(server, seed) {
      const { isSlow, prefillTokens = tokens } = server.peer;
      const repeats = isSlow ? 1 : Math.max(1, Math.floor(PREFILL_PER_ROUND / tokens));
      const values: [string, number][] = [];
      for (let i = 0; i < repeats; i++) {
        const answer = await request(server, `${seed} ${i}`, {
          promptTokens: prefillTokens,
          maxTokens: 1,
        });
        values.push([KEYS.prefill(tokens), prefillSpeed(answer)]);
      }
      return values;
    },
  };
}

function streams(count: number, { decodeTokens }: Sizes): Measurement {
  return {
    name: `${count} streams`,
    groups: ["streams"],
    isForSlow: false,
    async run({ peer, streams: server }, seed) {
      const answers = await Promise.all(
        Array.from({ length: count }, (_, i) =>
          ask(server.origin, {
            messages: conversation(`${seed} ${i}`, SHORT_PROMPT),
            maxTokens: decodeTokens,
            fields: peer.fields(false),
          }),
        ),
      );
      return [[KEYS.streams(count), totalSpeed(answers)]];
    },
  };
}

/** How long the tokens of an answer let its reader wait while a long prompt is computed beside it. */
function load({ loadTokens }: Sizes): Measurement {
  return {
    name: `a prompt of ${loadTokens} tokens beside a running answer`,
    groups: ["load"],
    isForSlow: false,
    isForConcurrent: true,
    async run({ peer, single }, seed) {
      const fields = peer.fields(false);
      const answer = listen(single.origin, {
        messages: conversation(`${seed} answer`, SHORT_PROMPT),
        // more than are written meanwhile; what is left is broken off
        maxTokens: MAX_BESIDE,
        fields,
      });
      await answer.begun;
      const { sentAt, firstMs } = await ask(single.origin, {
        messages: conversation(`${seed} prompt`, loadTokens),
        maxTokens: 1,
        fields,
      });
      const pieces = answer.stop();
      const intervals = pieces
        .map((at, i) => ({ at, ms: at - (pieces[i - 1] ?? at) }))
        .filter(({ at }, i) => i > 0 && at > sentAt && at <= sentAt + firstMs)
        .map(({ ms }) => ms)
        .sort((a, b) => a - b);
      if (intervals.length === 0) throw new Error("no token came while the prompt was computed");
      return [
        [KEYS.interval("median"), median(intervals)],
        [KEYS.interval("p95"), intervals[Math.floor(intervals.length * 0.95)] ?? Number.NaN],
        [KEYS.interval("max"), intervals.at(-1) ?? Number.NaN],
      ];
    },
  };
}

/** Milliseconds per token with sampling, to be compared with the engine's bare step. */
function sampled({ decodeTokens }: Sizes): Measurement {
  return {
    name: "time per sampled token",
    groups: ["share"],
    isForSlow: false,
    run: async (server, seed) => [[KEYS.token, await sampledTokenMs(server, seed, decodeTokens)]],
  };
}

/** Milliseconds per token of an answer at temperature 0.7 and top_p 0.95. */
export async function sampledTokenMs(
  { peer, single }: RunningServer,
  seed: string,
  tokens: number,
): Promise<number> {
  const answer = await ask(single.origin, {
    messages: conversation(seed, SHORT_PROMPT),
    maxTokens: tokens,
    fields: { ...peer.fields(false), temperature: 0.7, top_p: 0.95, seed: 1 },
  });
  return 1000 / decodeSpeed(answer);
}

/** The prompt of "time per sampled token", for who computes the same without a server. */
export const SAMPLED_PROMPT = SHORT_PROMPT;

const start: Measurement = {
  name: "start",
  groups: ["start"],
  isForSlow: false,
  async run({ peer }, seed) {
    const values: [string, number][] = [];
    const first = async (server: ServerProcess) => {
      try {
        const { sentAt, firstMs } = await ask(server.origin, {
          messages: conversation(seed, SHORT_PROMPT),
          maxTokens: 1,
          fields: peer.fields(false),
        });
        return sentAt + firstMs - server.spawnedAt;
      } finally {
        await server.stop();
      }
    };
    const server = await startProcess(peer.command);
    values.push([KEYS.healthy, server.healthyAt - server.spawnedAt]);
    values.push([KEYS.firstToken, await first(server)]);
    const fresh = peer.freshCommand?.();
    if (fresh) {
      try {
        values.push([KEYS.freshToken, await first(await startProcess(fresh.command))]);
      } finally {
        fresh.dispose();
      }
    }
    return values;
  },
};

interface Size {
  readonly promptTokens: number;
  readonly maxTokens: number;
}

function request({ peer, single }: RunningServer, seed: string, size: Size): Promise<Answer> {
  return ask(single.origin, {
    messages: conversation(seed, size.promptTokens || SHORT_PROMPT),
    maxTokens: size.maxTokens,
    fields: peer.fields(false),
  });
}
