import { invalidRequest } from "#core/contract";
import { embed as embedTexts } from "#front/service";
import type { CliContext } from "./commands.ts";
import { type OwnFlag, openPool, takeFlags } from "./open.ts";

export const EMBED_FLAGS: readonly OwnFlag[] = [
  { flag: "--prompt-name", value: "NAME", doc: "The model's prompt to put before each text." },
  { flag: "--dimensions", value: "N", doc: "Numbers that are kept of each vector." },
  { flag: "--truncate", value: "", doc: "Cut texts that are too long, instead of refusing them." },
];

/** `omlx embed MODEL "text"…`: a vector for each text, a JSON list a line. Without texts every line of standard input is one. */
export async function embed(args: readonly string[], context: CliContext): Promise<number> {
  const { taken, rest } = takeFlags(args, EMBED_FLAGS);
  const dimensions = dimensionsOf(taken.get("--dimensions"));
  const { pool, words } = await openPool(rest, context, "warning");
  const abort = new AbortController();
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.once(name, () => abort.abort());
  }
  try {
    const [model, ...texts] = words;
    if (model === undefined) throw invalidRequest('Which model? omlx embed MODEL "text"…');
    const inputs = texts.length > 0 ? texts : await linesOfInput();
    const { vectors } = await embedTexts(
      pool,
      {
        model,
        inputs,
        param: "text",
        promptName: taken.get("--prompt-name") ?? null,
        inputType: null,
        truncateAt: taken.has("--truncate") ? 0 : null,
        dimensions,
        tokenOutputs: [],
      },
      abort.signal,
    );
    for (const vector of vectors) {
      await Bun.write(Bun.stdout, `${JSON.stringify(Array.from(vector))}\n`);
    }
    return 0;
  } finally {
    await pool.stop();
  }
}

function dimensionsOf(text: string | undefined): number | null {
  if (text === undefined) return null;
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 1) return value;
  throw invalidRequest(
    `Cannot keep ${JSON.stringify(text)} dimensions: give a number of at least 1`,
  );
}

async function linesOfInput(): Promise<string[]> {
  if (process.stdin.isTTY) throw invalidRequest('What to embed? omlx embed MODEL "text"…');
  const lines = (await Bun.stdin.text()).split("\n").filter((line) => line !== "");
  if (lines.length === 0) throw invalidRequest("Standard input has no text");
  return lines;
}
