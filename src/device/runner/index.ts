/**
 * @module The engine process: takes token requests, runs ragged steps over all of them, sends token events.
 *
 * - `scheduler.next()` plans a step, `step()` computes it in one scope, `scheduler.settle()` books it.
 * - The scheduler knows no tensor and no clock; the storage is told what to do by effects, in order.
 * - All MLX work is on one thread; messages are taken between steps.
 */
export { runEngine } from "./loop.ts";
