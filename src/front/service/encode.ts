import { type EncodeRequest, OmlxError, type TokenOutput } from "#core/contract";
import type { Lease } from "#front/pool";

/** In the order of the texts. */
export interface EncodedRows {
  /** A row of numbers for each text. */
  readonly rows: readonly Float32Array[];
  /** The numbers of each text's tokens, as far as they were asked for. */
  readonly tokens: ReadonlyMap<TokenOutput, readonly Float32Array[]>;
}

/**
 * Runs texts through an encoder.
 *
 * @throws {OmlxError} bad_output naming the text whose row is not made of numbers; what Engine.encode() throws
 */
export async function encodeRows(
  { engine, entry }: Lease,
  texts: Omit<EncodeRequest, "id">,
  param: string,
  signal: AbortSignal,
): Promise<EncodedRows> {
  const rows: Float32Array[] = [];
  const tokens = new Map(
    texts.tokenOutputs.map((name): [TokenOutput, Float32Array[]] => [name, []]),
  );
  const request: EncodeRequest = { ...texts, id: crypto.randomUUID() };
  for await (const event of engine.encode(request, signal)) {
    if (event.kind === "done") continue;
    const take = (to: Float32Array[], part: Float32Array, index: number): void => {
      if (!part.every(Number.isFinite)) throw notFinite(entry.id, `${param}[${index}]`);
      to[index] = part;
    };
    const width = event.values.length / event.texts.length;
    event.texts.forEach((index, i) => {
      take(rows, event.values.subarray(i * width, (i + 1) * width), index);
    });
    for (const [name, to] of tokens) {
      const values = event.tokens[name] as Float32Array;
      const parts = splitTokens(values, event.texts, texts.ends);
      parts.forEach((part, i) => {
        take(to, part, event.texts[i] as number);
      });
    }
  }
  return { rows, tokens };
}

/** Numbers of the tokens of some texts, by text. */
function splitTokens(values: Float32Array, texts: Int32Array, ends: Int32Array): Float32Array[] {
  const lengths = Array.from(texts, (i) => (ends[i] as number) - (ends[i - 1] ?? 0));
  const width = values.length / lengths.reduce((sum, n) => sum + n, 0);
  let at = 0;
  return lengths.map((length) => {
    const part = values.subarray(at, at + length * width);
    at += length * width;
    return part;
  });
}

function notFinite(model: string, place: string): OmlxError {
  return new OmlxError({
    code: "bad_output",
    message: `Model "${model}" answered ${place} with values that are not numbers: its weights or their format are broken`,
    param: place,
  });
}
