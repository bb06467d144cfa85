/**
 * Writes a checkpoint that says a given text, to try a server or a client by hand:
 *
 *   bun scripts/golden/scripted.ts <folder> --text "Hello there." [--loop] [--window 131072] [--layers 1]
 */
import { parseArgs } from "node:util";
import { writeScriptedModel } from "../../test/helpers/scripted-model.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    text: { type: "string" },
    loop: { type: "boolean", default: false },
    window: { type: "string", default: "131072" },
    layers: { type: "string", default: "1" },
  },
});
const dir = positionals[0];
if (dir === undefined || values.text === undefined) {
  console.error(
    "usage: bun scripts/golden/scripted.ts <folder> --text <text> [--loop] [--window <tokens>]",
  );
  process.exit(2);
}
const { text, loop } = values;
await writeScriptedModel(dir, {
  text,
  loop,
  window: Number(values.window),
  layers: Number(values.layers),
});
console.log(dir);
