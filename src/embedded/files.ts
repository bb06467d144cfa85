export interface EmbeddedFile {
  /** Where it is unpacked to, relative: "lib/libmlx.so". */
  readonly name: string;
  /** Path inside the binary. */
  readonly source: string;
  readonly bytes: number;
}

/** Names the folder they are unpacked to: changes whenever a file does. */
export const EMBEDDED_HASH: string = "";

export const EMBEDDED_FILES: readonly EmbeddedFile[] = [];
