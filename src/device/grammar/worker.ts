/** A grammar Worker's entry: takes messages in order, one at a time. */

import { GrammarHost, reasonOf } from "./host.ts";
import type { FromGrammar, ToGrammar } from "./messages.ts";

declare const self: Worker;

let host: GrammarHost | undefined;
let progress = new Int32Array(new SharedArrayBuffer(8));
let said = "";
// XGrammar's WebAssembly knows no other way to say what is wrong.
console.error =
  console.warn =
  console.log =
    (...parts: unknown[]) => {
      said = `${said}${parts.join(" ")}\n`.slice(-4000);
    };

let turn: Promise<void> = Promise.resolve();
self.onmessage = (event: MessageEvent<ToGrammar>) => {
  turn = turn.then(() => take(event.data)).catch(end);
};

/** A fault of ours: the engine ends this Worker and fails the requests that need it. */
function end(error: unknown): void {
  reply({ kind: "broken", reason: error instanceof Error ? error.message : String(error) });
}

async function take(message: ToGrammar): Promise<void> {
  if (message.kind === "vocabulary") {
    progress = new Int32Array(message.progress);
    host = await GrammarHost.create(message.vocabulary, message.vocabSize);
    reply({ kind: "ready" });
    return;
  }
  if (host === undefined) throw new Error("the grammar Worker has no vocabulary yet");
  if (message.kind === "compile") await compile(host, message);
  else if (message.kind === "open")
    await host.open(message.matcher, message.key, message.stopIds, message.shared);
  else if (message.kind === "accept") await host.accept(message.matcher, message.id);
  else if (message.kind === "close") host.close(message.matcher);
  else host.drop(message.key);
}

async function compile(
  owner: GrammarHost,
  { key, spec, isStrict }: Extract<ToGrammar, { kind: "compile" }>,
): Promise<void> {
  const begin = performance.now();
  said = "";
  Atomics.add(progress, 0, 1);
  try {
    const ignored = await owner.compile(key, spec, isStrict);
    reply({ kind: "compiled", key, ms: performance.now() - begin, ignored });
  } catch (error) {
    reply({ kind: "failed", key, ...reasonOf(error, said) });
  } finally {
    Atomics.add(progress, 1, 1);
  }
}

function reply(message: FromGrammar): void {
  self.postMessage(message);
}
