import type { EncodeRequest } from "#core/contract";
import { OmlxError } from "#core/contract";
import type { Lease } from "#front/pool";

/**
 * Runs texts through an encoder.
 *
 * @returns a row of numbers for each text, in the order of the texts
 * @throws {OmlxError} bad_output naming the text whose row is not made of numbers; what Engine.encode() throws
 */
export async function encodeRows(
  { engine, entry }: Lease,
  texts: Omit<EncodeRequest, "id">,
  param: string,
  signal: AbortSignal,
): Promise<Float32Array[]> {
  const rows: Float32Array[] = [];
  const request: EncodeRequest = { ...texts, id: crypto.randomUUID() };
  for await (const event of engine.encode(request, signal)) {
    if (event.kind === "done") continue;
    const width = event.values.length / event.texts.length;
    event.texts.forEach((index, i) => {
      const row = event.values.subarray(i * width, (i + 1) * width);
      if (!row.every(Number.isFinite)) throw notFinite(entry.id, `${param}[${index}]`);
      rows[index] = row;
    });
  }
  return rows;
}

function notFinite(model: string, place: string): OmlxError {
  return new OmlxError({
    code: "bad_output",
    message: `Model "${model}" answered ${place} with values that are not numbers: its weights or their format are broken`,
    param: place,
  });
}
