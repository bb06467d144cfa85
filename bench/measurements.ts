/** What is measured of a server, each by real requests over HTTP. */
import { type Answer, ask, decodeSpeed, prefillSpeed, totalSpeed } from "./client.ts";
import { memoryOf, shareSchedulingGroup } from "./machine.ts";
import type { RunningServer } from "./peers.ts";
import { conversation, type Message } from "./prompts.ts";
import { type ServerProcess, startProcess } from "./server-process.ts";

export const GROUPS = [
  ...(["decode", "prefill", "streams", "turn", "share", "start"] as const),
  ...(["memory", "exactness"] as const),
];
export type Group = (typeof GROUPS)[number];

/** How long requests are. */
export interface Sizes {
  /** Prompt lengths before decoding; 0 is the shortest that a chat can have. */
  readonly contexts: readonly number[];
  readonly prefills: readonly number[];
  readonly streams: readonly number[];
  /** Tokens decoded per request; half of it behind a long prompt. */
  readonly decodeTokens: number;
  /** Of a slow peer. */
  readonly slowTokens: number;
  /** Positions compared with the reference. */
  readonly positions: number;
}

/** Short prompt: what "context 0" means. */
const SHORT_PROMPT = 48;
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
  readonly run: (server: RunningServer, seed: string) => Promise<Values>;
}

/** Names of the measured quantities; what else a key says is in UNITS. */
export const KEYS = {
  decode: (context: number) => `decode@${context}`,
  prefill: (tokens: number) => `prefill@${tokens}`,
  streams: (count: number) => `streams@${count}`,
  cold: "turn.first",
  second: "turn.second",
  token: "token",
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
  const deepest = Math.max(...sizes.contexts);
  return [
    ...sizes.contexts.map((context) =>
      context === deepest && context > 0 ? deep(context, sizes) : decode(context, sizes),
    ),
    ...sizes.prefills.map(prefill),
    ...sizes.streams.filter((count) => count > 1).map((count) => streams(count, sizes)),
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
    groups: ["decode"],
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

/** Milliseconds per token with sampling, to be compared with the engine's bare step. */
function sampled({ decodeTokens }: Sizes): Measurement {
  return {
    name: "time per sampled token",
    groups: ["share"],
    isForSlow: false,
    async run({ peer, single }, seed) {
      const answer = await ask(single.origin, {
        messages: conversation(seed, SHORT_PROMPT),
        maxTokens: decodeTokens,
        fields: { ...peer.fields(false), temperature: 0.7, top_p: 0.95, seed: 1 },
      });
      return [[KEYS.token, 1000 / decodeSpeed(answer)]];
    },
  };
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
