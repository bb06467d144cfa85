/**
 * @module The files that the release binary carries: native libraries and the default model. build.ts puts their list in
 * place of files.ts; from source the list is empty and everything is found in build/.
 */
export { unpackEmbedded } from "./unpack.ts";
