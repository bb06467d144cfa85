import { fstatSync } from "node:fs";
import { loadError } from "./fields.ts";
import { readAt } from "./folder.ts";

/** A file in a zip archive that is stored as it is. */
export interface ZipEntry {
  /** From the start of the archive. */
  readonly byteOffset: number;
  readonly byteLength: number;
}

const END_BYTES = 22;
const MAX_COMMENT_BYTES = 0xffff;
const ENTRY_BYTES = 46;
const LOCAL_BYTES = 30;
const [END_MARK, ENTRY_MARK, LOCAL_MARK] = [0x06054b50, 0x02014b50, 0x04034b50];

/**
 * Where the files of a small zip archive lie. None may be compressed, so that they can be mapped.
 *
 * @param fd   of the archive
 * @param name of the archive, for errors
 * @throws {OmlxError} model_load
 * @see PKWARE's APPNOTE.TXT, 4.3
 */
export function readStoredZip(fd: number, name: string): ReadonlyMap<string, ZipEntry> {
  const broken = (what: string) => loadError(`Cannot read ${name}: ${what}`);
  const { size } = fstatSync(fd);
  const tailStart = Math.max(0, size - END_BYTES - MAX_COMMENT_BYTES);
  const tail = viewOf(readAt(fd, tailStart, size - tailStart));
  let end = tail.byteLength - END_BYTES;
  while (end >= 0 && tail.getUint32(end, true) !== END_MARK) end--;
  if (end < 0) throw broken("it is no zip archive");
  const directoryBytes = tail.getUint32(end + 12, true);
  const directoryStart = tail.getUint32(end + 16, true);
  if (directoryStart + directoryBytes > size) throw broken("its directory lies outside the file");
  const directory = viewOf(readAt(fd, directoryStart, directoryBytes));
  const entries = new Map<string, ZipEntry>();
  for (let at = 0; at + ENTRY_BYTES <= directoryBytes; ) {
    if (directory.getUint32(at, true) !== ENTRY_MARK) throw broken("its directory is broken");
    const nameBytes = directory.getUint16(at + 28, true);
    const next = at + ENTRY_BYTES + nameBytes + extraBytes(directory, at + 30);
    if (next > directoryBytes) throw broken("its directory is broken");
    const inner = textOf(directory, at + ENTRY_BYTES, nameBytes);
    const local = viewOf(readAt(fd, directory.getUint32(at + 42, true), LOCAL_BYTES));
    if (local.byteLength < LOCAL_BYTES || local.getUint32(0, true) !== LOCAL_MARK) {
      throw broken(`"${inner}" lies outside the file`);
    }
    if (directory.getUint16(at + 10, true) !== 0) throw broken(`"${inner}" is compressed`);
    const byteLength = directory.getUint32(at + 20, true);
    const header = LOCAL_BYTES + local.getUint16(26, true) + local.getUint16(28, true);
    const byteOffset = directory.getUint32(at + 42, true) + header;
    if (byteOffset + byteLength > size) throw broken(`"${inner}" lies outside the file`);
    entries.set(inner, { byteOffset, byteLength });
    at = next;
  }
  return entries;
}

/** Length of extra field and comment, which follow the name. */
const extraBytes = (directory: DataView, at: number): number =>
  directory.getUint16(at, true) + directory.getUint16(at + 2, true);

const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

const textOf = (view: DataView, at: number, length: number): string =>
  new TextDecoder().decode(new Uint8Array(view.buffer, view.byteOffset + at, length));
