import { Elysia } from "elysia";
import { z } from "zod";
import { type ChatEvent, invalidRequest } from "#core/contract";
import { streamWithTools } from "#front/service";
import { readJson } from "../../body.ts";
import type { AppDeps, Server } from "../../deps.ts";
import { endingOf } from "../../disconnect.ts";
import { HttpError, openaiError } from "../../error-handler.ts";
import { observe } from "../../request-log.ts";
import { type Protocol, respond } from "../../respond.ts";
import { routeDetail } from "../../route-detail.ts";
import { SSE_HEADERS, SSE_KEEP_ALIVE, trickle } from "../../sse.ts";
import { validate } from "../../validate.ts";
import { Warnings } from "../../warnings.ts";
import { deletedResponse, itemList, responseEvent, responseObject } from "./answers.ts";
import { decodeResponses, inputItems } from "./input-codec.ts";
import { pageOf, withId } from "./items-codec.ts";
import { type ResponseHead, type ResponseObject, ResponseWriter } from "./output-codec.ts";
import { BackgroundRun, EventNumbers, failureOf } from "./run.ts";
import { type InputItem, type ResponsesBody, responsesBody } from "./schemas.ts";
import { ResponseStore } from "./store.ts";

const CREATE = routeDetail({
  tag: "Chat",
  summary: "Answer with OpenAI's Responses protocol",
  description:
    "As Codex and the SDKs use it. With `stream: true` the answer is a `text/event-stream` of typed, numbered events.",
  body: responsesBody,
  answer: responseObject,
  stream: responseEvent,
});

const path = { id: z.string() };
const GET = routeDetail({
  tag: "Chat",
  summary: "A stored response, or one that is being made in the background",
  path,
  query: { stream: z.boolean().optional(), starting_after: z.int().optional() },
  answer: responseObject,
  stream: responseEvent,
});
const DELETE = routeDetail({
  tag: "Chat",
  summary: "Delete a stored response",
  path,
  answer: deletedResponse,
});
const ITEMS = routeDetail({
  tag: "Chat",
  summary: "The items that a stored response answered",
  path,
  query: {
    limit: z.int().min(1).max(100).optional(),
    order: z.enum(["asc", "desc"]).optional(),
    after: z.string().optional(),
  },
  answer: itemList,
});
const CANCEL = routeDetail({
  tag: "Chat",
  summary: "End a response that is being made in the background",
  path,
  answer: responseObject,
});

/** POST /v1/responses, and what is done with stored responses. */
export function responsesRoutes(deps: AppDeps) {
  const routes = new Responses(deps);
  return new Elysia({ name: "responses" })
    .post("/v1/responses", ({ request, server }) => routes.create(request, server), {
      parse: "none",
      detail: CREATE,
    })
    .get(
      "/v1/responses/:id",
      ({ params, request, server }) => routes.get(params.id, request, server),
      { detail: GET },
    )
    .delete("/v1/responses/:id", ({ params }) => routes.delete(params.id), { detail: DELETE })
    .get("/v1/responses/:id/input_items", ({ params, query }) => routes.items(params.id, query), {
      detail: ITEMS,
    })
    .post("/v1/responses/:id/cancel", ({ params }) => routes.cancel(params.id), {
      parse: "none",
      detail: CANCEL,
    });
}

class Responses {
  readonly #deps: AppDeps;
  readonly #store: ResponseStore;
  /** Background responses that are being made. */
  readonly #runs = new Map<string, BackgroundRun>();

  constructor(deps: AppDeps) {
    this.#deps = deps;
    this.#store = new ResponseStore(deps.responsesFolder);
  }

  async create(request: Request, server: Server | null): Promise<Response> {
    const deps = this.#deps;
    const body = validate(responsesBody, await readJson(request, deps.bodyLimit));
    server?.timeout(request, 0); // only now: an unfinished body must still time out
    const input = await this.#resolved(inputItems(body));
    const earlier = body.previous_response_id
      ? await this.#store.history(body.previous_response_id)
      : [];
    const asked = typeof body.input === "string" ? body : { ...body, input: [...input] };
    const decoded = decodeResponses(asked, earlier, deps.mcp?.manager.tools);
    for (const { server, path } of decoded.tools.mcp) this.#checkLabel(server, path);
    const head: ResponseHead = {
      id: `resp_${crypto.randomUUID().replaceAll("-", "")}`,
      createdAt: Math.floor(Date.now() / 1000),
      model: decoded.request.model || (deps.pool.status().defaultModel ?? ""),
    };
    const warnings = new Warnings(decoded.ignored);
    const writer = new ResponseWriter(head, body, decoded.tools.calls);
    const isBackground = body.background ?? false;
    const { signal, abort } = endingOf(isBackground ? null : request, deps.shutdown);
    const events = observe(
      warnings.watch(streamWithTools(deps.pool, deps.mcp, decoded.request, signal)),
      { id: head.id, route: "responses", model: head.model, stream: body.stream ?? false },
      deps.requests,
    );
    const keep = () => this.#keep(body, writer.response(), input);
    const headers = () => ({ "x-request-id": head.id, ...warnings.headers() });
    if (isBackground) {
      const run = new BackgroundRun(writer, abort);
      this.#runs.set(head.id, run);
      const first = writer.response();
      void run.pump(events).then(() => {
        keep();
        this.#runs.delete(head.id);
      });
      if (body.stream) return this.#follow(run, -1, headers());
      return Response.json({ ...first, status: "queued" }, { headers: headers() });
    }
    return respond(events, responsesProtocol(writer, keep), {
      stream: body.stream ?? false,
      keepAliveMs: deps.keepAliveMs,
      headers,
      signal,
      abort,
    });
  }

  async get(id: string, request: Request, server: Server | null): Promise<Response> {
    const run = this.#runs.get(id);
    const query = new URL(request.url).searchParams;
    if (query.get("stream") === "true") {
      if (!run) {
        await this.#stored(id);
        throw new HttpError(400, "Only a response that is being made in the background streams");
      }
      server?.timeout(request, 0);
      return this.#follow(run, Number(query.get("starting_after") ?? -1));
    }
    return Response.json(run?.writer.response() ?? (await this.#stored(id)).response);
  }

  async delete(id: string): Promise<Response> {
    this.#runs.get(id)?.cancel();
    const isRunning = this.#runs.delete(id);
    if (!(await this.#store.delete(id)) && !isRunning) throw unknown(id);
    return Response.json({ id, object: "response", deleted: true });
  }

  async items(id: string, query: Readonly<Record<string, string>>): Promise<Response> {
    return Response.json(pageOf((await this.#stored(id)).input, query));
  }

  async cancel(id: string): Promise<Response> {
    const run = this.#runs.get(id);
    if (!run) {
      const { response } = await this.#stored(id);
      if (response["background"] !== true) {
        throw new HttpError(400, "Only a response made in the background can be cancelled");
      }
      return Response.json(response); // it has ended already
    }
    run.cancel();
    return Response.json(run.writer.response());
  }

  /** Servers come from the configuration on disk only, whatever address a request names. */
  #checkLabel(server: string, path: string): void {
    const known = (this.#deps.mcp?.manager.servers ?? []).map(({ name }) => name);
    if (known.includes(server)) return;
    const shown = known.join(", ") || "(none)";
    throw invalidRequest(
      `No MCP server with the label ${JSON.stringify(server.slice(0, 100))} is configured. Configured: ${shown}`,
      `${path}.server_label`,
    );
  }

  #follow(run: BackgroundRun, after: number, headers: Record<string, string> = {}): Response {
    return trickle(run.follow(Number.isInteger(after) ? after : -1), {
      head: "",
      keepAlive: SSE_KEEP_ALIVE,
      keepAliveMs: this.#deps.keepAliveMs,
      headers: { ...SSE_HEADERS, ...headers },
      onLeave: () => {}, // the work goes on
    });
  }

  /** Items with an id each; references replaced by what they point at. */
  async #resolved(items: readonly InputItem[]): Promise<InputItem[]> {
    const out: InputItem[] = [];
    for (const [i, item] of items.entries()) {
      if (item.type !== "item_reference") {
        out.push(withId(item));
        continue;
      }
      const found = await this.#store.item(item.id ?? "");
      if (!found) {
        throw new HttpError(404, `No stored item has the id of "input[${i}]"`, "item_not_found");
      }
      out.push(found as InputItem);
    }
    return out;
  }

  #keep(body: ResponsesBody, response: ResponseObject, input: readonly InputItem[]): void {
    if (body.store === false) return;
    void this.#store.put(response.id, { response, input });
  }

  async #stored(id: string) {
    const stored = await this.#store.get(id);
    if (!stored) throw unknown(id);
    return stored;
  }
}

function unknown(id: string): HttpError {
  const shown = JSON.stringify(id.slice(0, 100));
  return new HttpError(404, `Response ${shown} not found`, "response_not_found");
}

function responsesProtocol(
  writer: ResponseWriter,
  keep: () => void,
): Protocol<ChatEvent, ResponseObject> {
  const numbers = new EventNumbers();
  const head = writer
    .start()
    .map((event) => numbers.frame(event))
    .join("");
  return {
    head,
    frames(event) {
      const frames = [...writer.write(event)].map((written) => numbers.frame(written)).join("");
      if (event.kind === "end") keep();
      return frames;
    },
    errorFrame(error) {
      const frame = numbers.frame(writer.fail(failureOf(error)));
      keep();
      return frame;
    },
    tail: "",
    // a comment does not reset the idle clock of clients that count events
    keepAlive: () => numbers.frame({ type: "response.in_progress", response: writer.response() }),
    async collect(events) {
      for await (const event of events) for (const _ of writer.write(event));
      keep();
      return writer.response();
    },
    whole: (response) => response,
    errorBody: openaiError,
  };
}
