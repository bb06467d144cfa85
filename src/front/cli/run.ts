import {
  CHAT_DEFAULTS,
  type ChatRequest,
  invalidRequest,
  type Message,
  type Usage,
} from "#core/contract";
import { streamChat } from "#front/service";
import type { CliContext } from "./commands.ts";
import { type OwnFlag, openPool, takeFlags } from "./open.ts";

export const RUN_FLAGS: readonly OwnFlag[] = [
  { flag: "--system", value: "TEXT", doc: "What the model is told before the prompt." },
  { flag: "--max-tokens", value: "N", doc: "Tokens of the answer at most (default: what fits)." },
  { flag: "--temperature", value: "T", doc: "0: always the most probable token; up to 2." },
  { flag: "--seed", value: "N", doc: "The same seed gives the same answer." },
];

/** What shells expect of a command that Ctrl-C ended. */
const INTERRUPTED = 130;

/**
 * `omlx run MODEL "prompt"`: one answer, streamed to standard output, without a server; what it cost on standard error.
 * Without a prompt, or where "-" stands in it, standard input is read to its end.
 */
export async function run(args: readonly string[], context: CliContext): Promise<number> {
  const { taken, rest } = takeFlags(args, RUN_FLAGS);
  const own = ownFlags(taken);
  const { pool, words } = await openPool(rest, context, "warning");
  const abort = new AbortController();
  const onSignal = () => abort.abort();
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(name, onSignal);
  // who reads our output may leave early (head); nothing more is wanted then
  process.stdout.on("error", onSignal);
  try {
    const [model, ...prompt] = words;
    if (model === undefined) throw invalidRequest('Which model? omlx run MODEL "prompt"');
    const text = await promptOf(prompt);
    return await answer(streamChat(pool, requestOf(model, text, own), abort.signal), abort.signal);
  } finally {
    await pool.stop();
  }
}

type Own = Pick<ChatRequest, "maxTokens" | "sampling"> & { readonly system: string | undefined };

function ownFlags(taken: ReadonlyMap<string, string>): Own {
  const number = (flag: string, isGood: (value: number) => boolean, what: string) => {
    const text = taken.get(flag);
    if (text === undefined) return undefined;
    const value = Number(text);
    if (text.trim() !== "" && isGood(value)) return value;
    throw invalidRequest(`Cannot use ${flag} ${JSON.stringify(text)}: it must be ${what}`, flag);
  };
  const maxTokens = number(
    "--max-tokens",
    (n) => Number.isSafeInteger(n) && n >= 1,
    "a whole number of at least 1",
  );
  const temperature = number("--temperature", (n) => n >= 0 && n <= 2, "a number from 0 to 2");
  const seed = number("--seed", Number.isSafeInteger, "a whole number");
  return {
    system: taken.get("--system"),
    maxTokens,
    sampling: {
      ...(temperature === undefined ? {} : { temperature }),
      ...(seed === undefined ? {} : { seed }),
    },
  };
}

function requestOf(model: string, text: string, { system, maxTokens, sampling }: Own): ChatRequest {
  const message = (role: Message["role"], content: string): Message => ({
    role,
    parts: [{ kind: "text", text: content }],
  });
  const before = system === undefined ? [] : [message("system", system)];
  const messages = [...before, message("user", text)];
  return { ...CHAT_DEFAULTS, model, messages, maxTokens, sampling };
}

/** @throws {OmlxError} invalid_request: there is none */
async function promptOf(words: readonly string[]): Promise<string> {
  const isAsked = words.length === 0 || words.includes("-");
  if (isAsked && process.stdin.isTTY) throw invalidRequest('What to say? omlx run MODEL "prompt"');
  const piped = isAsked ? (await Bun.stdin.text()).trimEnd() : "";
  const text = words.length === 0 ? piped : words.map((w) => (w === "-" ? piped : w)).join(" ");
  if (text.trim() === "") throw invalidRequest("The prompt is empty");
  return text;
}

async function answer(events: ReturnType<typeof streamChat>, signal: AbortSignal): Promise<number> {
  const begun = performance.now();
  let firstAt: number | undefined;
  let last = "";
  let usage: Usage | undefined;
  try {
    for await (const event of events) {
      if (event.kind === "start") for (const warning of event.warnings) note(warning);
      else firstAt ??= performance.now();
      if (event.kind === "text") {
        last = event.text || last;
        process.stdout.write(event.text);
      } else if (event.kind === "reasoning") process.stderr.write(event.text);
      else if (event.kind === "end") usage = event.usage;
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  if (last !== "" && !last.endsWith("\n")) process.stdout.write("\n");
  if (signal.aborted || usage === undefined) return INTERRUPTED;
  const now = performance.now();
  const first = firstAt ?? now;
  const { promptTokens, completionTokens } = usage;
  // the first token is the prompt's doing; the others came after it
  const perSecond = (Math.max(completionTokens - 1, 0) * 1000) / Math.max(now - first, 1);
  note(
    `${completionTokens} tokens, ${perSecond.toFixed(1)} tokens/s after the first; prompt of ${promptTokens} tokens and loading: ${((first - begun) / 1000).toFixed(2)} s`,
  );
  return 0;
}

function note(text: string): void {
  process.stderr.write(`omlx: ${text}\n`);
}
