/**
 * @module The upper end of the staircase: one child process per loaded model, driven by typed messages over IPC.
 *
 * - A request's loop ends with its finish event or with an OmlxError; it never hangs on a dead or stopped child.
 * - A death fails the requests that were open, then the child starts again; only a request that dies alone, three times,
 *   is refused from then on.
 * - When the server ends, however it ends, no child stays.
 */
export * from "./command.ts";
export { convertModel } from "./convert.ts";
export type { Engine, EngineState } from "./supervisor.ts";
export { startEngine } from "./supervisor.ts";
