/** Constrained decoding through a real engine process; random weights at temperature 1 write nothing valid by chance. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import Ajv2020 from "ajv/dist/2020";
import addFormats from "ajv-formats";
import {
  type GrammarSpec,
  OmlxError,
  type SamplingParams,
  type TokenRequest,
} from "#core/contract";
import { ModelText } from "../../../src/front/text/model-text.ts";
import { SCHEMAS } from "../grammar/schemas.ts";
import { type Answer, EngineClient } from "./engine-client.ts";

const MODEL = join(import.meta.dir, "../../fixtures/models/llama-f32");
const EOS = 383;
/** Of the tokens for " and }. */
const TO_END: SamplingParams["logitBias"] = [
  [1, 5],
  [92, 5],
];
const SEEDS = process.env["OMLX_LONG"] ? 30 : 1;
const TIMEOUT_MS = 120_000;
/** On machines that run other tests at the same time. */
const LIMIT_MS = 20_000;

let engine: EngineClient;
let text: ModelText;

beforeAll(async () => {
  text = new ModelText("tiny", MODEL);
  engine = new EngineClient({ modelPath: MODEL, contextWindow: 2048, maxRunning: 16 });
  await engine.loaded;
  const { vocabulary, addedIds } = text.loaded;
  engine.send({
    kind: "vocabulary",
    vocabulary: { bytes: vocabulary.bytes, offsets: vocabulary.offsets, addedIds },
  });
}, TIMEOUT_MS);

afterAll(async () => {
  expect(await engine.shutdown()).toBe(0);
});

const decode = (ids: readonly number[]): string => {
  const { bytes, offsets } = text.loaded.vocabulary;
  const parts = ids.map((id) => bytes.subarray(offsets[id], offsets[id + 1]));
  return new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(parts));
};

const prompt = (from: number) =>
  Array.from({ length: 12 }, (_, i) => 3 + ((from * 31 + i * 7) % 90));

type Options = Partial<Omit<TokenRequest, "sampling">> & {
  readonly seed?: number;
  readonly logitBias?: SamplingParams["logitBias"];
};

function ask(
  grammar: GrammarSpec,
  { seed = 1, logitBias = [], constraint, ...more }: Options = {},
) {
  return engine.generate({
    promptIds: prompt(seed),
    maxTokens: 1500,
    stopIds: [EOS],
    sampling: { temperature: 1, seed, logitBias },
    constraint: { grammar, strict: true, after: null, ...constraint },
    ...more,
  });
}

const schemaSpec = (schema: unknown): GrammarSpec => ({
  kind: "schema",
  schema: JSON.stringify(schema),
});

const relaxed = (grammar: GrammarSpec) => ({ grammar, strict: false, after: null });

const errorOf = async (answer: Promise<Answer>): Promise<OmlxError> => {
  try {
    await answer;
  } catch (error) {
    if (error instanceof OmlxError) return error;
    throw error;
  }
  throw new Error("it was answered");
};

describe("a JSON schema", () => {
  test(
    `is satisfied by random weights: ${SCHEMAS.length} schemas, ${SEEDS} seeds`,
    async () => {
      expect(SCHEMAS.length).toBeGreaterThanOrEqual(150);
      const problems: string[] = [];
      const check = async (schema: (typeof SCHEMAS)[number], seed: number) => {
        const ajv = addFormats(
          new Ajv2020({ strict: false, multipleOfPrecision: 9, allErrors: false }),
        );
        const say = (what: string) => problems.push(`${JSON.stringify(schema)}: ${what}`);
        let answer: Answer;
        try {
          answer = await ask(schemaSpec(schema), { seed }).answer;
          // Free keys, texts and trees may go on and on; a bias towards their end does not make them valid.
          for (let again = 1; again <= 3 && answer.reason === "length"; again++) {
            const other = { seed: 1000 * again + seed, logitBias: TO_END };
            answer = await ask(schemaSpec(schema), other).answer;
          }
        } catch (error) {
          say(String(error));
          return;
        }
        if (answer.reason !== "stop") {
          say(`did not end after ${answer.ids.length} tokens`);
          return;
        }
        const written = decode(answer.ids);
        if (!validate(ajv, schema, JSON.parse(written))) say(`wrote ${written.slice(0, 200)}`);
      };
      for (let seed = 1; seed <= SEEDS; seed++) {
        for (let at = 0; at < SCHEMAS.length; at += 16)
          await Promise.all(SCHEMAS.slice(at, at + 16).map((schema) => check(schema, seed)));
      }
      expect(problems).toEqual([]);
    },
    TIMEOUT_MS * SEEDS,
  );
});

describe("a schema that cannot be enforced", () => {
  const UNSUPPORTED: readonly (readonly [keyword: string, schema: unknown])[] = [
    ["uniqueItems", { type: "array", items: { type: "integer" }, uniqueItems: true }],
    ["contains", { type: "array", contains: { const: 1 } }],
    [
      "if",
      JSON.parse('{"type": "object", "if": {"required": ["a"]}, "then": {"required": ["b"]}}'),
    ],
    ["not", { not: { const: 1 } }],
    ["oneOf", { oneOf: [{ minLength: 3 }, { maxLength: 5 }] }],
    ["dependentSchemas", { type: "object", dependentSchemas: { a: { required: ["b"] } } }],
    ["pattern", { type: "string", pattern: "^(?=a)b" }],
    ["pattern", { type: "string", pattern: "(a)\\1" }],
    ["multipleOf", { type: "integer", multipleOf: 7919, minimum: 0 }],
    ["minProperties", { type: "object", minProperties: 3 }],
  ];

  test("is an error that names the keyword when it is strict", async () => {
    for (const [keyword, schema] of UNSUPPORTED) {
      const error = await errorOf(ask(schemaSpec(schema)).answer);
      expect(error.code).toBe("invalid_request");
      expect(error.message).toContain(keyword === "pattern" ? "pattern" : `"${keyword}"`);
    }
  });

  test("is enforced as far as it goes when it is not strict, and the answer tells what is not", async () => {
    const schema = {
      type: "array",
      items: { type: "integer", minimum: 0, maximum: 9 },
      minItems: 2,
      maxItems: 4,
      uniqueItems: true,
    };
    const { answer } = ask(schemaSpec(schema), { constraint: relaxed(schemaSpec(schema)) });
    const { ids, events } = await answer;
    expect(JSON.parse(decode(ids)).length).toBeGreaterThanOrEqual(2);
    const told = events.flatMap((event) =>
      event.kind === "prefill" && event.relaxed ? [event.relaxed] : [],
    );
    expect(told).toEqual(['The schema keywords "uniqueItems" are not enforced']);
  });

  test("leaves the answer free only where it is told so", async () => {
    for (const spec of [
      schemaSpec({ type: "strange" }),
      { kind: "regex", pattern: "(" } as const,
    ]) {
      const { answer } = ask(spec, { constraint: relaxed(spec), maxTokens: 4 });
      const { events } = await answer;
      const told = events.flatMap((event) =>
        event.kind === "prefill" && event.relaxed ? [event.relaxed] : [],
      );
      expect(told.length).toBe(1);
      expect(told[0]).toContain("Cannot enforce");
      expect((await errorOf(ask(spec).answer)).code).toBe("invalid_request");
    }
  });

  test("that nothing satisfies is an error", async () => {
    for (const schema of [
      false,
      { allOf: [{ type: "string" }, { type: "integer" }] },
      { type: "integer", minimum: 3, maximum: 2 },
      {
        $defs: { n: { type: "object", properties: { n: { $ref: "#/$defs/n" } }, required: ["n"] } },
        $ref: "#/$defs/n",
      },
      { $ref: "#" },
      { $ref: "#/nowhere" },
      { $ref: "https://example.com/schema.json" },
      { type: "object", properties: 5 },
      { enum: [] },
      { type: "string", minLength: 3, maxLength: 2 },
      { type: "string", pattern: "^a{3}$", maxLength: 2 },
    ]) {
      const error = await errorOf(ask(schemaSpec(schema)).answer);
      expect([error.code, JSON.stringify(schema)]).toEqual([
        "invalid_request",
        JSON.stringify(schema),
      ]);
    }
  });
});

describe("hostile grammars", () => {
  const nested = (
    depth: number,
    wrap: (inner: unknown) => unknown,
    core: unknown = { type: "null" },
  ) => {
    let schema = core;
    for (let i = 0; i < depth; i++) schema = wrap(schema);
    return schema;
  };
  const HOSTILE: Readonly<Record<string, unknown>> = {
    "1,000-deep anyOf": nested(1000, (inner) => ({ anyOf: [inner, { type: "boolean" }] })),
    "1,000-deep allOf": nested(1000, (inner) => ({ allOf: [inner] })),
    "1,000-deep properties": nested(1000, (a) => ({
      type: "object",
      properties: { a },
      required: ["a"],
    })),
    "a $ref cycle": {
      $defs: { a: { $ref: "#/$defs/b" }, b: { $ref: "#/$defs/a" } },
      $ref: "#/$defs/a",
    },
    "catastrophic pattern": { type: "string", pattern: "^(a+)+$", maxLength: 30 },
    "catastrophic pattern with counts": {
      type: "string",
      pattern: "^((a{1,100}){1,100}){1,100}$",
      maxLength: 50,
    },
    "maxLength 1e9": { type: "string", maxLength: 1e9 },
    "minLength 1e9": { type: "string", minLength: 1e9 },
    "maxItems 1e9": { type: "array", items: { type: "null" }, maxItems: 1e9 },
    "5 MB": {
      type: "object",
      properties: Object.fromEntries(
        Array.from({ length: 60_000 }, (_, i) => [
          `a property with a long name ${i}`,
          { type: "integer", description: "x" },
        ]),
      ),
    },
    "a large enum": { enum: Array.from({ length: 100_000 }, (_, i) => `value ${i}`) },
    "exponential anyOf": {
      $defs: Object.fromEntries(
        Array.from({ length: 41 }, (_, i) => {
          const choice = (x: string) => ({
            anyOf: [{ $ref: `#/$defs/d${i + 1}` }, { title: `${x}${i}` }],
          });
          return [`d${i}`, i === 40 ? { type: "null" } : { allOf: [choice("a"), choice("b")] }];
        }),
      ),
      $ref: "#/$defs/d0",
    },
    "deep values": { const: nested(5000, (inner) => [inner], 1) },
    "deep groups": { type: "string", pattern: `${"(".repeat(5000)}a${")".repeat(5000)}` },
  };

  for (const [name, schema] of Object.entries(HOSTILE)) {
    test(`${name}: an answer or a named error, soon`, async () => {
      const spec = schemaSpec(schema);
      const begin = performance.now();
      const { answer, started, id } = ask(spec, { maxTokens: 20 });
      const outcome = await Promise.race([started, answer]).then(
        () => "began",
        (error: unknown) => error,
      );
      const ms = performance.now() - begin;
      if (outcome !== "began") {
        expect(outcome).toBeInstanceOf(OmlxError);
        expect((outcome as OmlxError).code).toBe("invalid_request");
      }
      engine.cancel(id);
      // 2 s on a machine that has nothing else to do.
      expect(ms).toBeLessThan(LIMIT_MS);
      // The next one is healthy.
      expect(decode((await ask(schemaSpec({ const: "healthy" })).answer).ids)).toBe('"healthy"');
    });
  }

  test("a long compilation beside a running answer does not hold it up", async () => {
    const running = ask(
      schemaSpec({ type: "array", items: { type: "boolean" }, minItems: 200, maxItems: 200 }),
    );
    await running.started;
    const hostile = ask(
      schemaSpec({
        enum: Array.from({ length: 90_000 }, (_, i) => `value ${i} ${"x".repeat(30)}`),
      }),
    );
    let isCompiling = true;
    const ended = errorOf(hostile.answer)
      .catch(() => {})
      .finally(() => {
        isCompiling = false;
      });
    const { ids } = await running.answer;
    expect(JSON.parse(decode(ids)).length).toBe(200);
    expect(isCompiling).toBe(true);
    engine.cancel(hostile.id);
    await ended;
  });
});

describe("other grammars", () => {
  test("patterns, whole texts and with long counts", async () => {
    for (const pattern of [
      "[a-c]{2,3}-\\d+x",
      "yes|no|maybe",
      "a{40,45}b",
      "(?:\\+|-)?[0-9]{1,3}",
      "[^\\d\\s]{35}!",
      "naïve (café|señor)",
    ]) {
      const { ids, reason } = await ask({ kind: "regex", pattern }).answer;
      expect(reason).toBe("stop");
      expect(decode(ids)).toMatch(new RegExp(`^(?:${pattern})$`, "u"));
    }
  });

  test("GBNF with comments, groups, counts and recursion", async () => {
    const grammar = `# sums
root   ::= term (op term){0,40} ";" # the end
term   ::= number | "(" root ")"
number ::= [1-9] [0-9]{0,2}
op     ::= " " ("+" | "-" | "×") " "
`;
    for (let seed = 1; seed <= 5; seed++) {
      const { ids, reason } = await ask({ kind: "ebnf", grammar }, { seed }).answer;
      if (reason === "stop") expect(decode(ids)).toMatch(/^[0-9(][0-9 +\-×();]*;$/);
    }
    for (const wrong of [
      "root ::= a",
      'start ::= "a"',
      "root ::= (",
      'root ::= "a" {',
      "root ::= [z-a]",
    ])
      expect((await errorOf(ask({ kind: "ebnf", grammar: wrong }).answer)).code).toBe(
        "invalid_request",
      );
    const left = await ask({ kind: "ebnf", grammar: 'root ::= root "a" | "b"' }, { maxTokens: 8 })
      .answer;
    expect(decode(left.ids)).toMatch(/^ba*$/);
  });

  test("structural tags: a forced call of one of several tools, with valid arguments", async () => {
    const tools: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
      weather: {
        type: "object",
        properties: {
          city: { type: "string", maxLength: 40 },
          days: { type: "integer", minimum: 1, maximum: 7 },
        },
        required: ["city", "days"],
        additionalProperties: false,
      },
      stop: { type: "object", properties: {}, additionalProperties: false },
      move: {
        type: "object",
        properties: {
          to: {
            type: "array",
            items: { type: "integer", minimum: -9, maximum: 9 },
            minItems: 2,
            maxItems: 2,
          },
        },
        required: ["to"],
        additionalProperties: false,
      },
    };
    const tag = {
      type: "structural_tag",
      format: {
        type: "triggered_tags",
        triggers: ["<tool_call>"],
        tags: Object.entries(tools).map(([name, json_schema]) => ({
          type: "tag",
          begin: `<tool_call>\n{"name": "${name}", "arguments": `,
          content: { type: "json_schema", json_schema },
          end: "}\n</tool_call>",
        })),
        at_least_one: true,
        stop_after_first: true,
      },
    };
    const called = new Set<string>();
    for (let seed = 1; seed <= 12; seed++) {
      const { ids, reason } = await ask(
        { kind: "structuralTag", tag: JSON.stringify(tag) },
        { seed },
      ).answer;
      expect(reason).toBe("stop");
      const call = JSON.parse(
        /^<tool_call>\n(.*)\n<\/tool_call>$/s.exec(decode(ids))?.[1] ?? "null",
      );
      called.add(call.name);
      expect(new Ajv2020().validate(tools[call.name] as object, call.arguments)).toBe(true);
    }
    expect(called.size).toBeGreaterThan(1);
  });

  test("structural tags: free text until a call begins", async () => {
    const tag = {
      type: "triggered_tags",
      triggers: ["{"],
      tags: [
        { type: "tag", begin: "{", content: { type: "regex", pattern: "[ab]{40}" }, end: "}" },
      ],
    };
    let calls = 0;
    for (let seed = 1; seed <= 4; seed++) {
      const spec = { kind: "structuralTag", tag: JSON.stringify(tag) } as const;
      const { ids } = await ask(spec, { seed, maxTokens: 300, logitBias: [[90, 3]] }).answer;
      const { bytes, offsets } = text.loaded.vocabulary;
      const written = Buffer.concat(
        ids.map((id) => bytes.subarray(offsets[id], offsets[id + 1])),
      ).toString();
      const found = written.match(/\{[^}]*(?:\}|$)/g) ?? [];
      for (const call of found) expect(call).toMatch(/^\{[ab]{0,40}(?:(?<=[ab]{40})\})?$/);
      calls += found.length;
    }
    expect(calls).toBeGreaterThan(2);
  });
});

describe("constrained requests", () => {
  const person = schemaSpec({
    type: "object",
    properties: {
      name: { type: "string", maxLength: 40 },
      age: { type: "integer" },
      tags: { type: "array", items: { enum: ["a", "b"] } },
    },
    required: ["name", "age", "tags"],
  });

  test("give the same tokens alone and in a batch with others, and so does a free one", async () => {
    const other = schemaSpec({ type: "array", items: { type: "number" }, maxItems: 40 });
    const three = () => [
      ask(person, { seed: 5 }).answer,
      ask(other, { seed: 6 }).answer,
      engine.generate({
        promptIds: prompt(7),
        maxTokens: 60,
        sampling: { temperature: 1, seed: 7 },
      }).answer,
    ];
    const together = await Promise.all(three());
    const [first, second] = [
      await ask(person, { seed: 5 }).answer,
      await ask(other, { seed: 6 }).answer,
    ];
    const third = await engine.generate({
      promptIds: prompt(7),
      maxTokens: 60,
      sampling: { temperature: 1, seed: 7 },
    }).answer;
    expect(together.map((answer) => answer.ids)).toEqual([first.ids, second.ids, third.ids]);
  });

  test("append forced text in one step, and write the same when every token's probability is told", async () => {
    const spec = schemaSpec({
      type: "object",
      properties: { a_rather_long_property_name: { const: "and a long value" } },
      required: ["a_rather_long_property_name"],
    });
    const plain = await ask(spec).answer;
    expect(decode(plain.ids)).toBe('{"a_rather_long_property_name": "and a long value"}');
    const steps = plain.events.filter((event) => event.kind === "tokens").length;
    expect(steps).toBeLessThan(plain.ids.length / 3);
    const told = await ask(spec, { topLogprobs: 2 }).answer;
    expect(told.ids).toEqual(plain.ids);
    expect(told.logprobs.map((l) => l.id)).toEqual(plain.ids as number[]);
    expect(told.logprobs.every((l) => l.logprob < 0 && l.top.length === 2)).toBe(true);
  });

  test("are not presented as complete at the length limit", async () => {
    const { reason, ids } = await ask(person, { maxTokens: 9 }).answer;
    expect([reason, ids.length]).toEqual(["length", 9]);
  });

  test("end where the grammar ends, also without stop ids and before minTokens", async () => {
    const { reason, ids } = await ask(schemaSpec({ const: [1, 2] }), { stopIds: [], minTokens: 30 })
      .answer;
    expect([reason, decode(ids)]).toEqual(["stop", "[1, 2]"]);
  });

  test("hold together with penalties, filters, biases and greedy sampling", async () => {
    const kinds: readonly Partial<SamplingParams>[] = [
      { temperature: 0 },
      { temperature: 0.7, topP: 0.9 },
      { temperature: 1.5, topK: 5 },
      { temperature: 1, minP: 0.2 },
      { temperature: 1, repetitionPenalty: 1.3, presencePenalty: 1, frequencyPenalty: 0.5 },
      { temperature: 1, xtcProbability: 1, xtcThreshold: 0.01 },
      { temperature: 1, logitBias: [[1, -100]] },
    ];
    for (const sampling of kinds) {
      const spec = schemaSpec({
        type: "array",
        items: { enum: ["x", "yy", 12, null] },
        minItems: 3,
        maxItems: 5,
      });
      const { ids } = await engine.generate({
        promptIds: prompt(3),
        maxTokens: 200,
        stopIds: [EOS],
        sampling: { seed: 3, ...sampling },
        constraint: { grammar: spec, strict: true, after: null },
      }).answer;
      expect(JSON.parse(decode(ids)).length).toBeGreaterThanOrEqual(3);
    }
  });

  test("begin after the end of the thoughts, which a budget forces", async () => {
    const END = [5, 6, 7]; // any three tokens
    const budget = { maxTokens: 20, endIds: END };
    const { ids, reason } = await ask(schemaSpec({ const: "answer" }), {
      constraint: { grammar: schemaSpec({ const: "answer" }), strict: true, after: END },
      thinkingBudget: budget,
    }).answer;
    expect(reason).toBe("stop");
    const at = ids.findIndex((_, i) => END.every((id, k) => ids[i + k] === id));
    expect(at).toBeLessThanOrEqual(20);
    expect(at).toBeGreaterThan(15);
    expect(decode(ids.slice(at + END.length))).toBe('"answer"');
    // A budget alone leaves the rest free.
    const free = await engine.generate({
      promptIds: prompt(1),
      maxTokens: 40,
      sampling: { temperature: 1, seed: 1 },
      thinkingBudget: budget,
    }).answer;
    expect(free.ids.slice(0, at + 3)).toEqual(ids.slice(0, at + 3));
    expect(free.ids.length).toBe(40);
  });

  test("can be cancelled while their grammar is compiled and while they run", async () => {
    const slow = ask(schemaSpec({ enum: Array.from({ length: 80_000 }, (_, i) => `item ${i}`) }));
    engine.cancel(slow.id);
    expect((await errorOf(slow.answer)).code).toBe("cancelled");
    const running = ask(schemaSpec({ type: "array", items: { type: "null" }, minItems: 400 }));
    await running.started;
    engine.cancel(running.id);
    expect((await errorOf(running.answer)).code).toBe("cancelled");
    expect((await engine.stats()).running).toBe(0);
  });

  test("go on after a preemption as if there had been none", async () => {
    const blockBytes = (await engine.loaded).cacheBytes / (await engine.stats()).totalBlocks;
    const small = new EngineClient({
      modelPath: MODEL,
      cacheBytes: 24 * blockBytes,
      maxRunning: 4,
    });
    await small.loaded;
    const { vocabulary, addedIds } = text.loaded;
    small.send({ kind: "vocabulary", vocabulary: { ...vocabulary, addedIds } });
    const grammar = schemaSpec({
      type: "array",
      items: { type: "integer", minimum: 100000 },
      minItems: 30,
    });
    const begin = (client: EngineClient, seed: number) =>
      client.generate({
        promptIds: prompt(seed),
        maxTokens: 230,
        stopIds: [EOS],
        sampling: { temperature: 1, seed },
        constraint: { grammar, strict: true, after: null },
      }).answer;
    const seeds = [1, 2, 3, 4];
    const crowded = await Promise.all(seeds.map((seed) => begin(small, seed)));
    expect((await small.stats()).preemptions).toBeGreaterThan(0);
    expect(await small.shutdown()).toBe(0);
    for (const [i, seed] of seeds.entries())
      expect(crowded[i]?.ids).toEqual((await begin(engine, seed)).ids as number[]);
  });
});

/** Draft 4's exclusive bounds, draft 7's tuples and OpenAPI's nullable, which the validator does not know in 2020-12. */
function validate(ajv: Ajv2020, schema: (typeof SCHEMAS)[number], value: unknown): boolean {
  return ajv.validate(modern(schema) as object, value);
}

function modern(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(modern);
  if (typeof schema !== "object" || schema === null) return schema;
  const { items, additionalItems, exclusiveMinimum, minimum, nullable, ...rest } = schema as Record<
    string,
    unknown
  >;
  const out: Record<string, unknown> = Object.fromEntries(
    Object.entries(rest).map(([key, part]) => [
      key,
      key === "const" || key === "enum" ? part : modern(part),
    ]),
  );
  if (Array.isArray(items)) {
    out["prefixItems"] = modern(items);
    if (additionalItems !== undefined) out["items"] = modern(additionalItems);
  } else if (items !== undefined) out["items"] = modern(items);
  if (exclusiveMinimum === true) out["exclusiveMinimum"] = minimum;
  else {
    if (exclusiveMinimum !== undefined) out["exclusiveMinimum"] = exclusiveMinimum;
    if (minimum !== undefined) out["minimum"] = minimum;
  }
  if (nullable === true && typeof out["type"] === "string") out["type"] = [out["type"], "null"];
  return out;
}
