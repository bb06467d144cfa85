/**
 * Constrained against free decoding, on the default model, in one engine process and in turn: what masks and forced text
 * do to the speed. `bun bench/constrained.ts [runs]`
 */
import { join } from "node:path";
import { ENGINE_SUBCOMMAND, type GrammarSpec } from "#core/contract";
import { ModelText } from "../src/front/text/model-text.ts";
import { EngineClient } from "../test/device/runner/engine-client.ts";
import { BINARY, DEFAULT_MODEL, DEFAULT_MODELS } from "../test/helpers/server.ts";
import { describeMachine } from "./machine.ts";
import { median } from "./stats.ts";

const TOKENS = 160;
const runs = Number(process.argv[2] ?? 7);

const schema = (value: unknown): GrammarSpec => ({ kind: "schema", schema: JSON.stringify(value) });
const person = {
  type: "object",
  properties: {
    name: { type: "string", maxLength: 60 },
    age: { type: "integer", minimum: 0, maximum: 120 },
    email: { type: "string" },
    skills: {
      type: "array",
      items: { enum: ["typescript", "cooking", "music"] },
      minItems: 1,
      maxItems: 3,
    },
    active: { type: "boolean" },
  },
  required: ["name", "age", "email", "skills", "active"],
};

/** Each goes on for more tokens than are measured. */
const CASES: Readonly<Record<string, GrammarSpec | null>> = {
  free: null,
  "one long string": schema({ type: "string", minLength: 2000 }),
  "list of records": schema({ type: "array", items: person, minItems: 40 }),
  "any JSON in a list": schema({
    type: "array",
    items: { type: "object", additionalProperties: { type: "string" }, minProperties: 1 },
    minItems: 80,
  }),
  "pattern of words": { kind: "regex", pattern: "([a-z]+ ){400}" },
};

const modelPath = join(DEFAULT_MODELS, DEFAULT_MODEL);
const engine = new EngineClient({ modelPath, threads: 0 }, [BINARY, ENGINE_SUBCOMMAND]);
const { kernels, device } = await engine.loaded;
const text = new ModelText(DEFAULT_MODEL, modelPath);
const { vocabulary, addedIds } = text.loaded;
engine.send({ kind: "vocabulary", vocabulary: { ...vocabulary, addedIds } });
const promptIds = text.tokenizer.encode(
  "Here is a list of the people who work with us, as JSON:\n",
);

/** Tokens per second after the first one. */
async function speed(grammar: GrammarSpec | null, seed: number): Promise<number> {
  const { answer, started } = engine.generate({
    promptIds,
    maxTokens: TOKENS,
    sampling: { temperature: 0.7, topP: 0.95, seed },
    constraint: grammar === null ? null : { grammar, strict: true, after: null },
  });
  await started;
  const begin = performance.now();
  const { ids } = await answer;
  if (ids.length < TOKENS) throw new Error(`it ended after ${ids.length} tokens`);
  return ((ids.length - 1) / (performance.now() - begin)) * 1000;
}

const speeds = new Map(Object.keys(CASES).map((name) => [name, [] as number[]]));
for (let run = -1; run < runs; run++) {
  for (const [name, grammar] of Object.entries(CASES)) {
    const found = await speed(grammar, run + 2);
    if (run >= 0) speeds.get(name)?.push(found);
  }
}
await engine.shutdown();

console.log(
  `${describeMachine().cpu} · ${device} (${kernels}) · ${DEFAULT_MODEL}, ${TOKENS} tokens, ${runs} runs`,
);
const free = median(speeds.get("free") ?? []);
for (const [name, list] of speeds)
  console.log(
    `${name.padEnd(20)} ${median(list).toFixed(0).padStart(5)} tok/s  ${(median(list) / free).toFixed(2)}× free`,
  );
