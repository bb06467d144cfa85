/** The binary carries XGrammar and the entry of the Workers that run it. */
import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { ENGINE_SUBCOMMAND } from "#core/contract";
import { ModelText } from "../../src/front/text/model-text.ts";
import { EngineClient } from "../device/runner/engine-client.ts";
import { BINARY } from "../helpers/server.ts";

test.skipIf(!existsSync(BINARY))("the binary's engine holds an answer to a schema", async () => {
  const modelPath = join(import.meta.dir, "../fixtures/models/llama-f32");
  const engine = new EngineClient({ modelPath }, [BINARY, ENGINE_SUBCOMMAND]);
  await engine.loaded;
  const { vocabulary, addedIds } = new ModelText("tiny", modelPath).loaded;
  engine.send({ kind: "vocabulary", vocabulary: { ...vocabulary, addedIds } });
  const schema = { type: "object", properties: { n: { type: "integer" } }, required: ["n"] };
  const { answer } = engine.generate({
    promptIds: [5, 6, 7],
    maxTokens: 200,
    sampling: { temperature: 1, seed: 1 },
    constraint: {
      grammar: { kind: "schema", schema: JSON.stringify(schema) },
      strict: true,
      after: null,
    },
  });
  const { ids } = await answer;
  const { bytes, offsets } = vocabulary;
  const parts = ids.map((id) => bytes.subarray(offsets[id], offsets[id + 1]));
  expect(Number.isInteger(JSON.parse(Buffer.concat(parts).toString()).n)).toBe(true);
  expect(await engine.shutdown()).toBe(0);
});
