/**
 * @module HTTP: routes, protocols, authentication, errors. The only room that knows status codes.
 *
 * - Each vendor's folder decodes to ChatRequest and encodes ChatEvent; no protocol goes through another.
 * - An answer that takes long stays alive on the wire by a timer of its own, never by the engine's progress.
 * - A client that leaves cancels its work, streamed or not.
 */
export { createApp } from "./app.ts";
export { OpenRequests } from "./open-requests.ts";
