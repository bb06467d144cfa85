/**
 * @module What model files say, without touching a tensor: safetensors and GGUF headers, config.json of every dialect.
 *
 * - Whatever bytes a file holds, reading it ends with a result or one OmlxError "model_load" that names what is wrong.
 * - Nothing outside the model's folder is opened; links in the folder are followed, since hubs store files that way.
 */
export * from "./config.ts";
export { isObject, type JsonObject, parseJsonObject } from "./fields.ts";
export * from "./folder.ts";
export * from "./gguf.ts";
export * from "./gguf-convert/convert.ts";
export * from "./safetensors.ts";
export * from "./sentence.ts";
export * from "./token-heads.ts";
